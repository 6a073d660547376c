# SPDX-License-Identifier: Apache-2.0
"""Computes what does not depend on the input, and drops what nothing reads."""

from __future__ import annotations

from math import prod

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from burnish.graph.constants import sizes

_GROWTH_BYTES = 64 * 1024
_LIMIT_BYTES = 1024**3  # the growth decides, not the size of one constant
_GROWING = frozenset({"Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Pad", "OneHot"})
# Folding these would turn int8 weights back into floats.
_KEPT = frozenset({"DequantizeLinear", "QuantizeLinear"})


def fold(graph: ir.Model) -> None:
    """Replaces computed constants by their values, in place, unless that makes a large file.

    A constant that is much larger than what it is computed from (an expanded mask) stays
    computed: engines fold it when they load the model, so it costs nothing there. Then
    drops identities, nodes that repeat another, dead nodes and unused initializers.
    """
    fold_constants(
        graph,
        input_size_limit=_LIMIT_BYTES,
        output_size_limit=_LIMIT_BYTES,
        should_fold=_should_fold,
    )
    common.IdentityEliminationPass()(graph)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    common.CommonSubexpressionEliminationPass()(graph)
    common.RemoveUnusedNodesPass()(graph)


def _should_fold(node: ir.Node) -> bool | None:
    """Returns False for what must stay, None to leave it to the folder's own judgement."""
    if node.op_type in _KEPT:
        return False
    # What no one else reads goes when the node goes.
    freed = sum(
        value.const_value.nbytes
        for value in node.inputs
        if value is not None and value.const_value is not None and len(value.uses()) == 1
    )
    made = 0.0
    for output in node.outputs:
        shape = sizes(output)
        if shape is not None and None not in shape and output.dtype is not None:
            made += prod(size or 0 for size in shape) * output.dtype.itemsize
        elif node.op_type in _GROWING:
            return False  # known once types are inferred anew
    return False if made > freed + _GROWTH_BYTES else None
