# SPDX-License-Identifier: Apache-2.0
"""Latencies as an HDR histogram: 1 µs to an hour, each to within 0.1 %.

Two of them add up exactly, and one travels as text, in the format of every HdrHistogram.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.core.errors import Missing

_HIGHEST_US = 3_600_000_000
_DIGITS = 3
_Z95 = 1.959964


class Histogram:
    """How often each latency was seen; recorded in seconds, read in milliseconds."""

    def __init__(self, seconds: npt.ArrayLike = ()) -> None:
        self._counts = _hdr()(1, _HIGHEST_US, _DIGITS)
        self.record(seconds)

    def record(self, seconds: npt.ArrayLike) -> None:
        """Adds latencies; those beyond the range count as its ends."""
        us = np.rint(np.asarray(seconds, np.float64) * 1e6)
        values, counts = np.unique(np.clip(us, 1, _HIGHEST_US).astype(np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts.record_value(value, count)

    @property
    def n(self) -> int:
        """How many latencies were recorded."""
        return int(self._counts.get_total_count())

    def percentile_ms(self, percentile: float) -> float:
        """Returns what `percentile` percent of the latencies stay below; NaN when there are none.

        >>> Histogram([0.001, 0.002, 0.1]).percentile_ms(50)
        2.0
        """
        return self.percentiles_ms([percentile])[0]

    def percentiles_ms(self, percentiles: Iterable[float]) -> list[float]:
        """Returns several percentiles, found in one pass."""
        wanted = list(percentiles)
        if not self.n:
            return [math.nan] * len(wanted)
        # As the library's own, which walks through all 23,000 counts in Python.
        reached = np.cumsum(self._array())
        targets = [self._counts.get_target_count_at_percentile(one) for one in wanted]
        return [self._highest_ms(index) for index in np.searchsorted(reached, targets).tolist()]

    def interval_ms(self, percentile: float) -> tuple[float, float]:
        """Returns the 95 % interval of a percentile, by order statistics.

        It takes requests to be independent. Those that wait in one queue are not, so the
        true interval is wider. NaN where there are too few to have one.
        """
        share = percentile / 100
        half = _Z95 * math.sqrt(self.n * share * (1 - share))
        low, high = self.n * share - half, self.n * share + half
        if low < 1 or high > self.n:
            return math.nan, math.nan
        first, last = self.percentiles_ms([100 * low / self.n, 100 * high / self.n])
        return first, last

    @property
    def max_ms(self) -> float:
        """The largest latency."""
        return float(self._counts.get_max_value()) / 1e3 if self.n else math.nan

    @property
    def mean_ms(self) -> float:
        """The mean latency."""
        return sum(ms * count for ms, count in self) / self.n if self.n else math.nan

    def to_text(self) -> str:
        """Returns the histogram in HdrHistogram's own format, V2, compressed, base64."""
        return str(self._counts.encode(), "ascii")

    @staticmethod
    def from_text(text: str) -> Histogram:
        """Returns the histogram that `to_text` wrote."""
        made = Histogram()
        made._counts.decode_and_add(text.encode("ascii"))
        return made

    @staticmethod
    def merged(parts: Iterable[Histogram]) -> Histogram:
        """Returns the histogram of all that the parts hold."""
        made = Histogram()
        for part in parts:
            if part.n:
                made._counts.add(part._counts)
        return made

    def __iter__(self) -> Iterator[tuple[float, int]]:
        """Yields (ms, count) for every latency that was seen, ascending."""
        counts = self._array()
        for index in np.flatnonzero(counts).tolist():
            yield self._highest_ms(index), int(counts[index])

    def _array(self) -> npt.NDArray[np.int64]:
        return np.ctypeslib.as_array(self._counts.counts).astype(np.int64)

    def _highest_ms(self, index: int) -> float:
        value = self._counts.get_value_from_index(index)
        return float(self._counts.get_highest_equivalent_value(value)) / 1e3


def _hdr() -> Any:
    try:
        from hdrh.histogram import HdrHistogram  # of the package hdrhistogram
    except ImportError as error:
        raise Missing("load", "hdrhistogram", "serve") from error
    return HdrHistogram
