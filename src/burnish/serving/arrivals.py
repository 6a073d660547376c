# SPDX-License-Identifier: Apache-2.0
"""Made-up and recorded traffic: when requests come, and what each asks.

Every generator gives times in milliseconds from 0, ascending, below `seconds`. Randomness
comes from the generator that is passed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from burnish.core.errors import Misuse
from burnish.serving.request import Axes


@dataclass(frozen=True)
class Arrival:
    """One request of a trace."""

    at_ms: float
    rows: int = 1
    timeout_ms: float = math.inf
    """Its own limit, beside the SLO."""
    priority: int = 0
    axes: Axes = ()
    size_bytes: int = 0
    cancelled_after_ms: float = math.inf
    """When its client goes away, counted from its arrival."""


def poisson(per_s: float, seconds: float, rng: np.random.Generator) -> list[Arrival]:
    """Returns arrivals that know nothing of each other, `per_s` of them a second."""
    _check(per_s, seconds)
    count = rng.poisson(per_s * seconds)
    return [Arrival(float(at)) for at in np.sort(rng.uniform(0.0, 1e3 * seconds, count))]


def constant(per_s: float, seconds: float) -> list[Arrival]:
    """Returns arrivals at equal distances, the first at 0.

    >>> [arrival.at_ms for arrival in constant(4, 1)]
    [0.0, 250.0, 500.0, 750.0]
    """
    _check(per_s, seconds)
    return [Arrival(1e3 * step / per_s) for step in range(math.ceil(per_s * seconds))]


def bursts(per_s: float, seconds: float, size: int, rng: np.random.Generator) -> list[Arrival]:
    """Returns bursts of `size` requests at once, which know nothing of each other.

    `per_s` counts requests, not bursts.
    """
    if size < 1:
        raise Misuse(f"a burst has at least 1 request, got {size}")
    return [one for one in poisson(per_s / size, seconds, rng) for _ in range(size)]


def trace(gaps_ms: Iterable[float]) -> list[Arrival]:
    """Returns recorded arrivals by the time from each to the next; the first is at 0.

    >>> [arrival.at_ms for arrival in trace([5.0, 0.0])]
    [0.0, 5.0, 5.0]
    """
    gaps = list(gaps_ms)
    if not all(0.0 <= gap < math.inf for gap in gaps):
        raise Misuse("the gaps of a trace are finite and at least 0 ms")
    return [Arrival(at) for at in itertools.accumulate(gaps, initial=0.0)]


def _check(per_s: float, seconds: float) -> None:
    if not 0 < per_s < math.inf or not 0 < seconds < math.inf:
        raise Misuse(f"expected a rate and a duration above 0, got {per_s}/s for {seconds} s")
