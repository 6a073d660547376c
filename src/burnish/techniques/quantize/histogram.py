# SPDX-License-Identifier: Apache-2.0
"""A histogram of a stream in constant memory, whose range grows as it needs to.

Bin k holds the values in [k w, (k + 1) w). The width w is the least power of two with
which the largest magnitude is below `BINS` w and the values span at most `BINS` bins. It
doubles when it must, and bins 2j and 2j + 1 become bin j: nothing is lost but resolution,
and the result does not depend on how the stream was cut into batches. Exact zeros, which
every grid represents exactly, are counted apart.

Memory: 8 bytes × BINS for each stream, whatever its length.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

BINS = 4096


class Histogram:
    """Counts, exact minimum and maximum of the finite values of a stream."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.zeros = 0
        self.n = 0
        self.not_finite = 0
        self._exponent = -126  # w = 2 ** _exponent
        self._first = 0
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, values: NDArray[np.floating], every: int = 1) -> None:
        """Adds values: all to the minimum and maximum, each `every`-th to the counts."""
        flat = values.reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(flat)
            self.not_finite += int(flat.size - finite.sum())
            flat = flat[finite]
            if flat.size == 0:
                return
            low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        flat = flat[::every]
        nonzero = flat[flat != 0]
        self.n += flat.size
        self.zeros += flat.size - nonzero.size
        if nonzero.size == 0:
            return
        self._widen(float(nonzero.min()), float(nonzero.max()))
        bins = np.floor(nonzero * np.float64(2.0**-self._exponent)).astype(np.int64)
        counted = np.bincount(bins - self._first, minlength=self._counts.size)
        self._counts += counted

    def _widen(self, low: float, high: float) -> None:
        """Makes room for low..high: doubles the width until they fit, then extends the counts."""
        largest = max(abs(low), abs(high))
        least = max(math.frexp(largest)[1] - int(math.log2(BINS)), -126)
        if self._counts.size == 0:
            self._exponent = least
            self._first = math.floor(low * 2.0**-self._exponent)
            self._counts = np.zeros(1, np.int64)
        while True:
            inverse = 2.0**-self._exponent
            first = min(self._first, math.floor(low * inverse))
            last = max(self._first + self._counts.size - 1, math.floor(high * inverse))
            if last - first < BINS and self._exponent >= least:
                break
            self._double()
        grown = np.zeros(last - first + 1, np.int64)
        start = self._first - first
        grown[start : start + self._counts.size] = self._counts
        self._first, self._counts = first, grown

    def _double(self) -> None:
        first = self._first // 2
        padded = np.concatenate([np.zeros(self._first - 2 * first, np.int64), self._counts])
        if padded.size % 2:
            padded = np.append(padded, 0)
        self._first, self._counts = first, padded.reshape(-1, 2).sum(axis=1)
        self._exponent += 1

    @property
    def width(self) -> float:
        """The width of a bin."""
        return math.ldexp(1.0, self._exponent)

    def centres(self) -> NDArray[np.float64]:
        """Returns the middle of each bin, ascending; zeros have no bin."""
        bins = self._first + np.arange(self._counts.size, dtype=np.float64)
        return (bins + 0.5) * self.width

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many values fell into each bin."""
        return self._counts

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Returns plain arrays for an .npz file; `from_arrays` is the inverse."""
        numbers = np.array([self.low, self.high], np.float64)
        whole = np.array(
            [self.zeros, self.n, self.not_finite, self._exponent, self._first], np.int64
        )
        return {"numbers": numbers, "whole": whole, "counts": self._counts}

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray[np.generic]]) -> Histogram:
        """Returns the histogram that `to_arrays` wrote."""
        one = Histogram()
        one.low, one.high = (float(x) for x in arrays["numbers"])
        one.zeros, one.n, one.not_finite, one._exponent, one._first = (
            int(x) for x in arrays["whole"]
        )
        one._counts = arrays["counts"].astype(np.int64)
        return one
