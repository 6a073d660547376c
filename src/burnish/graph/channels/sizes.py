# SPDX-License-Identifier: Apache-2.0
"""Sizes that a graph reads off its tensors and writes into shapes again.

Attention is exported with shapes that are computed: Shape, Slice, Concat, then Reshape. A
size that only takes this way follows a cut by itself. A size that anything else computes
with (a mean by division, a range) would change the result, so its axis stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from burnish.graph.channels.propagation import Entry, Propagation, title
from burnish.graph.constants import constant, integers

_MOVING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_SHAPED = {"Reshape": 1, "Expand": 1}


def track(p: Propagation, node: ir.Node) -> None:
    """Notes which sizes the node's output holds, and locks those that it computes with."""
    if node.op_type == "Shape" and node.domain == "":
        axes = p.values.get(node.inputs[0]) if node.inputs[0] is not None else None
        if axes is not None:
            start = node.attributes.get_int("start", 0)
            end = node.attributes.get_int("end", len(axes))
            p.sizes[node.outputs[0]] = list(axes[start:end])
        return
    if not any(value in p.sizes for value in node.inputs):
        return
    found = _moved(p, node)
    if found is not None:
        p.sizes[node.outputs[0]] = found
        return
    for place, value in enumerate(node.inputs):
        if _SHAPED.get(node.op_type) != place or node.domain != "":
            escape(p, value, node)


def escape(p: Propagation, value: ir.Value | None, node: ir.Node) -> None:
    """Locks the axes whose sizes are in a value that the node computes with."""
    if value is not None:
        for entry in p.sizes.get(value, ()):
            if isinstance(entry, np.ndarray):
                p.hold(entry, f"{title(node)} computes with its size")


def _moved(p: Propagation, node: ir.Node) -> list[Entry] | None:
    """Returns the entries of the output when the node only moves them."""
    source = p.entries(node.inputs[0])
    if node.domain != "":
        return None
    if node.op_type == "Concat":
        found: list[Entry] = []
        for value in node.inputs:
            entries = p.entries(value)
            if entries is None:
                return None
            found += entries
        return found
    if source is None or node.inputs[0] not in p.sizes:
        return None
    if node.op_type in _MOVING:
        return source if len(p.shapes.of(node.outputs[0]) or ()) <= 1 else None
    if node.op_type == "Gather":
        indices = constant(node.inputs[1])
        if indices is None or indices.ndim > 1:
            return None
        return [source[int(one)] for one in indices.reshape(-1)]
    if node.op_type == "Slice":
        return _part(node, source)
    return None


def _part(node: ir.Node, source: Sequence[Entry]) -> list[Entry] | None:
    bounds = [integers(value) for value in node.inputs[1:]]
    if any(one is None or len(one) != 1 for one in bounds):
        return None
    numbers = [one[0] for one in bounds if one is not None]
    step = numbers[3] if len(numbers) > 3 else 1
    return list(source[slice(numbers[0], numbers[1], step)])
