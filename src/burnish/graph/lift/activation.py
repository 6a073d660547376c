# SPDX-License-Identifier: Apache-2.0
"""Activation functions, and Dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Frame, Run, Site, direct, operator

direct(
    __name__,
    Relu=torch.relu,
    Sigmoid=torch.sigmoid,
    Softsign=F.softsign,
    Mish=F.mish,
    HardSwish=F.hardswish,
)


@operator("Softplus")
def softplus(site: Site) -> Run:
    """Softplus: ln(exp(x) + 1), exact for large x too (PyTorch's turns linear at 20)."""
    return lambda x: torch.logaddexp(x, torch.zeros((), dtype=x.dtype, device=x.device))


@operator("Gelu")
def gelu(site: Site) -> Run:
    """Gelu, exact or by its tanh approximation."""
    approximate = site.text("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("LeakyRelu")
def leaky_relu(site: Site) -> Run:
    """LeakyRelu: negative values times `alpha`."""
    alpha = site.real("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@operator("PRelu")
def prelu(site: Site) -> Run:
    """PRelu: negative values times a slope that broadcasts as in numpy."""
    return lambda x, slope: torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(site: Site) -> Run:
    """Elu: alpha · (exp(x) − 1) below zero."""
    alpha = site.real("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu")
def celu(site: Site) -> Run:
    """Celu: alpha · (exp(x / alpha) − 1) below zero."""
    alpha = site.real("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu")
def selu(site: Site) -> Run:
    """Selu: gamma · elu(x, alpha)."""
    alpha, gamma = site.real("alpha", 1.67326319217681884765625), site.real("gamma", 1.0507)
    if "gamma" not in site.node.attributes:
        gamma = 1.05070102214813232421875
    return lambda x: gamma * F.elu(x, alpha)


@operator("ThresholdedRelu")
def thresholded_relu(site: Site) -> Run:
    """ThresholdedRelu: x above `alpha`, else 0."""
    alpha = site.real("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("Shrink")
def shrink(site: Site) -> Run:
    """Shrink: 0 within ±lambd, moved towards 0 by `bias` outside."""
    limit, bias = site.real("lambd", 0.5), site.real("bias", 0.0)

    def run(x: Any) -> Any:
        zero = torch.zeros_like(x)
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero)).to(x.dtype)

    return run


@operator("HardSigmoid")
def hard_sigmoid(site: Site) -> Run:
    """HardSigmoid: alpha · x + beta within [0, 1]."""
    alpha, beta = site.real("alpha", 0.2), site.real("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Swish")
def swish(site: Site) -> Run:
    """Swish: x · sigmoid(alpha · x)."""
    alpha = site.real("alpha", 1.0)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


@operator("SwiGLU")
def swiglu(site: Site) -> Run:
    """SwiGLU: Swish of the first input times the second."""
    gate = swish(site)
    return lambda x, y: gate(x) * y


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(site: Site) -> Run:
    """Softmax, LogSoftmax and Hardmax.

    Along one axis since opset 13; before, over all axes from `axis` on, flattened.
    """
    function = _SOFTMAX[site.node.op_type]
    axis = site.integer("axis", -1 if site.version >= 13 else 1)
    if site.version >= 13:
        return lambda x: function(x, dim=axis)

    def flattened(x: Any) -> Any:
        start = axis % max(x.dim(), 1)
        return function(x.flatten(start), dim=start).reshape(x.shape)

    return flattened


def _hardmax(x: Any, dim: int) -> Any:
    first = x.argmax(dim, keepdim=True)
    return torch.zeros_like(x).scatter(dim, first, 1)


_SOFTMAX: dict[str, Run] = {
    "Softmax": F.softmax,
    "LogSoftmax": F.log_softmax,
    "Hardmax": _hardmax,
}


@operator("Dropout", framed=True)
def dropout(site: Site) -> Run:
    """Dropout: live in training mode, or when the graph's own `training_mode` input says so."""
    if site.version < 12:
        ratio = site.real("ratio", 0.5)
        return lambda frame, x: _drop(x, ratio, frame.training)
    fixed = site.number(1) if site.has(1) else 0.5
    forced = site.has(2)

    def run(frame: Frame, x: Any, ratio: Any = None, training: Any = None) -> Any:
        share = float(ratio) if fixed is None else fixed
        return _drop(x, share, frame.training or (forced and bool(training)))

    return run


def _drop(x: Any, ratio: float, training: bool) -> tuple[Any, Any]:
    """Returns what is left, scaled up, and the mask of it."""
    if not training or ratio == 0.0:
        return x, torch.ones_like(x, dtype=torch.bool)
    mask = torch.rand(x.shape, device=x.device) >= ratio
    return x * mask.to(x.dtype) / (1.0 - ratio), mask
