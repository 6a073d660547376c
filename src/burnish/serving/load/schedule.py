# SPDX-License-Identifier: Apache-2.0
"""When requests are due. An open loop sends whatever the server does; a closed one waits for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.core.errors import Misuse
from burnish.serving import arrivals

MOST_REQUESTS = 5_000_000
"""In one run; their times are held in memory."""


@dataclass(frozen=True)
class Poisson:
    """Requests that know nothing of each other: the traffic of many users."""

    per_s: float


@dataclass(frozen=True)
class Constant:
    """Requests at equal distances."""

    per_s: float


@dataclass(frozen=True)
class Bursts:
    """`size` requests at once, the bursts as Poisson; `per_s` counts requests."""

    per_s: float
    size: int


@dataclass(frozen=True)
class Trace:
    """Recorded arrivals, at milliseconds in ascending order; the first is sent at once."""

    at_ms: tuple[float, ...]


@dataclass(frozen=True)
class ClosedLoop:
    """Every connection sends again as soon as it was answered: finds the highest throughput.

    Its latencies say little about other traffic, since a slow server is asked less.
    """


OpenLoop = Poisson | Constant | Bursts | Trace
Schedule = OpenLoop | ClosedLoop


@dataclass(frozen=True)
class Timetable:
    """When requests are due, in seconds from the start, and the seconds that this covers."""

    times_s: npt.NDArray[np.float64]
    span_s: float

    def share(self, one: int, of: int) -> npt.NDArray[np.float64]:
        """Returns the times that process number `one` of `of` has to keep."""
        return self.times_s[one::of]


def timetable(schedule: OpenLoop, seconds: float, seed: int, most: int | None = None) -> Timetable:
    """Returns what is due within `seconds`, at most `most` requests of it.

    >>> timetable(Constant(4), 1, seed=0).times_s.tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    rng = np.random.default_rng(seed)
    if isinstance(schedule, Trace):
        times, span = _recorded(schedule, seconds)
    else:
        _bound(schedule.per_s * seconds)
        made = _made(schedule, seconds, rng)
        times, span = np.array([one.at_ms for one in made]) / 1e3, seconds
    if most is not None and len(times) > most:
        span = float(times[most])  # the request that is not sent any more ends the time
        times = times[:most]
    return Timetable(times, span)


def at_rate(schedule: Schedule, per_s: float) -> OpenLoop:
    """Returns the schedule at another rate."""
    if isinstance(schedule, Poisson):
        return Poisson(per_s)
    if isinstance(schedule, Constant):
        return Constant(per_s)
    if isinstance(schedule, Bursts):
        return Bursts(per_s, schedule.size)
    raise Misuse(
        f"the rate of {described(schedule)} cannot be changed: expected poisson, constant or bursts"
    )


def described(schedule: Schedule) -> str:
    """Returns the schedule in words.

    >>> described(Bursts(100, 8))
    'bursts of 8, 100/s'
    """
    if isinstance(schedule, ClosedLoop):
        return "closed loop"
    if isinstance(schedule, Trace):
        return f"trace of {len(schedule.at_ms)} requests"
    if isinstance(schedule, Bursts):
        return f"bursts of {schedule.size}, {schedule.per_s:.4g}/s"
    return f"{type(schedule).__name__.lower()}, {schedule.per_s:.4g}/s"


def shares(total: int, of: int) -> list[int]:
    """Returns `total` in `of` parts that differ by at most 1, the larger ones first.

    >>> shares(7, 3)
    [3, 2, 2]
    """
    return [len(range(one, total, of)) for one in range(of)]


def _made(
    schedule: Poisson | Constant | Bursts, seconds: float, rng: np.random.Generator
) -> Sequence[Any]:
    if isinstance(schedule, Poisson):
        return arrivals.poisson(schedule.per_s, seconds, rng)
    if isinstance(schedule, Constant):
        return arrivals.constant(schedule.per_s, seconds)
    return arrivals.bursts(schedule.per_s, seconds, schedule.size, rng)


def _recorded(schedule: Trace, seconds: float) -> tuple[npt.NDArray[np.float64], float]:
    if not schedule.at_ms:
        raise Misuse("the trace has no arrivals")
    _bound(len(schedule.at_ms))
    made = arrivals.trace(np.diff(schedule.at_ms).tolist())
    times = np.array([one.at_ms for one in made]) / 1e3
    within = times[times < seconds]
    if len(within) < len(times):
        return within, seconds
    # A trace ends one mean gap after its last arrival, so that its rate is n by its length.
    gap = float(times[-1]) / (len(times) - 1) if len(times) > 1 else 0.0
    return times, min(seconds, float(times[-1]) + gap)


def _bound(requests: float) -> None:
    if not math.isfinite(requests) or requests > MOST_REQUESTS:
        raise Misuse(
            f"a run has at most {MOST_REQUESTS:,} requests, got {requests:,.0f}: "
            "give a shorter duration or a lower rate"
        )
