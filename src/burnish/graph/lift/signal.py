# SPDX-License-Identifier: Apache-2.0
"""Audio: Fourier transforms, windows, mel filters. Complex numbers are a last axis of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.dtypes import torch_dtype
from burnish.graph.lift.registry import Frame, Run, Site, operator


def _complex(x: Any) -> Any:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


def _lone(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


@operator("DFT", ints=(1, 2))
def fourier(site: Site) -> Run:
    """DFT, forward or inverse, of real or complex input, one-sided or whole."""
    inverse, half = site.flag("inverse"), site.flag("onesided")
    fixed = site.integer("axis", 1 if site.version < 20 else -2)

    def run(x: Any, length: Any = None, axis: Any = None) -> Any:
        along = fixed if axis is None else _lone(axis)
        along = along % x.dim()
        count = None if length is None else _lone(length)
        if inverse and half:
            return torch.fft.irfft(_complex(x), count, along).unsqueeze(-1)
        numbers = _complex(x)
        if half:
            return torch.view_as_real(torch.fft.rfft(numbers, count, along))
        function = torch.fft.ifft if inverse else torch.fft.fft
        return torch.view_as_real(function(numbers, count, along))

    return run


@operator("STFT", ints=(1, 3))
def short_fourier(site: Site) -> Run:
    """STFT: the transform of each frame, (batch, frames, bins, 2)."""
    half = site.flag("onesided", 1)

    def run(x: Any, step: Any, window: Any = None, length: Any = None) -> Any:
        size = len(window) if length is None else _lone(length)
        numbers = _complex(x) if x.dim() == 3 else x
        frames = numbers.unfold(1, size, _lone(step))
        if window is not None:
            frames = frames * window
        if half and not frames.is_complex():
            return torch.view_as_real(torch.fft.rfft(frames))
        whole = torch.fft.fft(frames)
        return torch.view_as_real(whole[..., : size // 2 + 1] if half else whole)

    return run


_COSINES = {
    "HannWindow": (0.5, -0.5),
    "HammingWindow": (25 / 46, -21 / 46),
    "BlackmanWindow": (0.42, -0.5, 0.08),
}


@operator(*_COSINES, ints=(0,), framed=True)
def window(site: Site) -> Run:
    """HannWindow, HammingWindow and BlackmanWindow: sums of cosines."""
    factors, periodic = _COSINES[site.node.op_type], site.flag("periodic", 1)
    dtype = torch_dtype(site.integer("output_datatype", 1))

    def run(frame: Frame, size: Any) -> Any:
        count = _lone(size)
        steps = torch.arange(count, dtype=torch.float64, device=frame.device)
        angle = 2 * math.pi * steps / max(count if periodic else count - 1, 1)
        return sum(f * torch.cos(n * angle) for n, f in enumerate(factors)).to(dtype)

    return run


@operator("MelWeightMatrix", framed=True)
def mel(site: Site) -> Run:
    """MelWeightMatrix: triangles on the mel scale, (bins of the spectrum, mel bins)."""
    dtype = torch_dtype(site.integer("output_datatype", 1))

    def run(frame: Frame, bins: Any, length: Any, rate: Any, low: Any, high: Any) -> Any:
        count, size = int(bins), int(length)
        edges = [2595 * math.log10(1 + float(one) / 700) for one in (low, high)]
        step = (edges[1] - edges[0]) / (count + 2)
        places = [700 * (10 ** ((edges[0] + n * step) / 2595) - 1) for n in range(count + 2)]
        index = [int((size + 1) * place // int(rate)) for place in places]
        made = torch.zeros((size // 2 + 1, count), dtype=dtype, device=frame.device)
        for n in range(count):
            _triangle(made[:, n], index[n : n + 3])
        return made

    return run


def _triangle(column: Any, corners: Sequence[int]) -> None:
    left, middle, right = corners
    if middle == left:
        column[middle] = 1.0
    for k in range(left, middle + 1):
        if middle != left:
            column[k] = (k - left) / (middle - left)
    for k in range(middle, right):
        if right != middle:
            column[k] = (right - k) / (right - middle)


@operator("DeformConv")
def deformable(site: Site) -> Run:
    """DeformConv: a convolution whose samples are moved by offsets and weighted by a mask.

    Source: Zhu et al. 2019 (Deformable ConvNets v2), equation 1. Images only: samples are
    bilinear, zero outside.
    """
    strides, pads = site.integers("strides") or [1, 1], site.integers("pads") or [0] * 4
    gaps, groups = site.integers("dilations") or [1, 1], site.integer("group", 1)
    parts = site.integer("offset_group", 1)

    def run(x: Any, weight: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
        n, c, height, width = x.shape
        rows, columns = weight.shape[2:]
        high, wide = offset.shape[2:]
        moved = offset.reshape(n, parts, rows, columns, 2, high, wide)

        def places(size: int, kernel: int, axis: int) -> Any:
            out = torch.arange(size, device=x.device) * strides[axis] - pads[axis]
            own = torch.arange(kernel, device=x.device) * gaps[axis]
            return own, out

        own, out = places(high, rows, 0)
        y = moved[..., 0, :, :] + own[:, None, None, None] + out[:, None]
        own, out = places(wide, columns, 1)
        z = moved[..., 1, :, :] + own[:, None, None] + out
        grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], -1)
        grid = grid.reshape(n * parts, rows * columns * high, wide, 2).to(x.dtype)
        samples = F.grid_sample(
            x.reshape(n * parts, c // parts, height, width), grid, align_corners=False
        )
        samples = samples.reshape(n, parts, c // parts, rows * columns, high * wide)
        if mask is not None:
            samples = samples * mask.reshape(n, parts, 1, rows * columns, high * wide)
        samples = samples.reshape(n, groups, -1, high * wide)
        flat = weight.reshape(groups, weight.shape[0] // groups, -1)
        made = torch.einsum("ngkp,gok->ngop", samples, flat).reshape(n, -1, high, wide)
        return made if bias is None else made + bias.reshape(-1, 1, 1)

    return run
