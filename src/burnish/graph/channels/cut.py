# SPDX-License-Identifier: Apache-2.0
"""Cuts channels out of a graph: weights become smaller, and so do shapes, sizes and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from burnish.core.errors import Broken, Misuse, unknown
from burnish.core.model import Model
from burnish.graph.canonical import infer_types
from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.groups import ChannelGroup, Found, find_groups


def cut(graph: Model | ir.Model, keep: Mapping[str, Sequence[int]]) -> ir.Model:
    """Returns a copy of the graph in which the named groups have only the channels to keep.

    Groups that are not named stay whole; the order of channels stays as it was. Initializers
    keep their names. Raises `Misuse` for groups or channels that do not exist, for locked
    groups, and when nothing would be left.
    """
    model = graph.edit() if isinstance(graph, Model) else graph.clone()
    found = find_groups(model)
    dead = dead_roots(found, keep)
    if not dead.size:
        return model
    p = found.propagation
    gone = np.zeros(len(p.atoms), dtype=np.bool_)
    gone[dead] = True

    def survives(ids: Ids) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = ~gone[p.atoms.find(ids)]
        return kept

    for value, axes in list(p.values.items()):
        if value.is_initializer() and axes is not None:
            _shrink(value, [None if ids is None else survives(ids) for ids in axes])
    for repair in p.repairs:
        repair(survives)
    _settle(model)
    return model


def dead_roots(found: Found, keep: Mapping[str, Sequence[int]]) -> Ids:
    """Returns the root atoms of the channels that are not kept; raises `Misuse`, see `cut`."""
    by_name = {group.name: group for group in found.groups}
    faults: list[str] = []
    dead: list[Ids] = []
    for name, channels in keep.items():
        group = by_name.get(name)
        fault = (
            str(unknown("channel group", name, by_name))
            if group is None
            else _fault(group, channels)
        )
        if fault:
            faults.append(fault)
        else:
            dead.append(np.delete(found.roots[name], np.asarray(channels, dtype=np.int64)))
    if faults:
        raise Misuse("; ".join(faults))
    return np.concatenate(dead) if dead else np.empty(0, dtype=np.int64)


def _fault(group: ChannelGroup, channels: Sequence[int]) -> str | None:
    kept = {int(one) for one in channels}
    what = f"the channel group {group.name!r}"
    if len(kept) < len(channels):
        return f"{what} is to keep a channel twice"
    if not kept:
        return f"{what} must keep at least one of its {group.size} channels"
    if min(kept) < 0 or max(kept) >= group.size:
        outside = sorted(one for one in kept if not 0 <= one < group.size)
        return f"{what} has the channels 0 to {group.size - 1}, and is to keep {outside}"
    if group.locked is not None and len(kept) < group.size:
        return f"{what} must stay whole: {group.locked}"
    return None


def _shrink(value: ir.Value, kept: Sequence[NDArray[np.bool_] | None]) -> None:
    """Takes what does not survive out of an initializer."""
    tensor = value.const_value
    if tensor is None or all(one is None or one.all() for one in kept):
        return
    array = tensor.numpy()
    for axis, one in enumerate(kept):
        if one is not None and not one.all():
            array = np.compress(one, array, axis=axis)
    array = np.ascontiguousarray(array)
    value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=value.name)
    value.shape = ir.Shape(array.shape)


def _settle(model: ir.Model) -> None:
    """Drops what is no longer read and infers all shapes anew."""
    common.RemoveUnusedNodesPass()(model)
    outputs = set(model.graph.outputs)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    try:
        infer_types(model, "the cut graph")
    except Misuse as error:
        raise Broken(f"cutting channels made an unsound graph: {error}") from error
