# SPDX-License-Identifier: Apache-2.0
"""Operators that join, part, pick, pad, repeat or reorder positions along axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.propagation import Axis, Propagation, Refusal, Survives, title
from burnish.graph.constants import constant

_TO_THE_END = np.iinfo(np.int32).max


def concat(p: Propagation, node: ir.Node) -> None:
    """Concat: along its axis one input after the other."""
    inputs = [p.axes(value) for value in node.inputs]
    axis = node.attributes.get_int("axis", 0) % len(inputs[0])
    if any(len(one) != len(inputs[0]) for one in inputs):
        raise Refusal("joins tensors of different ranks")
    result: list[Axis] = []
    for place in range(len(inputs[0])):
        meeting = [one[place] for one in inputs]
        if place == axis:
            known = [ids for ids in meeting if ids is not None]
            if len(known) < len(meeting):
                p.hold(known, f"{title(node)} meets a size that is not known")
                result.append(None)
            else:
                result.append(np.concatenate(known))
            continue
        first = meeting[0]
        for other in meeting[1:]:
            first = p.join(node, first, other)
        result.append(first)
    p.give(node, result)
    p.move_origin(node)


def split(p: Propagation, node: ir.Node) -> None:
    """Split: each output has a run of positions."""
    x = p.axes(node.inputs[0])
    axis = node.attributes.get_int("axis", 0) % len(x)
    ids = _static(p, node, x[axis])
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        sizes = p.fixed(given)
        if sizes is None:
            raise Refusal("splits into sizes that are computed")
    else:
        count = len(node.outputs)
        chunk = -(-ids.size // count)
        sizes = [min(chunk, ids.size - start) for start in range(0, ids.size, chunk)]
    if len(sizes) != len(node.outputs) or sum(sizes) != ids.size or min(sizes) < 0:
        raise Refusal(f"splits {ids.size} into {sizes}")
    parts = np.split(ids, np.cumsum(sizes)[:-1])
    for index, part in enumerate(parts):
        p.give(node, [*x[:axis], part, *x[axis + 1 :]], index)

    def repair(survives: Survives) -> None:
        if not survives(ids).all():
            node.attributes.pop("num_outputs", None)
            p.set_input(node, 1, [int(survives(part).sum()) for part in parts])

    p.repairs.append(repair)


def slicing(p: Propagation, node: ir.Node) -> None:
    """Slice by constant bounds: a run of positions passes; with other steps the axis stays."""
    x = p.axes(node.inputs[0])
    if any(constant(value) is None for value in node.inputs[1:] if value is not None):
        raise Refusal("slices by bounds that are computed")
    starts, ends, axes, steps = (
        p.fixed(node.inputs[place]) if place < len(node.inputs) else None for place in (1, 2, 3, 4)
    )
    if starts is None or ends is None or len(starts) != len(ends):
        raise Refusal("lacks bounds")
    axes = [one % len(x) for one in axes] if axes else list(range(len(starts)))
    steps = steps or [1] * len(starts)
    result = list(x)
    cuts: list[tuple[int, Ids, int, int]] = []
    for place, (axis, start, end, step) in enumerate(zip(axes, starts, ends, steps, strict=True)):
        ids = x[axis]
        if ids is None:
            result[axis] = p.held(node, axis, f"{title(node)} takes a part of it")
            continue
        bounds = range(*slice(start, end, step).indices(ids.size))
        varies = p.shapes.varies(ids.size)
        if step == 1 and len(bounds) == ids.size and (not varies or end >= _TO_THE_END):
            continue  # as true of fewer
        if step != 1 or varies:
            p.hold(ids, f"{title(node)} takes a part of it")
            result[axis] = p.held(node, axis, f"{title(node)} takes a part of it")
            continue
        result[axis] = ids[bounds.start : bounds.stop]
        cuts.append((place, ids, bounds.start, max(bounds.start, bounds.stop)))
    p.give(node, result)
    p.move_origin(node)

    def repair(survives: Survives) -> None:
        first, last = list(starts), list(ends)
        for place, ids, start, end in cuts:
            if not survives(ids).all():
                first[place] = int(survives(ids[:start]).sum())
                last[place] = int(survives(ids[:end]).sum())
        if first != starts or last != ends:
            p.set_input(node, 1, first)
            p.set_input(node, 2, last)

    p.repairs.append(repair)


def gather(p: Propagation, node: ir.Node) -> None:
    """Gather: a table looked up, or fixed positions taken from a tensor."""
    x, by = p.axes(node.inputs[0]), p.axes(node.inputs[1])
    table, indices = node.inputs[0], constant(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % len(x)
    ids = x[axis]
    p.hold(by, f"{title(node)} looks up by it")
    if table is not None and p.is_weight(table):
        for other in range(len(x)):
            if other != axis:
                p.use(node, table, other, "producer")
    if indices is None or ids is None or indices.ndim > 1 or p.shapes.varies(ids.size):
        p.hold(ids, f"{title(node)} looks up in it")
        p.give(node, [*x[:axis], *by, *x[axis + 1 :]])
        return
    places = indices.astype(np.int64).reshape(-1) % ids.size
    if indices.ndim:
        p.give(node, [*x[:axis], ids[places], *x[axis + 1 :]])
    else:
        p.hold(ids[places], f"{title(node)} picks it")
        p.give(node, [*x[:axis], *x[axis + 1 :]])

    def repair(survives: Survives) -> None:
        kept = survives(ids)
        if not kept.all():
            new = np.cumsum(kept) - 1
            p.set_input(node, 1, new[places[kept[places]]].tolist())

    p.repairs.append(repair)


def pad(p: Propagation, node: ir.Node) -> None:
    """Pad: positions that are added by a constant can be cut like others."""
    x = p.axes(node.inputs[0])
    amounts = p.fixed(node.inputs[1])
    axes_input = node.inputs[3] if len(node.inputs) > 3 else None
    axes = p.fixed(axes_input) if axes_input is not None else list(range(len(x)))
    if amounts is None or axes is None or len(amounts) != 2 * len(axes):
        raise Refusal("pads by amounts that are computed")
    plain = node.attributes.get_string("mode", "constant") == "constant"
    result = list(x)
    added: list[tuple[int, Ids]] = []
    for place, axis in enumerate(axes):
        axis %= len(x)
        before, after = amounts[place], amounts[place + len(axes)]
        ids = x[axis]
        if not before and not after:
            continue
        if ids is None or not plain or before < 0 or after < 0 or p.shapes.varies(ids.size):
            p.hold(ids, f"{title(node)} pads it")
            result[axis] = p.held(node, axis, f"{title(node)} pads it")
            continue
        head, tail = p.atoms.new(before), p.atoms.new(after)
        result[axis] = np.concatenate((head, ids, tail))
        added += [(place, head), (place + len(axes), tail)]
    p.give(node, result)

    def repair(survives: Survives) -> None:
        new = list(amounts)
        for place, ids in added:
            new[place] = int(survives(ids).sum())
        if new != amounts:
            p.set_input(node, 1, new)

    p.repairs.append(repair)


def tile(p: Propagation, node: ir.Node) -> None:
    """Tile: every copy of a position goes with it."""
    x = p.axes(node.inputs[0])
    repeats = p.entries(node.inputs[1])
    if repeats is None or len(repeats) != len(x):
        raise Refusal("repeats a number of times that is computed")
    result: list[Axis] = []
    for axis, (ids, count) in enumerate(zip(x, repeats, strict=True)):
        if isinstance(count, int) and count == 1:
            result.append(ids)
        elif ids is None or not isinstance(count, int):
            p.hold(ids, f"{title(node)} repeats it")
            result.append(p.held(node, axis, f"{title(node)} repeats it"))
        else:
            result.append(np.tile(ids, count))
    p.give(node, result)


def expand(p: Propagation, node: ir.Node) -> None:
    """Expand: axes pass, new ones can be cut when their size is given; what is repeated stays."""
    x = p.axes(node.inputs[0])
    after = p.shapes.of(node.outputs[0])
    entries = p.entries(node.inputs[1])
    if after is None or entries is None:
        raise Refusal("has a shape that is computed")
    can_write = p.writable(node.inputs[1])
    reason = f"{title(node)} repeats it"
    result: list[Axis] = []
    written: list[tuple[int, Ids]] = []
    for axis in range(-len(after), 0):
        ids = x[axis] if len(x) >= -axis else None
        entry = entries[axis] if len(entries) >= -axis else 1
        given = isinstance(entry, int) and entry > 1 and can_write[axis]
        if ids is not None and ids.size == after[axis]:
            made: Axis = ids
            if isinstance(entry, np.ndarray):
                made = p.join(node, ids, entry)
            elif entry != 1 and not given:
                p.hold(ids, reason)
        else:
            p.hold(ids, reason)
            made = p.held(node, axis + len(after), reason)
            if isinstance(entry, np.ndarray):
                made = p.join(node, entry, made)
            elif given and made is not None:
                made = p.atoms.new(made.size)
        result.append(made)
        if made is not None and given:
            written.append((axis, made))
    p.give(node, result)

    def repair(survives: Survives) -> None:
        if any(not survives(ids).all() for _, ids in written):
            new = list(entries)
            for axis, ids in written:
                new[axis] = int(survives(ids).sum())
            p.set_entries(node, 1, new)

    p.repairs.append(repair)


def transpose(p: Propagation, node: ir.Node) -> None:
    """Transpose: the axes in another order."""
    x = p.axes(node.inputs[0])
    order = list(node.attributes.get_ints("perm", tuple(reversed(range(len(x))))))
    p.give(node, [x[one] for one in order])
    p.move_origin(node, order)


def squeeze(p: Propagation, node: ir.Node) -> None:
    """Squeeze of the axes that are listed."""
    x = p.axes(node.inputs[0])
    given = p.fixed(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None:
        # Without a list, an axis that a cut leaves at one would be dropped too.
        raise Refusal("drops axes that are not listed")
    gone = {one % len(x) for one in given}
    kept = [axis for axis in range(len(x)) if axis not in gone]
    for axis in gone:
        p.hold(x[axis], f"{title(node)} drops it")
    p.give(node, [x[axis] for axis in kept])
    p.move_origin(node, kept)


def unsqueeze(p: Propagation, node: ir.Node) -> None:
    """Unsqueeze: new axes of one."""
    x = p.axes(node.inputs[0])
    given = p.fixed(node.inputs[1])
    if given is None:
        raise Refusal("adds axes that are computed")
    rank = len(x) + len(given)
    new = {one % rank for one in given}
    old = iter(range(len(x)))
    order = [None if axis in new else next(old) for axis in range(rank)]
    result: list[Axis] = []
    for one in order:
        result.append(p.atoms.new(1) if one is None else x[one])
        if one is None:
            p.hold(result[-1], f"{title(node)} adds it")
    p.give(node, result)
    p.move_origin(node, order)


def depth_to_space(p: Propagation, node: ir.Node) -> None:
    """DepthToSpace: the positions that become one channel's pixels go together."""
    x = p.axes(node.inputs[0])
    ids = _static(p, node, x[1])
    block = node.attributes.get_int("blocksize", 1) ** 2
    outer = node.attributes.get_string("mode", "DCR") == "DCR"
    table = ids.reshape(block, -1) if outer else ids.reshape(-1, block).T
    for row in table[1:]:
        p.join(node, table[0], row)
    p.hold(x[2:], f"{title(node)} rearranges it")
    spatial = [p.held(node, axis, f"{title(node)} rearranges it") for axis in (2, 3)]
    p.give(node, [x[0], table[0], *spatial])


def space_to_depth(p: Propagation, node: ir.Node) -> None:
    """SpaceToDepth: a channel becomes several, which go together."""
    x = p.axes(node.inputs[0])
    ids = _static(p, node, x[1])
    block = node.attributes.get_int("blocksize", 1) ** 2
    p.hold(x[2:], f"{title(node)} rearranges it")
    spatial = [p.held(node, axis, f"{title(node)} rearranges it") for axis in (2, 3)]
    p.give(node, [x[0], np.tile(ids, block), *spatial])


def shape(p: Propagation, node: ir.Node) -> None:
    """Shape: what becomes of the sizes that it reads is followed in `channels.sizes`."""
    p.axes(node.inputs[0])
    p.give(node, [p.held(node, 0, f"{title(node)} gives sizes")])


def _static(p: Propagation, node: ir.Node, ids: Axis) -> Ids:
    if ids is None or p.shapes.varies(ids.size):
        raise Refusal("works along an axis whose size varies")
    return ids
