# SPDX-License-Identifier: Apache-2.0
"""Reshape and Flatten: axes that are split and merged, by their common factors.

Both shapes are products of the same factors, from the outermost to the innermost: (12·64)
to (12, 64) has the factors 12 and 64; (8, 7, 7) to (8·7·7) has 8, 7 and 7. What remains
after a cut must again be a product, so along each axis at most one factor is cut, and the
others stay whole: of (12, 64), attention heads, either whole heads go, or the same place
in every head. The outermost factor that is still free is tried first; when it turns out
to be locked elsewhere, the next one.

    in: axis i is factors f₁ … f_n; position x has the place (x / (f_c+1 … f_n)) mod f_c along f_c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.propagation import (
    Axis,
    Choice,
    Propagation,
    Refusal,
    Survives,
    title,
)


@dataclass(frozen=True)
class Factor:
    """A common factor, and the axis before and after in which it is."""

    size: int
    before: int
    after: int


@dataclass(frozen=True)
class Factors:
    """The factors of each axis, outermost first, as (size, place in `common` or None)."""

    common: tuple[Factor, ...]
    before: tuple[tuple[tuple[int, int | None], ...], ...]
    after: tuple[tuple[tuple[int, int | None], ...], ...]


def common_factors(before: Sequence[int], after: Sequence[int]) -> Factors:
    """Returns how two shapes of equally many elements, none of them 0, fit together.

    Where they have no common factor, (6, 4) to (4, 6), the parts have None for it.

    >>> [one.size for one in common_factors((2, 12, 64), (2, 768)).common]
    [2, 12, 64]
    >>> common_factors((6, 4), (4, 6)).common
    ()
    """
    common: list[Factor] = []
    parts: tuple[list[list[tuple[int, int | None]]], ...] = (
        [[] for _ in before],
        [[] for _ in after],
    )
    shapes = (list(before), list(after))
    at = [0, 0]
    left = [_next(shapes[0], at, 0), _next(shapes[1], at, 1)]
    while at[0] < len(before) and at[1] < len(after):
        small = min(left)
        if max(left) % small == 0:
            for side in (0, 1):
                parts[side][at[side]].append((small, len(common)))
            common.append(Factor(small, at[0], at[1]))
            left = [one // small for one in left]
        else:
            _tangle(shapes, parts, at, left)
        for side in (0, 1):
            if left[side] == 1:
                at[side] += 1
                left[side] = _next(shapes[side], at, side)
    return Factors(tuple(common), tuple(map(tuple, parts[0])), tuple(map(tuple, parts[1])))


def _next(shape: Sequence[int], at: list[int], side: int) -> int:
    """Moves to the next axis that is longer than 1 and returns its size."""
    while at[side] < len(shape) and shape[at[side]] == 1:
        at[side] += 1
    return shape[at[side]] if at[side] < len(shape) else 1


def _tangle(
    shapes: tuple[list[int], list[int]],
    parts: tuple[list[list[tuple[int, int | None]]], ...],
    at: list[int],
    left: list[int],
) -> None:
    """Takes axes on both sides until their products agree."""
    done = [left[0], left[1]]
    for side in (0, 1):
        parts[side][at[side]].append((left[side], None))
    while done[0] != done[1]:
        side = 0 if done[0] < done[1] else 1
        at[side] += 1
        size = _next(shapes[side], at, side)
        parts[side][at[side]].append((size, None))
        done[side] *= size
    left[:] = [1, 1]


def reshape(p: Propagation, node: ir.Node) -> None:
    """Reshape and Flatten."""
    x = p.axes(node.inputs[0])
    after = p.shapes.of(node.outputs[0])
    if after is None or any(size is None for size in after) or any(ids is None for ids in x):
        raise Refusal("has a shape that is not known")
    known: list[Ids] = [ids for ids in x if ids is not None]
    before, wanted = [ids.size for ids in known], [size for size in after if size is not None]
    if prod(before) != prod(wanted) or not prod(before):
        raise Refusal(f"changes {before} to {wanted}")
    factors = common_factors(before, wanted)
    carriers = _choose(p, node, factors, known)
    atoms: dict[int, Ids] = {place: p.atoms.new(factors.common[place].size) for place in carriers}
    for axis, ids in enumerate(known):
        carried = _carried(factors.before[axis], atoms)
        if carried is not None:
            p.join(node, ids, carried)
        elif ids.size > 1:
            p.hold(ids, _reason(p, node, factors.before[axis]))
    result: list[Axis] = []
    for axis, size in enumerate(wanted):
        carried = _carried(factors.after[axis], atoms)
        if carried is None:
            carried = p.atoms.new(size)
            p.hold(carried, _reason(p, node, factors.after[axis]))
        result.append(carried)
    if node.op_type == "Reshape":
        result = _by_entries(p, node, known, result)
    p.give(node, result)


def _by_entries(
    p: Propagation, node: ir.Node, before: Sequence[Ids], result: list[Axis]
) -> list[Axis]:
    """Holds axes whose new size cannot be written, and sees to it that the others are.

    One size that is computed can be left to be found from the others: -1 is written for it.
    """
    entries = p.entries(node.inputs[1])
    if entries is None or len(entries) != len(result):
        raise Refusal("has a shape that is computed")
    numbers = [entry for entry in entries if isinstance(entry, int)]
    if 0 in numbers and node.attributes.get_int("allowzero", 0) == 1:
        raise Refusal("makes an empty tensor")
    can_write = p.writable(node.inputs[1])
    found_free = -1 in numbers
    found = -1
    for place, (ids, entry) in enumerate(zip(result, entries, strict=True)):
        if ids is None or ids.size == 1:
            continue
        if isinstance(entry, int) and entry == 0 and not can_write[place]:
            p.join(node, before[place], ids)
        elif isinstance(entry, np.ndarray):
            p.join(node, ids, entry)
        elif entry is None and not p.atoms.locked(ids).all():
            if found_free or not can_write[place]:
                p.hold(ids, f"{title(node)} computes its size")
            else:
                found_free, found = True, place
        elif entry is not None and entry > 0 and not can_write[place]:
            p.hold(ids, f"{title(node)} computes its size")

    def repair(survives: Survives) -> None:
        kept = [None if ids is None else survives(ids) for ids in result]
        new = list(entries)
        for place, (one, entry) in enumerate(zip(kept, entries, strict=True)):
            if one is None:
                continue
            if isinstance(entry, int) and entry == 0:
                # "As before" holds for most, not where other factors of the axis were cut.
                if one.sum() != survives(before[place]).sum():
                    new[place] = int(one.sum())
            elif one.all():
                continue
            elif place == found:
                new[place] = -1
            elif isinstance(entry, int) and entry > 0:
                new[place] = int(one.sum())
        if any(a is not b for a, b in zip(new, entries, strict=True)):
            p.set_entries(node, 1, new)

    p.repairs.append(repair)
    return result


def _choose(p: Propagation, node: ir.Node, factors: Factors, known: list[Ids]) -> list[int]:
    """Returns the factors that may be cut, at most one in each axis, and notes choices."""
    taken: tuple[set[int], set[int]] = (set(), set())
    chosen: list[int] = []
    rivals = _rivals(factors)
    for place, factor in enumerate(factors.common):
        key = (str(node.name), place)
        if factor.before in taken[0] or factor.after in taken[1] or key in p.rejected:
            continue
        if p.shapes.varies(factor.size) or p.atoms.locked(known[factor.before]).all():
            continue
        taken[0].add(factor.before)
        taken[1].add(factor.after)
        chosen.append(place)
        if place in rivals:
            p.choices.append(Choice(key, known[factor.before]))
    # A locked axis that becomes one axis again is passed on, for the reason that locks it.
    for place, factor in enumerate(factors.common):
        if factor.before in taken[0] or factor.after in taken[1]:
            continue
        if len(factors.before[factor.before]) == len(factors.after[factor.after]) == 1:
            taken[0].add(factor.before)
            taken[1].add(factor.after)
            chosen.append(place)
    return chosen


def _rivals(factors: Factors) -> set[int]:
    """Returns the factors that share an axis with others."""
    shared: set[int] = set()
    for axes in (factors.before, factors.after):
        for parts in axes:
            if len(parts) > 1:
                shared.update(place for _, place in parts if place is not None)
    return shared


def _carried(parts: Sequence[tuple[int, int | None]], atoms: dict[int, Ids]) -> Ids | None:
    """Returns the atoms along an axis of these factors, None when none of them is cut."""
    for index, (size, place) in enumerate(parts):
        if place is not None and place in atoms:
            inner = prod(one for one, _ in parts[index + 1 :])
            positions = np.arange(prod(one for one, _ in parts))
            return atoms[place][positions // inner % size]
    return None


def _reason(p: Propagation, node: ir.Node, parts: Sequence[tuple[int, int | None]]) -> str:
    """Returns why an axis of these factors stays: what locked each of the ways to cut it."""
    keys = [(str(node.name), place) for _, place in parts if place is not None]
    tried = list(dict.fromkeys(p.rejected[key] for key in keys if key in p.rejected))
    if not tried:
        return f"{title(node)} splits or merges it"
    return f"{title(node)} can be cut in no way: {'; '.join(tried)}"
