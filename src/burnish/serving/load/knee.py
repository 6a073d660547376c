# SPDX-License-Identifier: Apache-2.0
"""Which rate to try next, to find the largest that holds: geometric steps, then bisection."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Search:
    """How the largest rate is sought.

    start_per_s: the first rate; growth: its factor from step to step while it holds (or
    down, while the first ones do not); precision_ratio: the bisection ends when the rate
    that holds and the one that does not are this close; most_steps, most_per_s: bounds.
    """

    start_per_s: float
    growth: float = 2.0
    precision_ratio: float = 0.05
    most_steps: int = 16
    most_per_s: float = 100_000.0
    most_down: float = 1024.0

    def next_rate(self, tried: list[tuple[float, bool]]) -> float | None:
        """Returns the rate to try after those that were `tried`, or None at the end.

        >>> search = Search(100)
        >>> search.next_rate([]), search.next_rate([(100, True)]), search.next_rate([(100, False)])
        (100, 200.0, 50.0)
        >>> round(search.next_rate([(100, True), (200, False)]), 1)
        141.4
        """
        if not tried:
            return min(self.start_per_s, self.most_per_s)
        if len(tried) >= self.most_steps:
            return None
        # A rate that held above one that did not is luck: below the lowest failure is sure.
        failed = min((rate for rate, held in tried if not held), default=math.inf)
        holds = max((rate for rate, held in tried if held and rate < failed), default=0.0)
        if failed == math.inf:
            return self._at_most(holds * self.growth, holds)
        if not holds:
            lower = failed / self.growth
            return lower if lower * self.most_down >= self.start_per_s else None
        if failed / holds <= 1 + self.precision_ratio:
            return None
        return math.sqrt(holds * failed)

    def _at_most(self, rate: float, before: float) -> float | None:
        return min(rate, self.most_per_s) if before < self.most_per_s else None


def knee(tried: list[tuple[float, bool]]) -> float | None:
    """Returns the largest rate that held, below all that did not; None when there is none.

    >>> knee([(100, True), (200, False), (140, True)])
    140
    """
    failed = min((rate for rate, held in tried if not held), default=math.inf)
    return max((rate for rate, held in tried if held and rate < failed), default=None)
