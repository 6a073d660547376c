# SPDX-License-Identifier: Apache-2.0
"""Views that change nothing, follow each other, or are computed where one number would do."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import constant, integers, made_by, sizes
from burnish.graph.rewrite import Answer, Rule


def _transpose(node: ir.Node, tape: Tape) -> Answer:
    order = _order(node)
    if node.inputs[0] is None or order is None:
        return None
    if order == list(range(len(order))):
        return node.inputs[0]
    first = made_by(node.inputs[0], "Transpose")
    inner = _order(first) if first is not None else None
    if first is None or inner is None or len(first.outputs[0].uses()) > 1:
        return None
    return tape.op("Transpose", [first.inputs[0]], {"perm": [inner[axis] for axis in order]})


def _order(node: ir.Node) -> list[int] | None:
    given = node.attributes.get_ints("perm")
    if given is not None:
        return list(given)
    shape = sizes(node.inputs[0])
    return None if shape is None else list(reversed(range(len(shape))))


def _reshape(node: ir.Node, tape: Tape) -> Answer:
    """case 1: to the shape it has already.  case 2: a view of a view."""
    x, wanted = node.inputs[0], integers(node.inputs[1])
    shape = sizes(x)
    if x is None or wanted is None:
        return None
    if shape is not None and len(shape) == len(wanted):
        free = [position for position, size in enumerate(shape) if size is None]
        copies = not node.attributes.get_int("allowzero", 0)
        same = [
            size == want or (want == 0 and copies) or want == -1
            for size, want in zip(shape, wanted, strict=True)
        ]
        if all(same) and free in ([], [wanted.index(-1)] if -1 in wanted else []):
            return x
    first = made_by(x, "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if first is None or 0 in wanted:
        return None
    return tape.op("Reshape", [first.inputs[0], node.inputs[1]], dict(node.attributes))


def _fixed_shape(node: ir.Node, tape: Tape) -> Answer:
    """Reshape to (s₀, …, n, …) with one computed size n: that size is what is left, −1."""
    if constant(node.inputs[1]) is not None:
        return None
    found = _numbers(node.inputs[1])
    if found is None or any(size == 0 for size in found):
        return "its shape is computed in a way that cannot be followed"
    shape = [-1 if size is None else size for size in found]
    if shape.count(-1) > 1:
        return f"{shape.count(-1)} of its sizes are known only when it runs"
    name = f"{node.name}.shape"
    target = tape.initializer(ir.tensor(np.array(shape, np.int64), name=name), name)
    return tape.op("Reshape", [node.inputs[0], target])


def _numbers(value: ir.Value | None, depth: int = 8) -> list[int | None] | None:
    """Returns the integers in a vector or scalar, None for each that is not known."""
    known = integers(value)
    if value is None or known is not None:
        return list(known) if known is not None else None
    node = value.producer()
    shape = sizes(value)
    unknown: list[int | None] | None = [None] if shape in ([], [1]) else None
    if node is None or depth == 0 or node.domain != "":
        return unknown
    if node.op_type == "Shape":
        of = sizes(node.inputs[0])
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", None)
        return of[start:end] if of is not None else unknown
    if node.op_type == "Concat":
        parts = [_numbers(one, depth - 1) for one in node.inputs]
        joined = [number for part in parts if part is not None for number in part]
        return unknown if any(part is None for part in parts) else joined
    inner = _numbers(node.inputs[0], depth - 1) if node.inputs else None
    if inner is None:
        return unknown
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape", "Identity"):
        return inner
    if node.op_type == "Slice":
        start_end = [integers(one) for one in node.inputs[1:3]]
        step = integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
        if None not in start_end and step == [1] and all(len(one or ()) == 1 for one in start_end):
            (start,), (end,) = start_end[0] or [0], start_end[1] or [0]
            return inner[start:end]
    if node.op_type == "Gather":
        chosen = integers(node.inputs[1])
        if chosen is not None and all(-len(inner) <= one < len(inner) for one in chosen):
            return [inner[one] for one in chosen]
    return unknown


def _dropout(node: ir.Node, tape: Tape) -> Answer:
    if any(one.uses() or one.is_graph_output() for one in node.outputs[1:]):
        return "its mask is used"
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None:
        always = constant(training)
        if always is None or bool(always):
            return "it may be in training mode"
    return node.inputs[0]


LAYOUT = (
    Rule("removed", frozenset({"Dropout"}), _dropout, quiet=True),
    Rule("folded", frozenset({"Transpose"}), _transpose, quiet=True),
    Rule("to a fixed shape", frozenset({"Reshape"}), _fixed_shape, quiet=True),
    Rule("folded", frozenset({"Reshape"}), _reshape, quiet=True),
)
