# SPDX-License-Identifier: Apache-2.0
"""Groups of channels that are kept or cut together, found by following every operator.

A channel is a set of positions, along axes of many weights, that can only go at once: a
filter, its bias, its BatchNormalization entries, the columns that read it, and the same in
every layer that a residual sum ties to it. Channels that lie along the same axes form a
group. Cutting channels of a group that is not locked leaves the model's outputs as if the
weights that read these channels were zero (`zero`), for every input.

Source: Fang et al. 2023 (DepGraph, arXiv:2301.12900), section 3, for the idea that
dependencies between layers define the groups. Theirs couple whole axes; here single
positions, so that the parts of a concatenation or of a padded shortcut are groups of their
own, and what is not understood locks only what reaches it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.model import Model
from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.follow import follow
from burnish.graph.channels.propagation import Propagation, Role, Use


@dataclass(frozen=True)
class Slice:
    """Where the channels of a group lie along one axis of an initializer.

    `positions[c]` lists the places along `axis` that belong to channel c (a flattened
    feature map has several for each). `role` says what the node does with them: a
    "producer" makes the channel from others, a "consumer" multiplies it and sums over it,
    "elementwise" numbers go with it (biases, BatchNormalization, depthwise filters).
    """

    initializer: str
    axis: int
    positions: tuple[tuple[int, ...], ...]
    role: Role
    node: str
    operator: str


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0 … `size` − 1 that can each be kept or cut; none when `locked` says why."""

    name: str
    size: int
    slices: tuple[Slice, ...]
    locked: str | None
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The groups of a graph, the root atom of each channel, and the atoms themselves."""

    groups: tuple[ChannelGroup, ...]
    roots: dict[str, Ids]
    propagation: Propagation


def channel_groups(model: Model | ir.Model) -> tuple[ChannelGroup, ...]:
    """Returns all groups in the order of the nodes that make them, locked ones included.

    A group is named after the first node that makes its channels; the second group that a
    node makes gets "#2". What no layer makes, the model's input, is called "<reader>.input".
    Takes the form that `Model` has: operator set 21, nodes sorted and named.
    """
    return find_groups(model.edit() if isinstance(model, Model) else model.clone()).groups


def describe(groups: Iterable[ChannelGroup]) -> str:
    """Returns a text that says what is cut together, and what stays and why."""
    lines: list[str] = []
    for group in groups:
        count = f"{group.size} channel{'s' if group.size != 1 else ''}"
        if group.locked is not None:
            lines.append(f"{group.name}: {count} stay: {group.locked}")
            continue
        lines.append(f"{group.name}: {count}, each cut together in")
        for one in group.slices:
            width = len(one.positions[0])
            each = f" ({width} each)" if width != 1 else ""
            lines.append(
                f"    {one.initializer} axis {one.axis}{each}: {one.role} of "
                f"{one.operator} {one.node}"
            )
    return "\n".join(lines)


def find_groups(graph: ir.Model) -> Found:
    """Returns the groups of a graph with the atoms behind them, which refer to its nodes."""
    p = follow(graph)
    _lock_unmade(p)
    signatures = _signatures(p)
    roles = {(use.initializer, use.axis) for use in p.uses}
    touched = [ids for use in p.uses if (ids := _ids(p, use)) is not None]
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    if touched:
        roots = np.unique(p.atoms.find(np.concatenate(touched)))
        locks = p.atoms.lock_numbers(roots).tolist()
        for root, lock in zip(roots.tolist(), locks, strict=True):
            members[int(signatures[root]), lock].append(root)
    places = {node: place for place, node in enumerate(graph.graph)}
    uses = [*p.uses, *_elementwise(p, roles)]
    uses.sort(key=lambda use: places.get(use.node, len(places)))
    group_of = np.full(len(p.atoms), -1, dtype=np.int64)
    channel_of = np.zeros(len(p.atoms), dtype=np.int64)
    for number, roots_of in enumerate(members.values()):
        group_of[roots_of] = number
        channel_of[roots_of] = np.arange(len(roots_of))
    slices: list[list[Slice]] = [[] for _ in members]
    for use in dict.fromkeys(uses):
        for number, one in _slices(p, use, group_of, channel_of, list(members.values())):
            slices[number].append(one)
    return _named(p, list(members.values()), slices)


def _named(p: Propagation, members: list[list[int]], slices: list[list[Slice]]) -> Found:
    order = {str(node.name): place for place, node in enumerate(p.graph)}
    found: list[tuple[int, int, list[int], list[Slice]]] = []
    for roots, parts in zip(members, slices, strict=True):
        makers = [order[one.node] for one in parts if one.role == "producer"]
        readers = [order.get(one.node, len(order)) for one in parts]  # some inside an If
        found.append((min(makers or readers), roots[0], roots, parts))
    groups: list[ChannelGroup] = []
    by_name: dict[str, Ids] = {}
    counts: Counter[str] = Counter()
    for _, _, roots, parts in sorted(found, key=lambda one: one[:2]):
        producers = tuple(dict.fromkeys(one.node for one in parts if one.role == "producer"))
        consumers = tuple(dict.fromkeys(one.node for one in parts if one.role == "consumer"))
        base = producers[0] if producers else f"{consumers[0]}.input"
        counts[base] += 1
        name = base if counts[base] == 1 else f"{base}#{counts[base]}"
        by_name[name] = np.asarray(roots, dtype=np.int64)
        groups.append(
            ChannelGroup(
                name=name,
                size=len(roots),
                slices=tuple(parts),
                locked=p.atoms.reasons(by_name[name][:1])[0],
                producers=producers,
                consumers=consumers,
            )
        )
    return Found(tuple(groups), by_name, p)


def _ids(p: Propagation, use: Use) -> Ids | None:
    axes = p.values[use.initializer]
    return None if axes is None else axes[use.axis]


def _lock_unmade(p: Propagation) -> None:
    """Locks atoms that no layer makes: free constants, padding that nothing is added to."""
    made = np.zeros(len(p.atoms), dtype=np.bool_)
    for use in p.uses:
        ids = _ids(p, use)
        if use.role == "producer" and ids is not None:
            made[p.atoms.find(ids)] = True
    everything = np.arange(len(p.atoms), dtype=np.int64)
    p.atoms.lock(everything[~made[p.atoms.find(everything)]], "no layer makes it")


def _signatures(p: Propagation) -> NDArray[np.uint64]:
    """Returns for each root a number that is equal for atoms along the same axes.

    So a group that keeps a channel leaves no axis empty.
    """
    random = np.random.default_rng(0)
    signatures = np.zeros(len(p.atoms), dtype=np.uint64)
    for axes in p.values.values():
        for ids in axes or ():
            if ids is not None and ids.size:
                number = random.integers(0, 2**64, dtype=np.uint64)
                signatures[np.unique(p.atoms.find(ids))] += number
    return signatures


def _elementwise(p: Propagation, roles: set[tuple[ir.Value, int]]) -> list[Use]:
    """Returns the uses of initializers that no rule declared: numbers that go along."""
    uses: list[Use] = []
    for value, axes in p.values.items():
        if not value.is_initializer() or axes is None:
            continue
        for axis in range(len(axes)):
            if (value, axis) not in roles:
                uses += [Use(value, axis, "elementwise", one.node) for one in value.uses()]
    return uses


def _slices(
    p: Propagation,
    use: Use,
    group_of: Ids,
    channel_of: Ids,
    members: list[list[int]],
) -> Iterable[tuple[int, Slice]]:
    ids = _ids(p, use)
    if ids is None or not ids.size:
        return
    roots = p.atoms.find(ids)
    numbers = group_of[roots]
    for number in np.unique(numbers[numbers >= 0]).tolist():
        positions: list[list[int]] = [[] for _ in members[number]]
        for place in np.flatnonzero(numbers == number).tolist():
            positions[channel_of[roots[place]]].append(place)
        yield (
            number,
            Slice(
                initializer=str(use.initializer.name),
                axis=use.axis,
                positions=tuple(map(tuple, positions)),
                role=use.role,
                node=str(use.node.name),
                operator=use.node.op_type,
            ),
        )
