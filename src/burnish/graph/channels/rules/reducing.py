# SPDX-License-Identifier: Apache-2.0
"""Reductions, pooling and resizing: axes that they work over stay, the others pass."""

from __future__ import annotations

import onnx_ir as ir

from burnish.graph.channels.propagation import Axis, Entry, Propagation, Refusal, Survives, title
from burnish.graph.constants import constant


def reduction(p: Propagation, node: ir.Node) -> None:
    """ReduceMean and its kin, ArgMax, ArgMin."""
    x = p.axes(node.inputs[0])
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = [node.attributes.get_int("axis", 0)]
    elif given is not None:
        found = p.fixed(given)
        if found is None:
            raise Refusal("reduces over axes that are computed")
        axes = found
    else:
        axes = []
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        p.give(node, x)
        return
    reduced = {one % len(x) for one in axes} or set(range(len(x)))
    reason = f"{title(node)} reduces over it"
    keep = node.attributes.get_int("keepdims", 1)
    result: list[Axis] = []
    for axis, ids in enumerate(x):
        if axis not in reduced:
            result.append(ids)
            continue
        p.hold(ids, reason)
        if keep:
            result.append(p.atoms.new(1))
            p.hold(result[-1], reason)
    p.give(node, result)


def pooling(p: Propagation, node: ir.Node) -> None:
    """Pooling over all axes after batch and channels."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise Refusal("gives the places of its maxima")
    x = p.axes(node.inputs[0])
    reason = f"{title(node)} slides over it"
    p.hold(x[2:], reason)
    p.give(node, [*x[:2], *(p.held(node, axis, reason) for axis in range(2, len(x)))])
    for index in range(1, len(node.outputs)):
        p.values[node.outputs[index]] = None


def resize(p: Propagation, node: ir.Node) -> None:
    """Resize: axes that keep their size pass, the others stay."""
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise Refusal("crops what it resizes")
    x = p.axes(node.inputs[0])
    after = p.shapes.of(node.outputs[0])
    if after is None or len(after) != len(x):
        raise Refusal("gives a shape that is not known")
    wanted = node.inputs[3] if len(node.inputs) > 3 else None
    listed = [one % len(x) for one in node.attributes.get_ints("axes", range(len(x)))]
    entries = p.entries(wanted) if wanted is not None else None
    can_write = p.writable(wanted)
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    reason = f"{title(node)} resizes it"
    passing: list[int] = []
    result: list[Axis] = []
    for axis, ids in enumerate(x):
        same = ids is not None and ids.size == after[axis]
        if same and axis in listed:
            place = listed.index(axis)
            if wanted is not None:
                same = entries is not None and can_write[place] and _positive(entries[place])
            else:
                same = _is_one(scales, place)
        if same:
            passing.append(axis)
            result.append(ids)
        else:
            p.hold(ids, reason)
            result.append(p.held(node, axis, reason))
    p.give(node, result)
    if wanted is None or entries is None:
        return

    def repair(survives: Survives) -> None:
        new, changed = list(entries), False
        for axis in passing:
            if axis in listed and (ids := x[axis]) is not None and not survives(ids).all():
                new[listed.index(axis)] = int(survives(ids).sum())
                changed = True
        if changed:
            p.set_entries(node, 3, new)

    p.repairs.append(repair)


def _positive(entry: Entry) -> bool:
    return isinstance(entry, int) and entry > 0


def _is_one(scales: ir.Value | None, place: int) -> bool:
    array = constant(scales)
    return array is not None and array.size > place and float(array.reshape(-1)[place]) == 1.0
