# SPDX-License-Identifier: Apache-2.0
"""Gives each layer its own copy of constants that are shared only because they were equal.

Exporters and graph optimizers keep one tensor for equal constants: fresh biases are all 0,
and so are fresh running means. Trained, each goes its own way. What is shared by design,
an embedding with a classifier say, stays shared.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from burnish.core.model import Model

_STATISTICS = (3, 4)


def untied(model: Model) -> Model:
    """Returns the model, its digest the same, where training may change constants apart.

    Copied is what BatchNormalization reads, and a tensor of two elements or more that holds
    one number throughout, wherever several inputs of nodes read it.
    """
    graph = model.edit()
    taken = {value.name for value in graph.graph.initializers.values()}
    taken |= {value.name for node in graph.graph.all_nodes() for value in node.outputs}
    changed = False
    for value in list(graph.graph.initializers.values()):
        uses = list(value.uses())
        if len(uses) < 2 or value.is_graph_input() or value.const_value is None:
            continue
        if not value.const_value.dtype.is_floating_point():
            continue
        apart = _is_uniform(value)
        # The first use keeps the tensor, unless it is a statistic and another is none.
        for use in sorted(uses, key=_is_statistic)[1:]:
            if not apart and use.node.op_type != "BatchNormalization":
                continue
            if use.node.graph is not graph.graph:
                continue
            changed = True
            use.node.replace_input_with(use.idx, _copy(graph.graph, value, use.node, taken))
    return Model(graph, model.lineage) if changed else model


def _is_statistic(use: Any) -> bool:
    return use.node.op_type == "BatchNormalization" and use.idx in _STATISTICS


def _is_uniform(value: ir.Value) -> bool:
    assert value.const_value is not None
    array = value.const_value.numpy()
    return bool(array.size > 1 and (array == array.flat[0]).all())


def _copy(graph: ir.Graph, value: ir.Value, node: ir.Node, taken: set[str | None]) -> ir.Value:
    assert value.const_value is not None
    name = f"{value.name}.{node.name or node.outputs[0].name}"
    while name in taken:
        name += "_"
    taken.add(name)
    copy = ir.Value(
        name=name,
        type=value.type,
        shape=value.shape,
        const_value=ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype, name=name),
    )
    graph.register_initializer(copy)
    return copy
