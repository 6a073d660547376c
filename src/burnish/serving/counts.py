# SPDX-License-Identifier: Apache-2.0
"""What a served model counts: times by stage, batch sizes, rejections; cheap to count.

Counted on the event loop alone, and read there: by the statistics extension, by the
metrics and by the live page.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

FIRST_MS, LAST_MS = 0.1, 60_000.0
BOUNDS_MS = tuple(
    FIRST_MS * 2 ** (step / 4) for step in range(math.ceil(4 * math.log2(LAST_MS / FIRST_MS)) + 1)
)
"""Upper bounds of a histogram's buckets, each 2^(1/4) times the one before: 0.1 ms to 60 s."""

STAGES = ("queue", "gather", "run", "respond", "total")
"""Waiting for a stream; making the batch; the engine; back to the client; all of it."""


@dataclass
class Histogram:
    """Times in `BOUNDS_MS`; the last count is of those beyond them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    n: int = 0
    sum_ms: float = 0.0

    def add(self, ms: float, n: int = 1) -> None:
        """Counts a time, `n` times."""
        self.counts[bisect_left(BOUNDS_MS, ms)] += n
        self.n += n
        self.sum_ms += n * ms

    def quantile_ms(self, share: float) -> float:
        """Returns the time that a share of the times did not exceed, within 9 %; NaN without any.

        >>> histogram = Histogram()
        >>> for ms in (1.0, 2.0, 3.0): histogram.add(ms)
        >>> 1.8 < histogram.quantile_ms(0.5) < 2.2
        True
        """
        wanted, below = share * self.n, 0
        for place, count in enumerate(self.counts):
            below += count
            if count and below >= wanted:
                high = BOUNDS_MS[min(place, len(BOUNDS_MS) - 1)]
                return high / 2**0.125  # the middle of the bucket, by its logarithm
        return math.nan


@dataclass
class ModelCounts:
    """What one version of one model counted since it was loaded."""

    stages: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram() for stage in STAGES}
    )
    answered: int = 0
    """Requests."""
    rows: int = 0
    """Rows of answered requests."""
    in_slo: int = 0
    """Answered by their deadline."""
    failed: int = 0
    failed_ms: float = 0.0
    cancelled: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    """Requests by the reason."""
    batches: Counter[int] = field(default_factory=Counter)
    """Runs of the engine by rows."""
    batch_ms: dict[int, float] = field(default_factory=dict)
    """Milliseconds of the engine by rows."""
    last_answer_s: float = 0.0
    """Since 1970."""
