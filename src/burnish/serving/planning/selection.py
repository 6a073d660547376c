# SPDX-License-Identifier: Apache-2.0
"""Which of the configurations that were measured and simulated is the best: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from burnish.core.candidate import Setting
from burnish.serving.planning.behaviour import Behaviour

SAME = 0.03
"""Differences that are not told apart: measured and simulated again, they may turn around."""
NEAR = 0.15
"""How far behind the best one still contends, and is measured again."""


@dataclass(frozen=True)
class Considered:
    """One configuration, and what came of it."""

    setting: Setting
    max_batch_size: int
    table: tuple[tuple[int, float], ...]
    """Batch sizes with the median time of a call, all streams busy."""
    calls: int
    """Calls of the batch size that was measured the least."""
    alone_ms: float
    """The asked percentile of one sample's call."""
    capacity_per_s: float
    """Samples a second of streams that never wait."""
    stalled_ratio: float = 0.0
    """The share of the time that went into calls of more than 4 times their median."""
    at: Behaviour | None = None
    """At the asked rate, or at the largest that keeps the SLO; None: at none, or passed over."""
    over: Behaviour | None = None
    """At 1.5 times that rate."""
    passed_over: str = ""
    """Why it was not simulated."""
    measured_again: bool = False

    @property
    def keeps(self) -> bool:
        """Whether it keeps the SLO at the rate of `at`."""
        return self.at is not None and self.at.keeps

    @property
    def rate_per_s(self) -> float:
        """The rate at which it was found to keep the SLO, else 0."""
        return self.at.rate_per_s if self.at is not None and self.at.keeps else 0.0

    @property
    def latency_ms(self) -> float:
        """The asked percentile at that rate, else infinite."""
        return self.at.latency_ms if self.at is not None else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON, with None for what is infinite."""
        return {
            "threads": self.setting.threads,
            "streams": self.setting.streams,
            "max_batch_size": self.max_batch_size,
            "keeps": self.keeps,
            "capacity_per_s": self.capacity_per_s,
            "alone_ms": self.alone_ms,
            "calls": self.calls,
            "stalled_ratio": self.stalled_ratio,
            "measured_again": self.measured_again,
            "at": _plain(self.at),
            "over": _plain(self.over),
            "passed_over": self.passed_over,
            "latency_by_batch": [{"batch_size": size, "latency_ms": ms} for size, ms in self.table],
        }


def choose(rows: Sequence[Considered], rate_per_s: float | None) -> Considered | None:
    """Returns the best of those that keep the SLO, or None when none does.

    At an asked rate that is the lowest latency at the percentile, and among equals the most
    capacity left; without one the largest rate. Among those that are the same within
    `SAME`, the smallest largest batch is taken, so that batching is used where it pays.
    """
    kept = [row for row in rows if row.keeps]
    if not kept:
        return None
    if rate_per_s is None:
        most = max(row.rate_per_s for row in kept)
        kept = [row for row in kept if row.rate_per_s >= (1 - SAME) * most]
        return min(kept, key=lambda row: (row.max_batch_size, -row.rate_per_s, row.latency_ms))
    least_ms = min(row.latency_ms for row in kept)
    kept = [row for row in kept if row.latency_ms <= (1 + SAME) * least_ms]
    most = max(row.capacity_per_s for row in kept)
    kept = [row for row in kept if row.capacity_per_s >= (1 - SAME) * most]
    return min(kept, key=lambda row: (row.max_batch_size, row.latency_ms, -row.capacity_per_s))


def nearest(rows: Sequence[Considered]) -> Considered:
    """Returns the one that comes nearest to keeping the SLO, of those that do not.

    That is the one that answers most in time; where none was worth simulating, the one of
    most capacity, and where none keeps the SLO at any rate, the fastest.
    """
    return max(rows, key=lambda row: (_in_time(row), _beaten(row), -row.alone_ms))


def contenders(rows: Sequence[Considered], rate_per_s: float | None, most: int) -> list[Considered]:
    """Returns the best and those within `NEAR` of it, best first, at most so many."""

    def worth(row: Considered) -> float:
        if rate_per_s is None:
            return row.rate_per_s
        return 1 / row.latency_ms if row.keeps else 0.0

    def fast(row: Considered) -> float:
        return 1 / row.alone_ms

    for of in (worth, _in_time, _beaten, fast):
        best = max(map(of, rows))
        if best > 0:
            near = [row for row in rows if of(row) >= (1 - NEAR) * best]
            return sorted(near, key=lambda row: (-of(row), row.max_batch_size))[:most]
    return list(rows[:most])


def _in_time(row: Considered) -> float:
    return row.at.in_slo_ratio if row.at is not None else 0.0


def _beaten(row: Considered) -> float:
    """Returns the capacity of one that was passed over for having too little of it, else 0."""
    return row.capacity_per_s if row.passed_over else 0.0


def _plain(one: Behaviour | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(one).items()
    }
