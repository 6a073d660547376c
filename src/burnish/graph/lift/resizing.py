# SPDX-License-Identifier: Apache-2.0
"""Resize, GridSample and AffineGrid.

Interpolation is separable: along each axis the output is a matrix times the input, whose
rows hold the weights of the input's elements (one for nearest, two for linear, four for
cubic; more with antialiasing, where the filter widens by 1 / scale).

Source: ONNX's Resize; Keys 1981 for the cubic filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Run, Site, floats, operator
from burnish.graph.lift.shape import listed

_ROUND: dict[str, Callable[[Any], Any]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


class _Axis:
    """How one axis is resized: sizes, scale, and the region of interest."""

    def __init__(self, size: int, made: int, scale: float, start: float, end: float) -> None:
        self.size, self.made, self.scale = size, made, scale
        self.start, self.end = start, end

    def places(self, how: str, device: Any) -> Any:
        """Returns where in the input each element of the output lies."""
        x = torch.arange(self.made, dtype=torch.float64, device=device)
        if how == "asymmetric":
            return x / self.scale
        if how == "align_corners":
            length = self.scale * self.size
            if abs(length - 1) < 1e-6:
                return torch.zeros_like(x)
            return x * (self.size - 1) / (length - 1)
        if how == "tf_crop_and_resize":
            if self.made <= 1:
                return x + 0.5 * (self.start + self.end) * (self.size - 1)
            step = (self.end - self.start) * (self.size - 1) / (self.made - 1)
            return self.start * (self.size - 1) + x * step
        if how == "pytorch_half_pixel" and self.made <= 1:
            return torch.zeros_like(x)
        found = (x + 0.5) / self.scale - 0.5
        if how == "half_pixel_symmetric":
            centre = self.size / 2
            found = found + centre * (1 - self.made / (self.scale * self.size))
        return found


class _Resize:
    def __init__(self, site: Site) -> None:
        self.mode = site.text("mode", "nearest")
        default = "half_pixel" if site.version >= 11 else "asymmetric"
        self.how = site.text("coordinate_transformation_mode", default)
        rounding = "round_prefer_floor" if site.version >= 11 else "floor"
        rounding = site.text("nearest_mode", rounding)
        self.rounding, self.rounds = _ROUND[rounding], rounding.startswith("round")
        self.cubic = site.real("cubic_coeff_a", -0.75)
        self.outside = not site.flag("exclude_outside")
        self.fill = site.real("extrapolation_value", 0.0)
        self.antialias = site.flag("antialias")
        self.axes = site.integers("axes")
        self.policy = site.text("keep_aspect_ratio_policy", "stretch")
        self.inputs = site.version >= 11

    def __call__(self, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
        if not self.inputs:
            roi, scales = None, roi
        axes = list(range(x.dim())) if self.axes is None else [a % x.dim() for a in self.axes]
        factors = None if scales is None else _numbers(scales)
        if not factors:
            factors, made = self._from_sizes([x.shape[a] for a in axes], listed(sizes))
        else:
            made = [math.floor(x.shape[a] * f) for a, f in zip(axes, factors, strict=True)]
        region = [0.0] * len(axes) + [1.0] * len(axes)
        if self.how == "tf_crop_and_resize" and roi is not None:
            region = _numbers(roi)
        plan = {
            axis: _Axis(x.shape[axis], made[n], factors[n], region[n], region[n + len(axes)])
            for n, axis in enumerate(axes)
        }
        return self._apply(x, plan)

    def _from_sizes(self, before: list[int], sizes: list[int]) -> tuple[list[float], list[int]]:
        factors = [wanted / size for wanted, size in zip(sizes, before, strict=True)]
        if self.policy == "stretch":
            return factors, sizes
        one = min(factors) if self.policy == "not_larger" else max(factors)
        return [one] * len(factors), [math.floor(one * size + 0.5) for size in before]

    def _apply(self, x: Any, plan: dict[int, _Axis]) -> Any:
        fast = self._fast(x, plan)
        if fast is not None:
            return fast
        wide = x if floats(x) else x.to(torch.float64)
        outside: Any = None
        for axis, one in plan.items():
            if one.made == one.size and one.scale == 1.0 and self.how != "tf_crop_and_resize":
                continue
            places = one.places(self.how, x.device)
            if self.how == "tf_crop_and_resize":
                shape = [-1 if a == axis else 1 for a in range(x.dim())]
                here = ((places < 0) | (places > one.size - 1)).reshape(shape)
                outside = here if outside is None else outside | here
            if self.mode == "nearest":
                index = self.rounding(places).clamp(0, one.size - 1).to(torch.int64)
                wide = wide.index_select(axis, index)
            else:
                weights = self._weights(places, one).to(wide.dtype)
                wide = torch.tensordot(wide, weights, ([axis], [1])).movedim(-1, axis)
        if outside is not None:
            wide = torch.where(outside, torch.full_like(wide, self.fill), wide)
        return wide if floats(x) else wide.round().to(x.dtype)

    def _fast(self, x: Any, plan: dict[int, _Axis]) -> Any:
        """Returns PyTorch's own result where it is the same, None otherwise."""
        spatial = [plan[a] for a in range(2, x.dim()) if a in plan]
        rest = all(one.made == one.size for axis, one in plan.items() if axis < 2)
        if not floats(x) or not rest or len(spatial) != x.dim() - 2 or self.antialias:
            return None
        made = [one.made for one in spatial]
        exact = all(one.made == one.size * one.scale for one in spatial)
        if not exact or x.dim() not in (3, 4, 5):
            return None
        if self.mode == "linear" and self.how in ("half_pixel", "align_corners"):
            mode = ("linear", "bilinear", "trilinear")[x.dim() - 3]
            return F.interpolate(x, made, mode=mode, align_corners=self.how == "align_corners")
        whole = all(one.made % one.size == 0 for one in spatial)
        down = self.rounding is torch.floor and self.how == "asymmetric"
        middle = self.rounds and self.how == "half_pixel"
        if self.mode == "nearest" and whole and (down or middle):
            return F.interpolate(x, made, mode="nearest")
        return None

    def _weights(self, places: Any, axis: _Axis) -> Any:
        """Returns the matrix (made, size) that interpolates along one axis."""
        narrow = min(axis.scale, 1.0) if self.antialias else 1.0
        filter_ = self._linear if self.mode == "linear" else self._cubic
        reach = math.ceil((1 if self.mode == "linear" else 2) / narrow)
        steps = torch.arange(1 - reach, reach + 1, device=places.device)
        low = torch.floor(places)
        columns = low[:, None] + steps
        weights = filter_((places[:, None] - columns).abs() * narrow)
        inside = (columns >= 0) & (columns <= axis.size - 1)
        if not self.outside or self.antialias:
            weights = weights * inside if not self.outside else weights
        if not self.outside or self.antialias:
            weights = weights / weights.sum(1, keepdim=True)
        columns = columns.clamp(0, axis.size - 1).to(torch.int64)
        empty = weights.new_zeros((axis.made, axis.size))
        return empty.scatter_add(1, columns, weights)

    @staticmethod
    def _linear(distance: Any) -> Any:
        return (1 - distance).clamp(min=0.0)

    def _cubic(self, distance: Any) -> Any:
        a, t = self.cubic, distance
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def _numbers(value: Any) -> list[float]:
    return [float(one) for one in (value.tolist() if hasattr(value, "tolist") else listed(value))]


@operator("Resize", "Upsample", ints=(1, 2, 3))
def resize(site: Site) -> Run:
    """Resize by nearest, linear or cubic interpolation, to sizes or by scales."""
    if site.node.op_type == "Upsample" and site.version < 9:
        fixed = site.reals("scales")
        upsample = _Resize(site)
        return lambda x: upsample(x, fixed)
    return _Resize(site).__call__


@operator("GridSample")
def grid_sample(site: Site) -> Run:
    """GridSample: samples where a grid says, in coordinates from −1 to 1.

    Cubic interpolation of volumes has no form in PyTorch; images have all three.
    """
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = names.get(site.text("mode", "bilinear"), site.text("mode", "bilinear"))
    padding, aligned = site.text("padding_mode", "zeros"), site.flag("align_corners")
    return lambda x, grid: F.grid_sample(
        x, grid, mode=mode, padding_mode=padding, align_corners=aligned
    )


@operator("AffineGrid", ints=(1,))
def affine_grid(site: Site) -> Run:
    """AffineGrid: the coordinates of an affine map, for GridSample."""
    aligned = site.flag("align_corners")
    return lambda theta, size: F.affine_grid(theta, listed(size), align_corners=aligned)
