# SPDX-License-Identifier: Apache-2.0
"""Gives an exported graph the names that its user sees."""

from __future__ import annotations

import onnx_ir as ir


def name_interface(graph: ir.Graph, input_names: list[str], output_names: list[str]) -> None:
    """Names inputs and outputs, in order; other values that have such a name lose it."""
    seen: set[ir.Value] = set()
    for position, value in enumerate(list(graph.outputs)):
        if value in seen or value.is_graph_input() or value.is_initializer():
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            graph.append(node)
            graph.outputs[position] = node.outputs[0]
        seen.add(graph.outputs[position])
    wanted = dict(zip((*graph.inputs, *graph.outputs), (*input_names, *output_names), strict=True))
    # Other values give way; canonical names them anew.
    for node in graph.all_nodes():
        for value in node.outputs:
            if value not in wanted and value.name in wanted.values():
                value.name = None
    for name in list(graph.initializers):
        if name in wanted.values():
            graph.initializers[name].name = f"{name}_weight"
    for value, name in wanted.items():
        value.name = f"burnish.{name}"
    for value, name in wanted.items():
        value.name = name


def apart(names: list[str], taken: list[str]) -> list[str]:
    """Returns output names that are no input's and that differ from each other."""
    free: list[str] = []
    for name in names:
        while name in taken or name in free:
            name += "_output"
        free.append(name)
    return free
