# SPDX-License-Identifier: Apache-2.0
"""Pooling.

PyTorch's own functions where the padding is the same at both ends and not above half the
window; otherwise the input is padded first. Average and p-norm pooling with dilation are a
convolution with ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.convolution import is_even, pad_argument, same_pads
from burnish.graph.lift.registry import Run, Site, floats, operator

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_CONV = (F.conv1d, F.conv2d, F.conv3d)


class Window:
    """A pooling node's window: sizes, strides, gaps, and how its ends are padded."""

    def __init__(self, site: Site) -> None:
        self.kernel = site.integers("kernel_shape") or []
        rank = len(self.kernel)
        self.strides = site.integers("strides") or [1] * rank
        self.gaps = site.integers("dilations") or [1] * rank
        self.auto = site.text("auto_pad", "NOTSET")
        self.fixed = site.integers("pads") or [0] * (2 * rank)
        if self.auto == "VALID":
            self.fixed = [0] * (2 * rank)
        self.ceil = site.flag("ceil_mode")
        self.windows = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.gaps, strict=True)]
        self.same = self.auto in ("SAME_UPPER", "SAME_LOWER")
        half = all(2 * pad <= k for pad, k in zip(self.fixed[:rank], self.kernel, strict=True))
        self.plain = not self.same and is_even(self.fixed) and half

    def pads(self, x: Any) -> list[int]:
        """Returns the pads, with what `ceil_mode` adds at the ends."""
        rank = len(self.kernel)
        sizes = x.shape[2:]
        if self.same:
            return same_pads(sizes, self.windows, self.strides, self.auto == "SAME_UPPER")
        pads = list(self.fixed)
        if self.ceil:
            for axis in range(rank):
                room = sizes[axis] + pads[axis] + pads[axis + rank] - self.windows[axis]
                steps = -(-room // self.strides[axis])
                # The last window must begin within the input or its leading pads.
                if steps * self.strides[axis] >= sizes[axis] + pads[axis]:
                    steps -= 1
                pads[axis + rank] += steps * self.strides[axis] - room
        return pads


@operator("MaxPool")
def max_pool(site: Site) -> Run:
    """MaxPool, with the indices of the largest elements in the whole tensor if asked for."""
    window = Window(site)
    rank = len(window.kernel)
    function = _MAX[rank - 1]
    half = window.fixed[:rank]
    if window.plain and not site.wants(1):

        def plain(x: Any) -> Any:
            wide = x if floats(x) else x.to(torch.float32)
            y = function(wide, window.kernel, window.strides, half, window.gaps, window.ceil)
            return y if floats(x) else y.to(x.dtype)

        return plain
    column_major = site.flag("storage_order")

    def padded(x: Any) -> Any:
        pads = window.pads(x)
        wide = x if floats(x) else x.to(torch.float32)
        wide = F.pad(wide, pad_argument(pads), value=float("-inf"))
        y, where = function(
            wide, window.kernel, window.strides, 0, window.gaps, False, return_indices=True
        )
        return y.to(x.dtype), _indices(where, x.shape, wide.shape, pads, column_major)

    return padded


def _indices(where: Any, shape: Any, padded: Any, pads: list[int], column_major: bool) -> Any:
    """Returns positions within a padded plane as positions in the whole unpadded tensor."""
    rank = len(shape) - 2
    places: list[Any] = []
    for axis in reversed(range(rank)):
        places.insert(0, where % padded[axis + 2] - pads[axis])
        where = where // padded[axis + 2]
    flat = torch.zeros_like(where)
    order = reversed(range(rank)) if column_major else range(rank)
    for axis in order:
        flat = flat * shape[axis + 2] + places[axis]
    plane = 1
    for size in shape[2:]:
        plane *= size
    planes = torch.arange(shape[0] * shape[1], device=where.device)
    return flat + planes.reshape(shape[0], shape[1], *[1] * rank) * plane


def _sums(x: Any, window: Window) -> Any:
    """Returns the sum over every window of an input that is padded already."""
    rank = len(window.kernel)
    ones = x.new_ones((1, 1, *window.kernel))
    planes = x.reshape(-1, 1, *x.shape[2:])
    y = _CONV[rank - 1](planes, ones, None, window.strides, 0, window.gaps)
    return y.reshape(*x.shape[:2], *y.shape[2:])


@operator("AveragePool")
def average_pool(site: Site) -> Run:
    """AveragePool over what is in the window, with or without the padding."""
    window = Window(site)
    rank = len(window.kernel)
    counted = site.flag("count_include_pad")
    half = window.fixed[:rank]
    if window.plain and set(window.gaps) <= {1}:
        function = _AVERAGE[rank - 1]
        return lambda x: function(x, window.kernel, window.strides, half, window.ceil, counted)

    def padded(x: Any) -> Any:
        pads = window.pads(x)
        y = _sums(F.pad(x, pad_argument(pads)), window)
        inside = x.new_ones((1, 1, *x.shape[2:]))
        if counted:  # the padding that was asked for counts, what ceil_mode added does not
            asked = pads if window.same else window.fixed
            inside = F.pad(inside, pad_argument(asked), value=1.0)
            pads = [pad - one for pad, one in zip(pads, asked, strict=True)]
        return y / _sums(F.pad(inside, pad_argument(pads)), window)

    return padded


@operator("LpPool")
def lp_pool(site: Site) -> Run:
    """LpPool: the p-norm of every window."""
    window = Window(site)
    p = site.integer("p", 2)

    def run(x: Any) -> Any:
        y = _sums(F.pad(x.abs() ** p, pad_argument(window.pads(x))), window)
        return y ** (1.0 / p)

    return run


def _spatial(x: Any) -> list[int]:
    return list(range(2, x.dim()))


@operator("GlobalAveragePool")
def global_average(site: Site) -> Run:
    """GlobalAveragePool over all spatial axes."""
    return lambda x: x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max(site: Site) -> Run:
    """GlobalMaxPool over all spatial axes."""
    return lambda x: x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp(site: Site) -> Run:
    """GlobalLpPool: the p-norm over all spatial axes."""
    p = site.integer("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)


@operator("MaxUnpool", ints=(2,))
def max_unpool(site: Site) -> Run:
    """MaxUnpool: puts values back where MaxPool's indices say, zero elsewhere."""
    kernel = site.integers("kernel_shape") or []
    strides = site.integers("strides") or [1] * len(kernel)
    pads = site.integers("pads") or [0] * (2 * len(kernel))

    def run(x: Any, where: Any, shape: Sequence[int] | None = None) -> Any:
        rank = len(kernel)
        natural = [
            (size - 1) * strides[a] - pads[a] - pads[a + rank] + kernel[a]
            for a, size in enumerate(x.shape[2:])
        ]
        wanted = [*x.shape[:2], *natural] if shape is None else list(shape)
        if shape is not None:  # indices count within the natural shape
            where = _moved(where, [*x.shape[:2], *natural], wanted)
        flat = x.new_zeros(wanted).reshape(-1)
        return flat.scatter(0, where.reshape(-1), x.reshape(-1)).reshape(wanted)

    return run


def _moved(where: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    flat = torch.zeros_like(where)
    steps = 1
    for size, wanted in zip(reversed(before), reversed(after), strict=True):
        flat = flat + where % size * steps
        where = where // size
        steps *= wanted
    return flat


@operator("RoiAlign")
def roi_align(site: Site) -> Run:
    """RoiAlign: bilinear samples in each region, averaged or their largest.

    Source: He et al. 2017 (Mask R-CNN). As ONNX says, the largest is of the four weighted
    neighbours of every sample. Without `sampling_ratio` the number of samples follows each
    region's size, which is read from the device.
    """
    high, wide = site.integer("output_height", 1), site.integer("output_width", 1)
    ratio, scale = site.integer("sampling_ratio", 0), site.real("spatial_scale", 1.0)
    largest = site.text("mode", "avg") == "max"
    shifted = site.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    offset = 0.5 if shifted and site.version >= 16 else 0.0

    def one(x: Any, roi: Any) -> Any:
        left, top, right, bottom = (roi * scale - offset).unbind()
        height, width = bottom - top, right - left
        if not offset:
            height, width = height.clamp(min=1.0), width.clamp(min=1.0)
        rows = ratio or int(torch.ceil(height / high))
        columns = ratio or int(torch.ceil(width / wide))
        y = top + (torch.arange(high * rows, device=x.device) + 0.5) * height / (high * rows)
        z = left + (torch.arange(wide * columns, device=x.device) + 0.5) * width / (wide * columns)
        corners = [
            wy[:, None] * wz[None, :] * x[:, iy][:, :, iz]
            for iy, wy in _neighbours(y, x.shape[1])
            for iz, wz in _neighbours(z, x.shape[2])
        ]
        stacked = torch.stack(corners)
        samples = stacked.amax(0) if largest else stacked.sum(0)
        samples = samples.reshape(-1, high, rows, wide, columns)
        return samples.amax((2, 4)) if largest else samples.mean((2, 4))

    def run(x: Any, rois: Any, batch: Any) -> Any:
        images = batch.tolist()
        if not images:
            return x.new_zeros((0, x.shape[1], high, wide))
        return torch.stack([one(x[n], roi) for n, roi in zip(images, rois, strict=True)])

    return run


def _neighbours(places: Any, size: int) -> list[tuple[Any, Any]]:
    """Returns the two neighbours of each place and their weights; none far outside."""
    inside = ((places >= -1.0) & (places <= size)).to(places.dtype)
    places = places.clamp(0, size - 1)
    low = places.floor().to(torch.int64)
    share = places - low
    return [(low, (1 - share) * inside), ((low + 1).clamp(max=size - 1), share * inside)]


@operator("MaxRoiPool")
def max_roi_pool(site: Site) -> Run:
    """MaxRoiPool: the largest element in each cell of a grid laid over each region.

    Source: Girshick 2015 (Fast R-CNN).
    """
    high, wide = site.integers("pooled_shape") or [1, 1]
    scale = site.real("spatial_scale", 1.0)

    def one(x: Any, top: int, left: int, height: float, width: float) -> Any:
        cells = []
        for row in range(high):
            y0, y1 = top + int(row * height // high), top + int(-(-(row + 1) * height // high))
            for column in range(wide):
                z0 = left + int(column * width // wide)
                z1 = left + int(-(-(column + 1) * width // wide))
                cell = x[:, max(y0, 0) : max(y1, 0), max(z0, 0) : max(z1, 0)].flatten(1)
                cells.append(cell.amax(1) if cell.shape[1] else x.new_zeros(len(x)))
        return torch.stack(cells, 1).reshape(-1, high, wide)

    def run(x: Any, rois: Any) -> Any:
        made = []
        for image, left, top, right, bottom in rois.tolist():
            y0, z0 = round(top * scale), round(left * scale)
            height = max(round(bottom * scale) - y0 + 1, 1)
            width = max(round(right * scale) - z0 + 1, 1)
            made.append(one(x[int(image)], y0, z0, height, width))
        return torch.stack(made) if made else x.new_zeros((0, x.shape[1], high, wide))

    return run
