# SPDX-License-Identifier: Apache-2.0
"""Reductions, and cumulative ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from burnish.graph.lift.dtypes import FLOATS
from burnish.graph.lift.elementwise import widened
from burnish.graph.lift.registry import Run, Site, floats, operator


def _prod(x: Any, axes: Sequence[int], keep: bool) -> Any:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Any, axes: Sequence[int], keep: bool) -> Any:
    if floats(x):
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keepdim=keep), count, rounding_mode="trunc").to(x.dtype)


def _l2(x: Any, axes: Sequence[int], keep: bool) -> Any:
    if floats(x):
        return torch.linalg.vector_norm(x, 2, list(axes), keepdim=keep)
    return x.to(torch.float64).square().sum(axes, keepdim=keep).sqrt().to(x.dtype)


def _extreme(x: Any, axes: Sequence[int], keep: bool, largest: bool) -> Any:
    if x.dtype == torch.bool:
        return _extreme(x.to(torch.uint8), axes, keep, largest).to(torch.bool)
    function = torch.amax if largest else torch.amin
    if all(x.shape[axis] for axis in axes):
        return function(x, list(axes), keepdim=keep)
    # Of nothing: the least there is, or the largest.
    if floats(x):
        worst = float("-inf") if largest else float("inf")
    else:
        worst = torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max
    return torch.full_like(x.sum(axes, keepdim=keep), worst, dtype=x.dtype)


_FUNCTIONS: dict[str, Callable[[Any, Sequence[int], bool], Any]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceMean": _mean,
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, True),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, False),
    "ReduceProd": lambda x, axes, keep: _prod(x, axes, keep).to(x.dtype),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, list(axes), keepdim=keep),
}
# What one element gives when no axis is reduced: the function of it alone.
_ALONE: dict[str, Callable[[Any], Any]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}


@operator(*_FUNCTIONS, ints=(1,))
def reduce(site: Site) -> Run:
    """The ten Reduce operators; axes are an attribute or, in later versions, an input.

    Without axes all are reduced, or none with `noop_with_empty_axes`.
    """
    name = site.node.op_type
    function = _FUNCTIONS[name]
    alone = _ALONE.get(name, lambda x: x)
    fixed, keep = site.integers("axes"), site.flag("keepdims", 1)
    noop = site.flag("noop_with_empty_axes")

    def run(x: Any, axes: Any = None) -> Any:
        found = fixed if axes is None else [axes] if isinstance(axes, int) else axes
        if not found:
            if noop:
                return alone(x)
            found = list(range(x.dim()))
        return function(x, found, keep) if found else alone(x)

    return run if site.dtype(0) in FLOATS else widened(run)


@operator("ArgMax", "ArgMin")
def arg_extreme(site: Site) -> Run:
    """ArgMax and ArgMin: the first, or with `select_last_index` the last, of equal ones."""
    axis, keep = site.integer("axis", 0), site.flag("keepdims", 1)
    last = site.flag("select_last_index")
    function = torch.argmax if site.node.op_type == "ArgMax" else torch.argmin

    def run(x: Any) -> Any:
        if not last:
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

    return run


@operator("CumSum", "CumProd", ints=(1,))
def cumulative(site: Site) -> Run:
    """CumSum and CumProd: from either end, with or without the element itself."""
    exclusive, reverse = site.flag("exclusive"), site.flag("reverse")
    adds = site.node.op_type == "CumSum"
    function = torch.cumsum if adds else torch.cumprod

    def run(x: Any, axis: Any) -> Any:
        axis = axis[0] if isinstance(axis, list) else axis
        y = x.flip(axis) if reverse else x
        if exclusive:
            first = torch.full_like(y.narrow(axis, 0, 1), 0 if adds else 1)
            y = torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)
        y = function(y, axis, dtype=x.dtype)
        return y.flip(axis) if reverse else y

    return run
