# SPDX-License-Identifier: Apache-2.0
"""Chooses the range of values that a grid covers, from a histogram.

Every method starts from the same histogram, so statistics gathered once serve all:

- "minmax": the smallest and largest value seen.
- "percentile": leaves out a share of the values at each end.
- "mse": least squared error of quantizing what was seen, over clipped ranges.
  Source: Banner et al. 2019 (arXiv:1810.05723), problem 3, solved here by search on the
  histogram rather than for an assumed distribution.
- "entropy": least Kullback–Leibler divergence between the values and their quantized
  form. Source: Migacz 2017, "8-bit inference with TensorRT" (GTC), the procedure of its
  calibration slides; here over both signs, exact zeros left out.

A range always contains 0, which padding and ReLU need to be exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.techniques.quantize.grid import Activation, activation_grid
from burnish.techniques.quantize.histogram import Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)

_SHARES = np.geomspace(1.0, 0.02, 97)

# (bin centres, counts, low, high, kind) -> what quantizing with low..high costs
_Cost = Callable[[NDArray[np.float64], NDArray[np.int64], float, float, Activation], float]


def choose_range(
    histogram: Histogram, method: Method, kind: Activation, percentile: float = 99.99
) -> tuple[float, float]:
    """Returns (low, high), low ≤ 0 ≤ high, inside the values seen.

    `percentile` in 50..100 is the share, in percent, kept at each end that is clipped.
    Raises `Misuse` for an unknown method, or when no finite value was seen.
    """
    if method not in METHODS:
        raise unknown("range method", method, METHODS)
    if not math.isfinite(histogram.low):
        raise Misuse("no finite value was seen during calibration")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "minmax" or histogram.counts.size == 0:
        return low, high
    if method == "percentile":
        return _percentile(histogram, percentile, low, high)
    cost = _squared_error if method == "mse" else _divergence
    return _search(histogram, kind, low, high, cost)


def _percentile(
    histogram: Histogram, percentile: float, low: float, high: float
) -> tuple[float, float]:
    if not 50 <= percentile <= 100:
        raise Misuse(f"percentile must be in 50..100, got {percentile}")
    edges = histogram.centres() - histogram.width / 2
    counts = histogram.counts
    # Zeros stand between the negative and the positive bins.
    split = int(np.searchsorted(edges, -histogram.width / 2))
    order = np.concatenate([counts[:split], [histogram.zeros], counts[split:]])
    upper = np.concatenate(
        [edges[:split] + histogram.width, [0.0], edges[split:] + histogram.width]
    )
    lower = np.concatenate([edges[:split], [0.0], edges[split:]])
    below = np.cumsum(order) / histogram.n
    share = percentile / 100
    top = upper[int(np.searchsorted(below, share))] if share < 1 else high
    bottom = lower[int(np.searchsorted(below, 1 - share, side="right"))] if share < 1 else low
    return max(low, min(float(bottom), 0.0)), min(high, max(float(top), 0.0))


def _search(
    histogram: Histogram, kind: Activation, low: float, high: float, cost: _Cost
) -> tuple[float, float]:
    """Returns the cheapest range: both ends shrunk alike, then each by itself, twice."""
    values, counts = histogram.centres(), histogram.counts

    def price(a: float, b: float) -> float:
        return cost(values, counts, a, b, kind)

    best = min(((price(low * s, high * s), low * s, high * s) for s in _SHARES), key=_first)
    if low < 0 < high:
        for _ in range(2):
            best = min(
                [best, *((price(best[1], high * s), best[1], high * s) for s in _SHARES)],
                key=_first,
            )
            best = min(
                [best, *((price(low * s, best[2]), low * s, best[2]) for s in _SHARES)], key=_first
            )
    return float(best[1]), float(best[2])


def _first(item: tuple[float, float, float]) -> float:
    return item[0]


def _squared_error(
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    low: float,
    high: float,
    kind: Activation,
) -> float:
    grid = activation_grid(low, high, kind)
    error = grid.dequantize(grid.quantize(values)) - values
    return float(np.dot(counts, error * error))


def _divergence(
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    low: float,
    high: float,
    kind: Activation,
) -> float:
    """Returns KL(P ‖ Q): P the clipped histogram, Q each level's values spread over its bins.

    Clipped values count in P's outermost bins and not in Q, which is what makes clipping
    cost something.
    """
    inside = np.flatnonzero((values >= low) & (values <= high))
    if inside.size == 0:
        return math.inf
    kept = counts[inside].astype(np.float64)
    p = kept.copy()
    p[0] += counts[: inside[0]].sum()
    p[-1] += counts[inside[-1] + 1 :].sum()
    grid = activation_grid(low, high, kind)
    levels = grid.quantize(values[inside]).astype(np.int64) - grid.low
    filled = np.bincount(levels, kept > 0, minlength=256)
    mean = np.bincount(levels, kept, minlength=256) / np.maximum(filled, 1)
    q = mean[levels] * (kept > 0)
    if (q[p > 0] == 0).any() or q.sum() == 0:
        return math.inf
    used = p > 0
    p, q = p[used] / p.sum(), q[used] / q.sum()
    return float(np.sum(p * np.log(p / q)))
