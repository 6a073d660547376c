# SPDX-License-Identifier: Apache-2.0
"""How long a batch takes: the bundle's table, corrected by what is seen.

The table that was measured with the bundle gives the shape of latency over batch size;
calls that ran correct it by a factor. Each call counts half as much as one that came
`half_life_calls` later, and so does the table, which counts as a few calls before the first.

    t(b)   = table(b) · factor(b)      what to expect, the geometric mean
    t_q(b) = t(b) · surprise           what to promise; surprise is a high quantile of
                                       seen / expected over recent calls, at least 1

factor(b) is linear between the batch sizes of the table. Where no calls were seen of late
it returns to the factor of all calls, so that a batch size that was slow once is tried again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse

TABLE_CALLS = 8.0
"""As many calls as the table counts for before the first one."""
SHARED_CALLS = 4.0
"""As many calls as the factor of all batch sizes counts for at each of them."""
GAIN_RATIO = 0.97
"""The share of the best throughput that the smallest batch size must reach."""
_WINDOW_HALF_LIVES = 4
_FIRST_SURPRISES = tuple(0.9 + 0.01 * step for step in range(21))  # ±10 % before calls are seen
_SETTLE_CALLS = 8
"""Predictions are worked out anew after so many calls, once the first half-life has passed."""
_LARGEST_STEP = math.log(4.0)  # one stall of a minute must not speak for an hour
_ROUNDING = 1e-9  # so that the last digit of a sum does not move b* to and fro

Table = Sequence[tuple[int, float]]
"""Points (batch size, milliseconds)."""


class LatencyModel:
    """Predicts how long a batch takes on one stream, for one shape, while all streams work.

    >>> model = LatencyModel([(1, 5.0), (8, 12.0), (32, 36.0)])
    >>> model.expected_ms(16)
    20.0
    >>> model.best_batch_size(slo_ms=60.0)
    23
    """

    def __init__(
        self,
        table: Table,
        max_batch_size: int | None = None,
        quantile: float = 0.95,
        half_life_calls: float = 64.0,
    ) -> None:
        """Starts from `table`, unordered points of at least one batch size.

        `max_batch_size` is the largest batch that will be predicted, the table's largest
        unless given; beyond the table, time is taken to grow with the batch size. `quantile`
        is that of `promised_ms`, 0.5 to below 1. Raises `Misuse` for values out of range.
        """
        points = _checked(table)
        self.max_batch_size = points[-1][0] if max_batch_size is None else max_batch_size
        if self.max_batch_size < 1:
            raise Misuse(f"the largest batch has at least 1 sample, got {self.max_batch_size}")
        if not 0.5 <= quantile < 1.0 or half_life_calls <= 0:
            raise Misuse(
                "expected a quantile from 0.5 to below 1 and a half-life above 0 calls, got "
                f"{quantile} and {half_life_calls}"
            )
        self.calls = 0
        """Calls seen so far."""
        self.settled = 0
        """How often the predictions have changed."""
        self._quantile = quantile
        self._half_life_calls = half_life_calls
        self._decay = 0.5 ** (1.0 / half_life_calls)
        self._knots = [size for size, _ in points]
        self._sizes = np.arange(1, self.max_batch_size + 1, dtype=np.float64)
        self._table_ms = _on_every_size(points, self._sizes)
        self._table_calls = TABLE_CALLS
        self._weights = np.zeros(len(points))
        self._sums = np.zeros(len(points))
        self._surprises: deque[float] = deque(
            _FIRST_SURPRISES, maxlen=max(32, math.ceil(_WINDOW_HALF_LIVES * half_life_calls))
        )
        self._settle()

    @staticmethod
    def from_plan(
        latency_by_batch: Sequence[Mapping[str, Any]],
        max_batch_size: int | None = None,
        quantile: float = 0.95,
        half_life_calls: float = 64.0,
    ) -> LatencyModel:
        """Returns the model of a bundle's plan: rows with `batch_size` and `latency_ms`."""
        try:
            table = [(int(row["batch_size"]), float(row["latency_ms"])) for row in latency_by_batch]
        except (KeyError, TypeError, ValueError) as error:
            raise Misuse(
                "the plan's latency_by_batch must hold rows of batch_size and latency_ms, got "
                f"{latency_by_batch!r}; write the bundle again"
            ) from error
        return LatencyModel(table, max_batch_size, quantile, half_life_calls)

    def reseeded(self, table: Table | None = None) -> LatencyModel:
        """Returns the model after a hot swap: from the new bundle's table, with no calls seen.

        Without a table, what was learned takes its place and soon gives way to new calls.
        """
        if table is None:
            table = [(size, self.expected_ms(size)) for size in self._knots_in_range()]
        return LatencyModel(table, self.max_batch_size, self._quantile, self._half_life_calls)

    def expected_ms(self, batch_size: int) -> float:
        """Returns the time to expect of a batch of 1 … `max_batch_size`."""
        return self._expected_ms[batch_size - 1]

    def promised_ms(self, batch_size: int) -> float:
        """Returns the time that a batch exceeds in few cases, 1 − `quantile` of them."""
        return self._expected_ms[batch_size - 1] * self._surprise

    def hoped_ms(self, batch_size: int) -> float:
        """Returns the least that may be expected: the table's time, or what is seen if less.

        For whoever decides whether a call is worth a try: calls that were slow for a while,
        and are asked for no more, could not show that they are fast again.
        """
        return min(float(self._table_ms[batch_size - 1]), self._expected_ms[batch_size - 1])

    def update(self, batch_size: int, ms: float) -> None:
        """Learns from one call that took `ms`. Raises `Misuse` for values out of range."""
        if not 1 <= batch_size <= self.max_batch_size or not 0.0 < ms < math.inf:
            raise Misuse(
                f"expected a batch of 1 to {self.max_batch_size} and a time above 0 ms, got "
                f"{batch_size} and {ms}"
            )
        expected_ms = self._expected_ms[batch_size - 1]
        self._surprises.append(ms / expected_ms)
        known = math.log(expected_ms / self._table_ms[batch_size - 1])
        step = math.log(ms) - math.log(expected_ms)  # the ratio itself may round to 0
        seen = known + min(max(step, -_LARGEST_STEP), _LARGEST_STEP)
        self._weights *= self._decay
        self._sums *= self._decay
        self._table_calls *= self._decay
        for knot, share in self._shares(batch_size):
            self._weights[knot] += share
            self._sums[knot] += share * seen
        self.calls += 1
        if self.calls < self._half_life_calls or self.calls % _SETTLE_CALLS == 0:
            self._settle()

    def best_batch_size(
        self, slo_ms: float = math.inf, row_bytes: int = 0, memory_bytes: float = math.inf
    ) -> int:
        """Returns b*, the smallest batch size near the best throughput, at least 1.

        Near is `GAIN_RATIO` of the largest b / t(b). It is at most `largest_batch_size`.
        """
        throughput = self._sizes / np.asarray(self._expected_ms)
        near = throughput >= GAIN_RATIO * throughput.max() * (1.0 - _ROUNDING)
        best = int(np.argmax(near)) + 1
        return min(best, self.largest_batch_size(slo_ms, row_bytes, memory_bytes))

    def largest_batch_size(
        self, slo_ms: float = math.inf, row_bytes: int = 0, memory_bytes: float = math.inf
    ) -> int:
        """Returns the largest batch size that keeps the bounds, at least 1.

        A request that just missed a batch still makes the next one, 2 · t_q(b) ≤ `slo_ms`,
        and b · `row_bytes` ≤ `memory_bytes`. Source: Shen et al., "Nexus", 2019, §4.1, for
        the first.
        """
        half_ms = (1.0 + _ROUNDING) * slo_ms / (2.0 * self._surprise)
        in_time = int(np.searchsorted(self._expected_ms, half_ms, side="right"))
        in_memory = memory_bytes // row_bytes if row_bytes else math.inf
        return max(1, int(min(self.max_batch_size, in_time, in_memory)))

    def _knots_in_range(self) -> list[int]:
        inside = {size for size in self._knots if size <= self.max_batch_size}
        return sorted(inside | {1, self.max_batch_size})

    def _shares(self, batch_size: int) -> list[tuple[int, float]]:
        """Returns how a call counts for the table's points: by its nearness to the two around."""
        after = bisect_right(self._knots, batch_size)
        if after in (0, len(self._knots)):
            return [(max(0, after - 1), 1.0)]
        low, high = self._knots[after - 1], self._knots[after]
        share = (batch_size - low) / (high - low)
        return [(after - 1, 1.0 - share), (after, share)]

    def _settle(self) -> None:
        """Works out the predictions from the sums."""
        shared = self._sums.sum() / (self._weights.sum() + self._table_calls)
        at_knots = (self._sums + SHARED_CALLS * shared) / (self._weights + SHARED_CALLS)
        factor = np.exp(np.interp(self._sizes, self._knots, at_knots))
        ms = np.maximum.accumulate(self._table_ms * factor)  # a larger batch is never faster
        self._expected_ms: list[float] = ms.tolist()
        self._surprise = max(1.0, self._recent_quantile())
        self.settled += 1

    def _recent_quantile(self) -> float:
        """Returns the quantile of the surprises, each weighted by how recent it is."""
        surprises = np.array(self._surprises)
        weights = self._decay ** np.arange(len(surprises) - 1, -1, -1)
        order = np.argsort(surprises)
        below = np.cumsum(weights[order])
        return float(surprises[order[np.searchsorted(below, self._quantile * below[-1])]])


def _checked(table: Table) -> list[tuple[int, float]]:
    points = sorted(table)
    sizes = [size for size, _ in points]
    if not points or sizes[0] < 1 or len(set(sizes)) < len(sizes):
        raise Misuse(
            f"a latency table has one point or more, at different batch sizes from 1, got {points}"
        )
    if not all(0.0 < ms < math.inf for _, ms in points):
        raise Misuse(f"a latency table has finite times above 0 ms, got {points}")
    return points


def _on_every_size(
    points: Sequence[tuple[int, float]], sizes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the table at every batch size: flat before it, linear in it, through 0 beyond it."""
    knots, times_ms = np.array(points, np.float64).T
    inside = np.interp(sizes, knots, times_ms)
    beyond = times_ms[-1] * sizes / knots[-1]
    return np.asarray(np.where(sizes > knots[-1], beyond, inside), np.float64)
