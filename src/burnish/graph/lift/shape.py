# SPDX-License-Identifier: Apache-2.0
"""Operators that move, cut, join or repeat, and that make tensors of a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.core.errors import Unsupported
from burnish.graph.lift.convolution import pad_argument
from burnish.graph.lift.dtypes import as_tensor, torch_dtype
from burnish.graph.lift.registry import Frame, Run, Site, operator


def listed(value: Any) -> list[int]:
    """Returns integers as a list: a lone one is a list of one."""
    return [value] if isinstance(value, int) else list(value)


@operator("Reshape", ints=(1,))
def reshape(site: Site) -> Run:
    """Reshape: 0 keeps a size (unless `allowzero`), −1 is what remains."""
    zero = site.flag("allowzero")
    fixed = site.integers("shape")

    def run(x: Any, shape: Any = None) -> Any:
        shape = fixed if shape is None else listed(shape)
        if zero:
            return x.reshape(shape)
        sizes = [x.shape[a] if s == 0 else s for a, s in enumerate(shape)]
        return x.reshape(sizes)

    return run


@operator("Flatten")
def flatten(site: Site) -> Run:
    """Flatten to a matrix: the axes before `axis`, and the rest."""
    axis = site.integer("axis", 1)

    def run(x: Any) -> Any:
        start = axis + x.dim() if axis < 0 else axis
        rows = math.prod(x.shape[:start])
        return x.reshape(rows, math.prod(x.shape[start:]))

    return run


@operator("Transpose")
def transpose(site: Site) -> Run:
    """Transpose; by default reverses the axes."""
    order = site.integers("perm")
    if order is None:
        return lambda x: x.permute(*reversed(range(x.dim())))
    return lambda x: x.permute(order)


@operator("Squeeze", ints=(1,))
def squeeze(site: Site) -> Run:
    """Squeeze: drops the axes given, or all of size one."""
    fixed = site.integers("axes")

    def run(x: Any, axes: Any = None) -> Any:
        axes = fixed if axes is None else axes
        return x.squeeze() if axes is None else x.squeeze(tuple(listed(axes)))

    return run


@operator("Unsqueeze", ints=(1,))
def unsqueeze(site: Site) -> Run:
    """Unsqueeze: adds axes of size one, at places in the result."""
    fixed = site.integers("axes")

    def run(x: Any, axes: Any = None) -> Any:
        axes = listed(fixed if axes is None else axes)
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Concat")
def concat(site: Site) -> Run:
    """Concat along an axis."""
    axis = site.integer("axis", 1)
    return lambda *tensors: torch.cat(tensors, axis)


@operator("Split", ints=(1,))
def split(site: Site) -> Run:
    """Split into the sizes given, or into equal parts of which the last may be smaller."""
    axis, fixed = site.integer("axis", 0), site.integers("split")
    count = site.integer("num_outputs", len(site.node.outputs))

    def run(x: Any, sizes: Any = None) -> Any:
        sizes = fixed if sizes is None else sizes
        if sizes is None:
            size, each = x.shape[axis], -(-x.shape[axis] // count)
            sizes = [max(min(each, size - each * part), 0) for part in range(count)]
        return tuple(x.split(sizes, axis))

    return run


@operator("Slice", ints=(1, 2, 3, 4))
def slices(site: Site) -> Run:
    """Slice: any step, either direction; limits beyond the ends are moved to them."""
    if site.version < 10:
        first, last = site.integers("starts") or [], site.integers("ends") or []
        along = site.integers("axes")
        return lambda x: _slice(x, first, last, along, None)
    return _slice


_WHOLE = 2**31 - 1  # an end from here on means all there is


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    starts, ends = listed(starts), listed(ends)
    axes = range(len(starts)) if axes is None else listed(axes)
    steps = [1] * len(starts) if steps is None else listed(steps)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 1 and start == 0 and end >= _WHOLE:
            continue
        if step > 0:
            x = x[(*[slice(None)] * (axis % x.dim()), slice(start, end, step))]
        else:  # PyTorch has no steps backwards
            size = x.shape[axis]
            last = None if end < -size else end
            places = range(size)[slice(max(start, -size), last, step)]
            index = torch.arange(len(places), device=x.device) * step + places.start
            x = x.index_select(axis, index)
    return x


@operator("Expand", ints=(1,))
def expand(site: Site) -> Run:
    """Expand: broadcasts to a shape, in which 1 keeps what is there."""

    def run(x: Any, shape: Any) -> Any:
        return x.expand(broadcast(x.shape, listed(shape)))

    return run


def broadcast(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Returns the shape of two shapes broadcast together.

    >>> broadcast([3, 1], [2, 1, 6])
    [2, 3, 6]
    """
    rank = max(len(a), len(b))
    left, right = [1] * (rank - len(a)) + list(a), [1] * (rank - len(b)) + list(b)
    return [y if x == 1 else x for x, y in zip(left, right, strict=True)]


@operator("Tile", ints=(1,))
def tile(site: Site) -> Run:
    """Tile: repeats along every axis."""
    return lambda x, repeats: x.repeat(listed(repeats))


@operator("Pad", ints=(1, 3))
def pad(site: Site) -> Run:
    """Pad with a constant, the edge, a reflection, or wrapped around; negative pads cut.

    PyTorch pads only the last axes other than by a constant: elements are gathered instead.
    """
    mode = site.text("mode", "constant")
    fixed, number = site.integers("pads") or [], site.real("value", 0.0)
    known = site.number(2)

    def run(x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
        around = fixed if pads is None else listed(pads)
        if axes is not None:
            around = _spread(around, listed(axes), x.dim())
        if not any(around):
            return x
        if mode == "constant":
            fill = number if value is None else value.item() if known is None else known
            if x.dtype == torch.bool:
                return F.pad(x.to(torch.uint8), pad_argument(around), value=int(fill)).bool()
            return F.pad(x, pad_argument(around), value=fill)
        for axis in range(x.dim()):
            before, after = around[axis], around[axis + x.dim()]
            if before or after:
                x = x.index_select(axis, _places(x.shape[axis], before, after, mode, x.device))
        return x

    return run


def _spread(pads: Sequence[int], axes: Sequence[int], rank: int) -> list[int]:
    whole = [0] * (2 * rank)
    for number, axis in enumerate(axes):
        whole[axis % rank] = pads[number]
        whole[axis % rank + rank] = pads[number + len(axes)]
    return whole


def _places(size: int, before: int, after: int, mode: str, device: Any) -> Any:
    places = torch.arange(-before, size + after, device=device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(2 * (size - 1), 1)
    places = places.abs() % period
    return torch.where(places >= size, period - places, places)


@operator("Shape")
def shape_of(site: Site) -> Run:
    """Shape: the sizes of a tensor, or some of them, as Python integers (`host`)."""
    start, end = site.integer("start", 0), site.integer("end", _WHOLE)
    if start == 0 and end == _WHOLE:
        return lambda x: list(x.shape)
    return lambda x: list(x.shape)[start:end]


@operator("Size")
def size_of(site: Site) -> Run:
    """Size: the number of elements, as a Python integer (`host`)."""
    return lambda x: math.prod(x.shape)


@operator("Constant")
def constant(site: Site) -> Run:
    """Constant: held by the module like an initializer (`program`), so never run."""
    raise Unsupported("it holds text or a sparse tensor")


@operator("ConstantOfShape", ints=(0,), framed=True)
def constant_of_shape(site: Site) -> Run:
    """ConstantOfShape: one value everywhere."""
    tensor = site.tensor("value")
    value = torch.zeros(1) if tensor is None else as_tensor(tensor)
    number, dtype = value.reshape(()).item(), value.dtype
    return lambda frame, shape: torch.full(listed(shape), number, dtype=dtype, device=frame.device)


@operator("Range", hosted=(0, 1, 2), framed=True)
def arange(site: Site) -> Run:
    """Range, limit excluded; its length is read from the device if the limits are there."""

    def run(frame: Frame, start: Any, limit: Any, delta: Any) -> Any:
        dtypes = [one.dtype for one in (start, limit, delta) if isinstance(one, torch.Tensor)]
        first, last, step = (
            one.item() if isinstance(one, torch.Tensor) else one for one in (start, limit, delta)
        )
        kind = dtypes[0] if dtypes else torch.int64
        if not kind.is_floating_point:
            return torch.arange(first, last, step, dtype=kind, device=frame.device)
        # The number of elements is as the limits say in double precision; each is rounded once.
        count = max(math.ceil((last - first) / step), 0)
        places = torch.arange(count, dtype=torch.float64, device=frame.device)
        return (places * step + first).to(kind)

    return run


@operator("EyeLike")
def eye_like(site: Site) -> Run:
    """EyeLike: ones on a diagonal."""
    offset = site.integer("k", 0)
    dtype = torch_dtype(site.integer("dtype", 1)) if "dtype" in site.node.attributes else None

    def run(x: Any) -> Any:
        ones = torch.ones(x.shape, dtype=torch.bool, device=x.device)
        return (ones.triu(offset) & ones.tril(offset)).to(dtype or x.dtype)

    return run


@operator("Trilu", ints=(1,))
def trilu(site: Site) -> Run:
    """Trilu: the upper or lower triangle, zero elsewhere."""
    upper = site.flag("upper", 1)

    def run(x: Any, offset: Any = 0) -> Any:
        k = offset[0] if isinstance(offset, list) else offset
        return x.triu(k or 0) if upper else x.tril(k or 0)

    return run


@operator("DepthToSpace")
def depth_to_space(site: Site) -> Run:
    """DepthToSpace: channels become blocks; depth first (DCR) or column first (CRD)."""
    block, crd = site.integer("blocksize", 1), site.text("mode", "DCR") == "CRD"

    def run(x: Any) -> Any:
        if crd:
            return F.pixel_shuffle(x, block)
        n, c, height, width = x.shape
        x = x.reshape(n, block, block, c // block**2, height, width)
        return x.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, height * block, width * block)

    return run


@operator("SpaceToDepth")
def space_to_depth(site: Site) -> Run:
    """SpaceToDepth: blocks become channels; depth first (DCR) or column first (CRD)."""
    block, crd = site.integer("blocksize", 1), site.text("mode", "DCR") == "CRD"

    def run(x: Any) -> Any:
        if crd:
            return F.pixel_unshuffle(x, block)
        n, c, height, width = x.shape
        x = x.reshape(n, c, height // block, block, width // block, block)
        return x.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, height // block, width // block)

    return run


@operator("CenterCropPad", ints=(1,))
def center_crop_pad(site: Site) -> Run:
    """CenterCropPad: cuts or pads with zeros around the centre to the sizes given."""
    fixed = site.integers("axes")

    def run(x: Any, shape: Any) -> Any:
        axes = range(x.dim()) if fixed is None else fixed
        for axis, wanted in zip(axes, listed(shape), strict=True):
            size = x.shape[axis]
            if wanted < size:
                x = x.narrow(axis, (size - wanted) // 2, wanted)
            elif wanted > size:
                before = (wanted - size) // 2
                around = _spread([before, wanted - size - before], [axis], x.dim())
                x = F.pad(x, pad_argument(around))
        return x

    return run


@operator("ReverseSequence", ints=())
def reverse_sequence(site: Site) -> Run:
    """ReverseSequence: reverses the first elements of each sample, as many as it says."""
    batch, time = site.integer("batch_axis", 1), site.integer("time_axis", 0)

    def run(x: Any, lengths: Any) -> Any:
        moved = x.movedim((batch, time), (0, 1))
        steps = torch.arange(moved.shape[1], device=x.device)
        reversed_ = lengths[:, None] - 1 - steps
        index = torch.where(reversed_ >= 0, reversed_, steps)
        rows = torch.arange(len(moved), device=x.device)[:, None]
        return moved[rows, index].movedim((0, 1), (batch, time))

    return run
