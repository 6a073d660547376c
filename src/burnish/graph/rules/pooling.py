# SPDX-License-Identifier: Apache-2.0
"""Pooling over a whole picture, and zeros padded before a convolution or a pool.

int8 kernels exist for GlobalAveragePool and Flatten, not for ReduceMean.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import integers, made_by, number, sizes
from burnish.graph.rewrite import Answer, Rule

_HALF_OR_SINGLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _global_average(node: ir.Node, tape: Tape) -> Answer:
    x, shape = node.inputs[0], sizes(node.inputs[0])
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    if x is None or shape is None or len(shape) < 3 or not axes:
        return None
    rank = len(shape)
    if sorted(axis % rank for axis in axes) != list(range(2, rank)):
        return None
    if x.dtype not in _HALF_OR_SINGLE:
        return f"engines pool float and float16, not {x.dtype}"
    # Engines know a layer or group normalization by its ReduceMean, and have one kernel for it.
    square = made_by(x, "Mul", "Pow")
    if any(user.op_type == "Sub" for user, _ in node.outputs[0].uses()) or (
        square is not None and (square.op_type == "Pow" or square.inputs[0] is square.inputs[1])
    ):
        return "it is the mean or the variance of a normalization"
    pooled = tape.op("GlobalAveragePool", [x])
    if node.attributes.get_int("keepdims", 1):
        return pooled
    pooled.dtype = x.dtype
    assert x.shape is not None
    pooled.shape = ir.Shape([x.shape[0], x.shape[1], *[1] * (rank - 2)])
    return tape.op("Flatten", [pooled], {"axis": 1})


def _flatten(node: ir.Node, tape: Tape) -> Answer:
    pool = made_by(node.inputs[0], "GlobalAveragePool", "GlobalMaxPool")
    pooled, flat = sizes(node.inputs[0]), node.outputs[0].shape
    if pool is None or pooled is None or flat is None or len(flat) != 2:
        return None
    # All but two dimensions are 1: one that is kept fixes the other.
    same = [_same(old, new) for old, new in zip(pool.outputs[0].shape or (), flat, strict=False)]
    if not any(same):
        return "it does not keep batch and channels apart"
    return tape.op("Flatten", [node.inputs[0]], {"axis": 1})


def _same(one: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return one.value is not None and one.value == other.value


def _padded_convolution(node: ir.Node, tape: Tape) -> Answer:
    pad = made_by(node.inputs[0], "Pad")
    if pad is None:
        return None
    amounts = _padding(node, pad, expected=0.0)
    if not isinstance(amounts, list):
        return amounts
    attributes = {**node.attributes, "pads": ir.AttrInt64s("pads", amounts)}
    attributes.pop("auto_pad", None)
    return tape.op("Conv", [pad.inputs[0], *node.inputs[1:]], attributes)


def _padded_max(node: ir.Node, tape: Tape) -> Answer:
    pad = made_by(node.inputs[0], "Pad")
    if pad is None or len(node.outputs) > 1:
        return None
    value = padding_value(pad)
    if value is None:
        return "what is padded is not known"
    source = made_by(pad.inputs[0], "Relu", "Sigmoid", "Clip", "HardSigmoid", "Softmax")
    if source is not None and source.op_type == "Clip":
        least = number(source.inputs[1]) if len(source.inputs) > 1 else None
        source = source if least is not None and least >= 0 else None
    # The pool's own padding never wins; a padded zero does not if no number is below it.
    if value > float(np.finfo(np.float32).min) and not (value == 0 and source is not None):
        return f"the padded {value:g} could be the largest number of a window"
    if node.attributes.get_int("ceil_mode", 0):
        return "with ceil_mode, windows count differently in the pool's own padding"
    amounts = _padding(node, pad, expected=None)
    if not isinstance(amounts, list):
        return amounts
    kernel = node.attributes.get_ints("kernel_shape") or ()
    if any(amount >= size for amount, size in zip(amounts, [*kernel, *kernel], strict=True)):
        return "a window could lie in the padding alone"
    attributes = {**node.attributes, "pads": ir.AttrInt64s("pads", amounts)}
    attributes.pop("auto_pad", None)
    return tape.op("MaxPool", [pad.inputs[0]], attributes)


def padding_value(pad: ir.Node) -> float | None:
    """Returns what is padded with; None where it is not constant."""
    if len(pad.inputs) < 3 or pad.inputs[2] is None:
        return 0.0
    return number(pad.inputs[2])


def _padding(node: ir.Node, pad: ir.Node, expected: float | None) -> list[int] | str | None:
    """Returns the node's own padding plus that of `pad`, or why they do not add up."""
    shape = sizes(pad.inputs[0])
    if shape is None:
        return "the rank of what is padded is not known"
    if pad.attributes.get_string("mode", "constant") != "constant":
        return f"the padding is by {pad.attributes.get_string('mode')}, not by a constant"
    if expected is not None and padding_value(pad) != expected:
        return "it pads something else than zeros"
    amounts = padding_by_axis(pad, len(shape))
    if amounts is None:
        return "how much is padded is not constant"
    before, after = amounts
    if any(before[:2]) or any(after[:2]):
        return "it pads the batch or the channels"
    if min(before + after) < 0:
        return "it crops"
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the operator pads by its output's size (auto_pad)"
    spatial = len(shape) - 2
    valid = node.attributes.get_string("auto_pad", "NOTSET") == "VALID"
    own = list(node.attributes.get_ints("pads") or ()) if not valid else []
    own = own or [0] * (2 * spatial)
    return [a + b for a, b in zip(own, before[2:] + after[2:], strict=True)]


def padding_by_axis(pad: ir.Node, rank: int) -> tuple[list[int], list[int]] | None:
    """Returns how much is padded before and after each axis."""
    given = integers(pad.inputs[1])
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        chosen = integers(pad.inputs[3])
        if chosen is None:
            return None
        axes = [axis % rank for axis in chosen]
    if given is None or len(given) != 2 * len(axes):
        return None
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = given[position], given[position + len(axes)]
    return before, after


POOLING = (
    Rule("to GlobalAveragePool", frozenset({"ReduceMean"}), _global_average),
    Rule("to Flatten", frozenset({"Reshape", "Squeeze"}), _flatten, quiet=True),
    Rule("takes the Pad before it", frozenset({"Conv"}), _padded_convolution),
    Rule("takes the Pad before it", frozenset({"MaxPool"}), _padded_max),
)
