# SPDX-License-Identifier: Apache-2.0
"""Quantization arithmetic, as ONNX QuantizeLinear and DequantizeLinear define it.

    q = clip(round(x / s) + z, q_min, q_max)        x̂ = s (q − z)

with rounding half to even. A grid is the scale s, zero point z and integer type. A value
inside the grid's range is at most s / 2 away from what it becomes.

Source: ONNX operator specification, QuantizeLinear-21; Jacob et al. 2018
(arXiv:1712.05877), equation 1; Krishnamoorthi 2018 (arXiv:1806.08342) for symmetric
per-channel weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Activation = Literal["u8", "s8"]

_SMALLEST_SCALE = 1e-10  # well above float32's subnormals, so that 1 / s stays finite


@dataclass(frozen=True)
class Grid:
    """A quantization grid; `scale` and `zero_point` are scalars, or one for each channel."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.integer]
    low: int
    high: int

    def quantize(self, x: NDArray[np.floating], axis: int | None = None) -> NDArray[np.integer]:
        """Returns the integers of x; `axis` is the channel axis of a per-channel grid."""
        scale, zero = self._spread(x.ndim, axis)
        with np.errstate(over="ignore"):  # what overflows is clipped
            q = np.rint(x / scale) + zero
        integers: NDArray[np.integer] = np.clip(q, self.low, self.high).astype(
            self.zero_point.dtype
        )
        return integers

    def dequantize(self, q: NDArray[np.integer], axis: int | None = None) -> NDArray[np.float32]:
        """Returns the float32 values of the integers."""
        scale, zero = self._spread(q.ndim, axis)
        values: NDArray[np.float32] = (q.astype(np.int32) - zero).astype(np.float32) * scale
        return values

    def _spread(self, ndim: int, axis: int | None) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        shape = [1] * ndim
        if axis is not None:
            shape[axis] = -1
            return self.scale.reshape(shape), self.zero_point.astype(np.int32).reshape(shape)
        return self.scale, self.zero_point.astype(np.int32)


def activation_grid(low: float, high: float, kind: Activation) -> Grid:
    """Returns the scalar grid that covers low..high and represents 0 exactly.

    "u8" is asymmetric over 0..255; "s8" is symmetric, zero point 0, over −128..127. An empty
    range, that of a tensor which is always 0, gets the scale 1.

    >>> grid = activation_grid(0.0, 2.55, "u8")
    >>> round(float(grid.scale), 6), int(grid.zero_point)
    (0.01, 0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = 0.0, 127.0 if kind == "s8" else 255.0
    if kind == "s8":
        scale = max(max(-low, high) / 127, _SMALLEST_SCALE)
        return Grid(np.asarray(scale, np.float32), np.asarray(0, np.int8), -128, 127)
    scale = max((high - low) / 255, _SMALLEST_SCALE)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    return Grid(np.asarray(scale, np.float32), np.asarray(zero, np.uint8), 0, 255)


def weight_grid(
    weight: NDArray[np.floating],
    axis: int | None,
    bits: int = 8,
    clip: NDArray[np.floating] | None = None,
    smallest: NDArray[np.floating] | float = 0.0,
) -> Grid:
    """Returns the symmetric s8 grid of a weight: zero point 0, integers ±(2^(bits−1) − 1).

    `axis` is the channel axis (None: one scale for the whole tensor). With 7 bits the sum
    of two u8 × s8 products fits int16, which x86 without VNNI needs (saturation in
    `vpmaddubsw`). `clip` in 0..1 scales the range of each channel down; `smallest` bounds
    the scales from below.
    """
    limit = 2 ** (bits - 1) - 1
    if axis is None:
        largest = np.abs(weight).max(initial=0.0)
    else:
        rest = tuple(other for other in range(weight.ndim) if other != axis)
        largest = np.abs(weight).max(axis=rest, initial=0.0)
    if clip is not None:
        largest = largest * clip
    least = np.maximum(smallest, _SMALLEST_SCALE)
    scale = np.maximum(np.asarray(largest, np.float32) / limit, least).astype(np.float32)
    return Grid(scale, np.zeros(scale.shape, np.int8), -limit, limit)
