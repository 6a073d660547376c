# SPDX-License-Identifier: Apache-2.0
"""The requests of one shape bucket that wait, in the order in which they run."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from burnish.serving.latency_model import LatencyModel
from burnish.serving.request import Axes, Request

Key = tuple[int, float, float]
"""Priority, deadline, order of arrival."""


@dataclass(frozen=True)
class ServedShape:
    """What is known of one bucket: its latency, and the memory of one of its rows."""

    latency: LatencyModel
    row_bytes: int = 0
    """Inputs and outputs of one padded row."""


@dataclass
class Entry:
    """A request on its way: rows wait, run, or are done."""

    request: Request
    bucket: Axes
    key: Key
    waiting_rows: int
    """Not yet in a batch; the last ones of the request."""
    running_batches: set[int] = field(default_factory=set)


def _key(entry: Entry) -> Key:
    return entry.key


class Lane:
    """One bucket's queue: priority first, then the earliest deadline, then who came first."""

    def __init__(self, bucket: Axes, shape: ServedShape, cap: Callable[[ServedShape], int]) -> None:
        """`cap` gives b* for what is known of the shape; it is asked when predictions change."""
        self.bucket = bucket
        self.shape = shape
        self.rows = 0
        """Rows that wait."""
        self.entries: list[Entry] = []
        self._cap = cap
        self._best = cap(shape)
        self._settled = shape.latency.settled

    def reshape(self, shape: ServedShape) -> None:
        """Takes what is known of a new model."""
        self.shape = shape
        self._best = self._cap(shape)
        self._settled = shape.latency.settled

    @property
    def best_batch_size(self) -> int:
        """b*, by the latency model as it is now."""
        if self.shape.latency.settled != self._settled:
            self.reshape(self.shape)
        return self._best

    @property
    def head(self) -> Key:
        """Where the first request stands; the lane must not be empty."""
        return self.entries[0].key

    def add(self, entry: Entry) -> None:
        """Puts a request in its place."""
        insort(self.entries, entry, key=_key)
        self.rows += entry.waiting_rows

    def remove(self, entry: Entry) -> None:
        """Takes a request out."""
        place = bisect_left(self.entries, entry.key, key=_key)
        del self.entries[place]
        self.rows -= entry.waiting_rows
        entry.waiting_rows = 0

    def take(self, entry: Entry, rows: int) -> int:
        """Takes the next rows of a request out, and returns the first one's place in it."""
        first = entry.request.rows - entry.waiting_rows
        if rows == entry.waiting_rows:
            self.remove(entry)
        else:
            entry.waiting_rows -= rows
            self.rows -= rows
        return first

    def rows_before(self, key: Key) -> int:
        """Returns how many rows run before a request that stands at `key`."""
        if not self.entries or self.entries[-1].key < key:
            return self.rows
        place = bisect_left(self.entries, key, key=_key)
        return sum(entry.waiting_rows for entry in self.entries[:place])

    def behind(self, key: Key) -> Iterator[tuple[int, float]]:
        """Yields rows and deadlines of the requests of equal priority that run after `key`."""
        for entry in self.entries[bisect_left(self.entries, key, key=_key) :]:
            if entry.key[0] != key[0]:
                return
            yield entry.waiting_rows, entry.request.deadline_ms
