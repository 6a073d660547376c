# SPDX-License-Identifier: Apache-2.0
"""Normalization."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Frame, Run, Site, operator


def _per_channel(x: Any, *vectors: Any) -> tuple[Any, ...]:
    shape = [1, -1, *[1] * (x.dim() - 2)]
    return tuple(vector.reshape(shape) for vector in vectors)


@operator("BatchNormalization", framed=True)
def batch_norm(site: Site) -> Run:
    """BatchNormalization.

    In training mode it normalizes with the batch's statistics and moves the running ones,
    which are buffers of the module, in place as PyTorch does: by the module's momentum,
    with the unbiased variance. A node that the graph itself puts in training mode follows
    ONNX: momentum is the share of the old, the variance is biased.
    """
    epsilon = site.real("epsilon", 1e-5)
    running = [site.is_constant(3), site.is_constant(4)]
    if site.flag("training_mode"):
        momentum = site.real("momentum", 0.9)

        def train(frame: Frame, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
            axes = [axis for axis in range(x.dim()) if axis != 1]
            now, spread = x.mean(axes), x.var(axes, correction=0)
            y = F.batch_norm(x, now, spread, scale, bias, False, 0.0, epsilon)
            return (
                y,
                mean * momentum + now * (1 - momentum),
                variance * momentum + spread * (1 - momentum),
            )

        return train

    def run(frame: Frame, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
        if frame.training and not all(running):
            mean, variance = mean.clone(), variance.clone()  # the graph's own values: not ours
        return F.batch_norm(x, mean, variance, scale, bias, frame.training, frame.momentum, epsilon)

    return run


@operator("InstanceNormalization")
def instance_norm(site: Site) -> Run:
    """InstanceNormalization: each channel of each sample by itself."""
    epsilon = site.real("epsilon", 1e-5)

    def run(x: Any, scale: Any, bias: Any) -> Any:
        # Not F.instance_norm, which refuses a single spatial element in training.
        return F.group_norm(x, x.shape[1], scale, bias, epsilon)

    return run


@operator("GroupNormalization")
def group_norm(site: Site) -> Run:
    """GroupNormalization: scale and bias per channel, or before opset 21 per group."""
    groups, epsilon = site.integer("num_groups", 1), site.real("epsilon", 1e-5)
    repeated = site.version < 21

    def run(x: Any, scale: Any, bias: Any) -> Any:
        if repeated:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


@operator("LayerNormalization")
def layer_norm(site: Site) -> Run:
    """LayerNormalization over all axes from `axis` on, computed in float32 or wider."""
    axis, epsilon = site.integer("axis", -1), site.real("epsilon", 1e-5)
    statistics = site.wants(1) or site.wants(2)

    def run(x: Any, scale: Any, bias: Any = None) -> Any:
        start = axis % x.dim()
        shape = x.shape[start:]
        if not statistics and scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        axes = list(range(start, x.dim()))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(axes, keepdim=True)
        inverse = torch.rsqrt(wide.var(axes, correction=0, keepdim=True) + epsilon)
        y = ((wide - mean) * inverse).to(x.dtype) * scale
        return y if bias is None else y + bias, mean, inverse

    return run


@operator("RMSNormalization")
def rms_norm(site: Site) -> Run:
    """RMSNormalization: divided by the root mean square over all axes from `axis` on."""
    axis, epsilon = site.integer("axis", -1), site.real("epsilon", 1e-5)

    def run(x: Any, scale: Any) -> Any:
        axes = list(range(axis % x.dim(), x.dim()))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
        return (wide * inverse).to(x.dtype) * scale

    return run


@operator("LRN")
def local_response(site: Site) -> Run:
    """LRN: divided by a power of the squares of neighbouring channels.

    Of an even `size` ONNX takes the odd neighbour from above, PyTorch's own from below.
    """
    size, bias = site.integer("size", 1), site.real("bias", 1.0)
    alpha, beta = site.real("alpha", 1e-4), site.real("beta", 0.75)
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)

    def run(x: Any) -> Any:
        squares = x.square().flatten(2).unsqueeze(1)
        squares = F.pad(squares, [0, 0, before, after])
        sums = F.avg_pool2d(squares, (size, 1), 1).reshape(x.shape)
        return x / (bias + alpha * sums) ** beta

    return run


@operator("MeanVarianceNormalization")
def mean_variance(site: Site) -> Run:
    """MeanVarianceNormalization over the axes given, by default all but the channels."""
    axes = site.integers("axes")
    axes = [0, 2, 3] if axes is None else axes

    def run(x: Any) -> Any:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


@operator("LpNormalization")
def lp_norm(site: Site) -> Run:
    """LpNormalization: divided by the p-norm along an axis; what has none stays 0."""
    axis, p = site.integer("axis", -1), site.integer("p", 2)

    def run(x: Any) -> Any:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return run
