# SPDX-License-Identifier: Apache-2.0
"""Gathering, scattering, and what depends on the values themselves.

Negative indices count from the end. NonZero, Compress, Unique and NonMaxSuppression give a
number of elements that only the values tell: on a GPU they wait for it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Run, Site, floats, operator


def positive(index: Any, size: int) -> Any:
    """Returns indices counted from the start."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


@operator("Gather")
def gather(site: Site) -> Run:
    """Gather: slices along an axis; a table lookup is an embedding."""
    axis = site.integer("axis", 0)
    known = site.constant(1)
    if known is not None and known.ndim == 0:
        place = int(known)
        return lambda x, _: x.select(axis, place)
    from_start = known is not None and bool((known >= 0).all())

    def run(x: Any, index: Any) -> Any:
        index = index.to(x.device)  # a lone integer of shape arithmetic is on the CPU
        index = index if from_start else positive(index, x.shape[axis])
        if axis == 0 and x.dim() == 2 and index.dim() and floats(x):
            return F.embedding(index, x)
        shape = [*x.shape[: axis % x.dim()], *index.shape, *x.shape[axis % x.dim() + 1 :]]
        return x.index_select(axis, index.reshape(-1)).reshape(shape)

    return run


@operator("GatherElements")
def gather_elements(site: Site) -> Run:
    """GatherElements: an element for every index."""
    axis = site.integer("axis", 0)
    return lambda x, index: x.gather(axis, positive(index, x.shape[axis]))


def _split_last(x: Any, index: Any, batch: int) -> tuple[Any, ...]:
    """Returns an index tuple from the last axis of `index`, after `batch` shared axes."""
    parts = [positive(one, x.shape[batch + axis]) for axis, one in enumerate(index.unbind(-1))]
    rank = index.dim() - 1
    grids = [
        torch.arange(x.shape[axis], device=x.device).reshape(
            [-1 if one == axis else 1 for one in range(rank)]
        )
        for axis in range(batch)
    ]
    return (*grids, *parts)


@operator("GatherND")
def gather_nd(site: Site) -> Run:
    """GatherND: slices at coordinates, within each of the leading `batch_dims`."""
    batch = site.integer("batch_dims", 0)
    return lambda x, index: x[_split_last(x, index, batch)]


_REDUCE = {"mul": "prod", "min": "amin", "max": "amax"}


@operator("ScatterElements", "Scatter")
def scatter_elements(site: Site) -> Run:
    """ScatterElements: writes, adds, multiplies or keeps the extreme at every index."""
    axis, how = site.integer("axis", 0), site.text("reduction", "none")

    def run(x: Any, index: Any, updates: Any) -> Any:
        index, updates = positive(index, x.shape[axis]), updates.to(x.dtype)
        if how == "none":
            return x.scatter(axis, index, updates)
        if how == "add":
            return x.scatter_add(axis, index, updates)
        return x.scatter_reduce(axis, index, updates, _REDUCE[how])

    return run


@operator("ScatterND")
def scatter_nd(site: Site) -> Run:
    """ScatterND: the same with slices at coordinates."""
    how = site.text("reduction", "none")

    def run(x: Any, index: Any, updates: Any) -> Any:
        where = _split_last(x, index, 0)
        updates = updates.to(x.dtype)
        if how in ("none", "add"):
            return x.index_put(where, updates, accumulate=how == "add")
        flat = torch.zeros_like(where[0])
        for place, size in zip(where, x.shape, strict=False):
            flat = flat * size + place
        width = x.shape[len(where) :].numel()
        offsets = flat.reshape(-1, 1) * width + torch.arange(width, device=x.device)
        made = x.reshape(-1).scatter_reduce(
            0, offsets.reshape(-1), updates.reshape(-1), _REDUCE[how]
        )
        return made.reshape(x.shape)

    return run


@operator("TensorScatter")
def tensor_scatter(site: Site) -> Run:
    """TensorScatter: writes a block into each sample of a cache, where that sample says."""
    axis, circular = site.integer("axis", -2), site.text("mode", "linear") == "circular"

    def run(past: Any, update: Any, starts: Any = None) -> Any:
        at = axis % past.dim()
        steps = torch.arange(update.shape[at], device=past.device)
        begin = steps.new_zeros(len(past)) if starts is None else starts
        places = begin[:, None] + steps
        places = places % past.shape[at] if circular else places
        shape = [len(past)] + [len(steps) if one == at else 1 for one in range(1, past.dim())]
        return past.scatter(at, places.reshape(shape).expand(update.shape), update)

    return run


@operator("OneHot", ints=(1,))
def one_hot(site: Site) -> Run:
    """OneHot: one of two values along a new axis; an index out of range gives none."""
    axis = site.integer("axis", -1)

    def run(index: Any, depth: Any, values: Any) -> Any:
        size = int(depth[0] if isinstance(depth, list) else depth)
        index = positive(index, size).unsqueeze(axis)
        rank = index.dim()
        steps = torch.arange(size, device=index.device)
        steps = steps.reshape([-1 if one == axis % rank else 1 for one in range(rank)])
        return torch.where(index == steps, values[1], values[0])

    return run


@operator("TopK", ints=(1,))
def top_k(site: Site) -> Run:
    """TopK: the first of equal ones first, as ONNX says and a sort that is stable gives."""
    axis, largest = site.integer("axis", -1), site.flag("largest", 1)
    fixed = site.integer("k", 0)

    def run(x: Any, k: Any = None) -> Any:
        count = fixed if k is None else int(k[0] if isinstance(k, list) else k)
        wide = x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
        values, index = torch.sort(wide, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count).to(x.dtype), index.narrow(axis, 0, count)

    return run


@operator("NonZero")
def non_zero(site: Site) -> Run:
    """NonZero: coordinates of what is not zero, one row for each axis."""
    return lambda x: (x.reshape(1) if x.dim() == 0 else x).nonzero().t()[: max(x.dim(), 1)]


@operator("Compress")
def compress(site: Site) -> Run:
    """Compress: slices along an axis, or elements, where a condition holds."""
    axis = site.integer("axis", 0) if "axis" in site.node.attributes else None

    def run(x: Any, condition: Any) -> Any:
        flat = x.reshape(-1) if axis is None else x
        return flat.index_select(axis or 0, condition.nonzero().reshape(-1))

    return run


@operator("Unique")
def unique(site: Site) -> Run:
    """Unique: elements or slices, where each is first, where each went, and how many."""
    axis = site.integer("axis", 0) if "axis" in site.node.attributes else None
    ordered = site.flag("sorted", 1)

    def run(x: Any) -> Any:
        flat = x.reshape(-1) if axis is None else x
        along = 0 if axis is None else axis
        values, inverse, counts = torch.unique(
            flat, sorted=True, return_inverse=True, return_counts=True, dim=along
        )
        places = torch.arange(len(inverse), device=x.device)
        first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, places, "amin")
        if not ordered:
            order = first.argsort()
            values, counts, first = values.index_select(along, order), counts[order], first[order]
            inverse = order.argsort()[inverse]
        return values, first, inverse, counts

    return run


@operator("NonMaxSuppression", ints=(2,))
def non_max_suppression(site: Site) -> Run:
    """NonMaxSuppression: per image and class the best boxes that do not overlap a better one."""
    centred = site.flag("center_point_box")

    def corners(boxes: Any) -> Any:
        if centred:
            middle, half = boxes[:, :2], boxes[:, 2:] / 2
            return torch.cat([middle - half, middle + half], 1)
        low = torch.minimum(boxes[:, :2], boxes[:, 2:])
        return torch.cat([low, torch.maximum(boxes[:, :2], boxes[:, 2:])], 1)

    def run(
        boxes: Any, scores: Any, most: Any = None, overlap: Any = None, least: Any = None
    ) -> Any:
        limit = 0 if most is None else int(most[0] if isinstance(most, list) else most)
        allowed = 0.0 if overlap is None else float(overlap)
        lowest = float("-inf") if least is None else float(least)
        rows: list[list[int]] = []
        for image in range(scores.shape[0]):
            box = corners(boxes[image].float())
            for label in range(scores.shape[1]):
                found = _suppress(box, scores[image, label], limit, allowed, lowest)
                rows += [[image, label, place] for place in found]
        return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)

    return run


def _suppress(box: Any, scores: Any, limit: int, allowed: float, lowest: float) -> list[int]:
    area = (box[:, 2:] - box[:, :2]).prod(1)
    open_ = scores > lowest
    kept: list[int] = []
    for place in scores.argsort(descending=True, stable=True).tolist():
        if len(kept) >= limit:
            break
        if not open_[place]:
            continue
        kept.append(place)
        low = torch.maximum(box[:, :2], box[place, :2])
        high = torch.minimum(box[:, 2:], box[place, 2:])
        both = (high - low).clamp(min=0).prod(1)
        open_ = open_ & ~(both / (area + area[place] - both) > allowed)
    return kept
