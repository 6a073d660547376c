# SPDX-License-Identifier: Apache-2.0
"""Which rows of a source a split reads, so that one source can feed several splits.

>>> chosen = Selection(sample=3, seed=0).rows(10)
>>> others = Selection(sample=3, seed=0, rest=True).rows(10)
>>> sorted([*chosen.tolist(), *others.tolist()])
[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.toml_table import Table


@dataclass(frozen=True)
class Selection:
    """Rows `start` to `stop`, then every `every`th, then a seeded `sample` (or the `rest` of
    it), then `skip` and `limit`; always in the source's order.
    """

    start: int = 0
    stop: int | None = None
    every: int = 1
    sample: int | None = None
    seed: int = 0
    rest: bool = False
    skip: int = 0
    limit: int | None = None

    @staticmethod
    def from_table(table: Table) -> Selection:
        """Returns the selection in a split's table; faults are noted in it."""
        start, stop = 0, None
        bounds = table.wholes("rows", count=2)
        if bounds:
            start, stop = bounds
            if stop <= start:
                table.fault(f"rows = [start, stop] must have start < stop, got {list(bounds)}")
        sample, rest = table.whole("sample", least=1), table.flag("rest") or False
        seed = table.whole("seed")
        if (rest or seed is not None) and "sample" not in table:
            table.fault(f"{'rest' if rest else 'seed'} needs sample: the rest of which sample?")
        return Selection(
            start,
            stop,
            table.whole("every", least=1) or 1,
            sample,
            seed or 0,
            rest,
            table.whole("skip") or 0,
            table.whole("limit", least=1),
        )

    def rows(self, n: int) -> NDArray[np.int64]:
        """Returns the chosen of `n` rows, ascending. Raises `Misuse` when there are too few.

        The sample depends on n, size and seed alone, on every machine and in every version.
        """
        if self.stop is not None and self.stop > n:
            raise Misuse(f"rows ends at {self.stop}, but the source has {n} samples")
        rows = np.arange(self.start, n if self.stop is None else self.stop, self.every)
        if self.sample is not None:
            if self.sample > len(rows):
                raise Misuse(f"sample = {self.sample}, but only {len(rows)} samples are there")
            order = np.argsort(_mixed(len(rows), self.seed), kind="stable")
            part = order[self.sample :] if self.rest else order[: self.sample]
            rows = rows[np.sort(part)]
        stop = None if self.limit is None else self.skip + self.limit
        rows = rows[self.skip : stop].astype(np.int64)
        if not len(rows):
            raise Misuse(f"no sample is left of the source's {n}: see rows, every, rest and skip")
        return rows


def _mixed(n: int, seed: int) -> NDArray[np.uint64]:
    """Returns n well-mixed numbers.

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
    SplitMix64, its state advanced to `seed` first.
    """
    gamma = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        mixed = _finalize(np.array([(seed + 1) & (2**64 - 1)], np.uint64) * gamma)
        return _finalize(mixed + np.arange(1, n + 1, dtype=np.uint64) * gamma)


def _finalize(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
