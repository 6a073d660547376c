# SPDX-License-Identifier: Apache-2.0
"""Convolutions in one, two and three dimensions.

Sizes along an axis: window w = (k − 1) · dilation + 1, output ⌊(x + pads − w) / stride⌋ + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Run, Site, operator

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def same_pads(
    sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int], upper: bool
) -> list[int]:
    """Returns the pads (all begins, then all ends) with which output = ⌈input / stride⌉.

    >>> same_pads([5], [3], [2], True), same_pads([4], [3], [2], False)
    ([1, 1], [1, 0])
    """
    begins, ends = [], []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        whole = max((-(-size // stride) - 1) * stride + window - size, 0)
        small = whole // 2
        begins.append(small if upper else whole - small)
        ends.append(whole - begins[-1])
    return begins + ends


def pad_argument(pads: Sequence[int]) -> list[int]:
    """Returns ONNX pads (all begins, all ends) as PyTorch's: pairs, the last axis first.

    >>> pad_argument([1, 2, 3, 4])
    [2, 4, 1, 3]
    """
    half = len(pads) // 2
    return [pads[axis + end] for axis in reversed(range(half)) for end in (0, half)]


def is_even(pads: Sequence[int]) -> bool:
    """Returns whether both ends of every axis are padded alike, as PyTorch's own padding is."""
    half = len(pads) // 2
    return list(pads[:half]) == list(pads[half:])


@operator("Conv")
def convolution(site: Site) -> Run:
    """Conv: strided, padded on any side, dilated, grouped."""
    strides: Any = site.integers("strides") or 1
    dilations: Any = site.integers("dilations") or 1
    groups = site.integer("group", 1)
    pads = site.integers("pads") or []
    auto = site.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):

        def same(x: Any, weight: Any, bias: Any = None) -> Any:
            rank = x.dim() - 2
            steps = strides if isinstance(strides, list) else [1] * rank
            gaps = dilations if isinstance(dilations, list) else [1] * rank
            windows = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], gaps, strict=True)]
            around = same_pads(x.shape[2:], windows, steps, auto == "SAME_UPPER")
            x = F.pad(x, pad_argument(around))
            return _CONV[rank - 1](x, weight, bias, strides, 0, dilations, groups)

        return same
    if auto == "VALID" or not any(pads):
        pads = []
    if is_even(pads):
        padding: Any = pads[: len(pads) // 2] or 0

        def even(x: Any, weight: Any, bias: Any = None) -> Any:
            return _CONV[x.dim() - 3](x, weight, bias, strides, padding, dilations, groups)

        return even
    around = pad_argument(pads)

    def uneven(x: Any, weight: Any, bias: Any = None) -> Any:
        return _CONV[x.dim() - 3](F.pad(x, around), weight, bias, strides, 0, dilations, groups)

    return uneven


@operator("ConvTranspose")
def transposed(site: Site) -> Run:
    """ConvTranspose: the gradient of Conv with respect to its input.

    Even pads are PyTorch's own. Otherwise the whole output is computed, cut or extended,
    and the bias is added last, since it also stands where nothing was computed.
    """
    groups = site.integer("group", 1)
    given_strides, given_gaps = site.integers("strides"), site.integers("dilations")
    given_pads, extra = site.integers("pads"), site.integers("output_padding")
    shape = site.integers("output_shape")
    auto = site.text("auto_pad", "NOTSET")

    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        rank = x.dim() - 2
        strides = given_strides or [1] * rank
        gaps = given_gaps or [1] * rank
        more = extra or [0] * rank
        pads = given_pads or [0] * (2 * rank)
        if shape is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
            pads = _pads_for(x, weight, strides, gaps, more, shape, auto)
        function = _TRANSPOSED[rank - 1]
        small = all(m < max(s, d) for m, s, d in zip(more, strides, gaps, strict=True))
        if is_even(pads) and min(pads) >= 0 and small:
            return function(x, weight, bias, strides, pads[:rank], more, groups, gaps)
        y = function(x, weight, None, strides, 0, 0, groups, gaps)
        ends = [m - p for m, p in zip(more, pads[rank:], strict=True)]
        y = F.pad(y, pad_argument([-p for p in pads[:rank]] + ends))
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def _pads_for(
    x: Any,
    weight: Any,
    strides: Sequence[int],
    gaps: Sequence[int],
    more: Sequence[int],
    shape: Sequence[int] | None,
    auto: str,
) -> list[int]:
    """Returns the pads (negative ones extend) that give the wanted output shape."""
    begins, ends = [], []
    rank = len(strides)
    for axis in range(rank):
        size, stride = x.shape[axis + 2], strides[axis]
        wanted = size * stride if shape is None else shape[len(shape) - rank + axis]
        window = (weight.shape[axis + 2] - 1) * gaps[axis] + 1
        whole = stride * (size - 1) + more[axis] + window - wanted
        if shape is None:
            whole = max(whole, 0)
        # The odd one is cut at the end for SAME_UPPER, otherwise at the beginning.
        begins.append(whole // 2 if auto == "SAME_UPPER" else whole - whole // 2)
        ends.append(whole - begins[-1])
    return begins + ends


@operator("CausalConvWithState")
def causal(site: Site) -> Run:
    """CausalConvWithState: a depthwise 1-D convolution over the state before and the input.

    x is (batch, channels, length), the state (batch, channels, k − 1); gives the output
    and the state after.
    """
    activation = site.text("activation", "none")

    def run(x: Any, weight: Any, bias: Any = None, state: Any = None) -> Any:
        behind = weight.shape[-1] - 1
        before = x.new_zeros((*x.shape[:2], behind)) if state is None else state
        whole = torch.cat([before, x], -1)
        y = F.conv1d(whole, weight, bias, groups=x.shape[1])
        y = F.silu(y) if activation in ("silu", "swish") else y
        return y, whole[..., whole.shape[-1] - behind :]

    return run


@operator("Col2Im", ints=(1, 2))
def column_to_image(site: Site) -> Run:
    """Col2Im: sums columns of blocks back into an image of any rank."""
    given = (site.integers("dilations"), site.integers("strides"), site.integers("pads"))

    def run(x: Any, image: list[int], block: list[int]) -> Any:
        rank = len(image)
        gaps, strides = given[0] or [1] * rank, given[1] or [1] * rank
        pads = given[2] or [0] * (2 * rank)
        wide = [size + pads[a] + pads[a + rank] for a, size in enumerate(image)]
        starts = [
            torch.arange(0, wide[a] - (block[a] - 1) * gaps[a], strides[a], device=x.device)
            for a in range(rank)
        ]
        offsets = [torch.arange(block[a], device=x.device) * gaps[a] for a in range(rank)]
        flat = torch.zeros((1, 1), dtype=torch.int64, device=x.device)
        for axis in range(rank):  # index of (block position, place) in the padded image
            here = offsets[axis][:, None] + starts[axis][None, :]
            flat = flat[:, None, :, None] * wide[axis] + here[None, :, None, :]
            flat = flat.reshape(flat.shape[0] * flat.shape[1], -1)
        n, c = x.shape[0], x.shape[1] // len(flat)
        total = 1
        for size in wide:
            total *= size
        made = x.new_zeros((n, c, total)).index_add(2, flat.reshape(-1), x.reshape(n, c, -1))
        made = made.reshape(n, c, *wide)
        return F.pad(made, pad_argument([-one for one in pads]))

    return run
