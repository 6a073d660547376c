# SPDX-License-Identifier: Apache-2.0
"""What one setting's calls took, by batch size, and calls drawn from them again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.serving.request import Batch

_DRAWN = 4096
_STALL = 4


@dataclass(frozen=True)
class CallTimes:
    """The times of calls while all streams were busy, in milliseconds, by batch size from 1."""

    setting: Setting
    calls_ms: Mapping[int, NDArray[np.float64]]

    def __post_init__(self) -> None:
        if 1 not in self.calls_ms or any(not len(one) for one in self.calls_ms.values()):
            sizes = sorted(self.calls_ms)
            raise Misuse(f"expected calls of each batch size from 1, got sizes {sizes}")

    @cached_property
    def sizes(self) -> list[int]:
        """The batch sizes that were measured, ascending."""
        return sorted(self.calls_ms)

    @cached_property
    def table(self) -> tuple[tuple[int, float], ...]:
        """Batch sizes with the median time of a call."""
        return tuple((size, float(np.median(self.calls_ms[size]))) for size in self.sizes)

    @property
    def rates(self) -> list[tuple[int, float, float]]:
        """Batch sizes with the median time of a call and the samples a second of all streams."""
        return [(size, ms, self._per_s(size)) for size, ms in self.table]

    @cached_property
    def ordered_ms(self) -> tuple[list[float], ...]:
        """The times of the calls, ascending, for each of `sizes`."""
        return tuple(np.sort(self.calls_ms[size]).tolist() for size in self.sizes)

    @property
    def capacity_per_s(self) -> float:
        """The most samples a second that streams which never wait answer."""
        return max(map(self._per_s, self.sizes))

    def alone_ms(self, ratio: float) -> float:
        """Returns the quantile of the time of one sample that waits for nothing."""
        return float(np.quantile(self.calls_ms[1], ratio))

    @property
    def stalled_ratio(self) -> float:
        """The share of the time that went into calls of more than 4 times their median."""
        total_ms = stalled_ms = 0.0
        for calls_ms in self.calls_ms.values():
            total_ms += float(calls_ms.sum())
            stalled_ms += float(calls_ms[calls_ms > _STALL * np.median(calls_ms)].sum())
        return stalled_ms / total_ms

    def up_to(self, max_batch_size: int) -> CallTimes:
        """Returns the times of the batch sizes that are not larger."""
        kept = {size: ms for size, ms in self.calls_ms.items() if size <= max_batch_size}
        return CallTimes(self.setting, kept)

    def _per_s(self, size: int) -> float:
        return 1e3 * self.setting.streams * size / float(self.calls_ms[size].mean())


class Resampled:
    """A service for the simulator: each batch takes as long as some measured call of its size.

    Between measured sizes the quantiles are interpolated: the batch is as unlucky as a
    call of the size below and one of the size above would be. Calls are drawn independently
    of each other, so a slow spell of the machine is spread over all the time.
    """

    def __init__(self, times: CallTimes, rng: np.random.Generator) -> None:
        self._sizes, self._ordered_ms = times.sizes, times.ordered_ms
        self._rng = rng
        self._luck: list[float] = []

    def __call__(self, batch: Batch) -> float:
        return self.at(batch.size, self._draw())

    def at(self, size: int, luck: float) -> float:
        """Returns the time of a batch that is slower than a share of `luck` of its kind."""
        after = bisect_right(self._sizes, size)
        low = self._at(after - 1, luck)
        if self._sizes[after - 1] == size:
            return low
        if after == len(self._sizes):
            return low * size / self._sizes[-1]
        share = (size - self._sizes[after - 1]) / (self._sizes[after] - self._sizes[after - 1])
        return low + share * (self._at(after, luck) - low)

    def _at(self, place: int, luck: float) -> float:
        ordered = self._ordered_ms[place]
        return ordered[int(luck * len(ordered))]

    def _draw(self) -> float:
        if not self._luck:
            self._luck = self._rng.random(_DRAWN).tolist()
        return self._luck.pop()
