# SPDX-License-Identifier: Apache-2.0
"""The requests of one shape bucket that wait, in the order in which they run."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from burnish.serving.latency_model import LatencyModel
from burnish.serving.request import Axes, Request

_FIRST_TRIAL, _SELDOM = 16, 256
"""Full batches from one trial to the next: at first, and at most, where none changed b*."""

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
    passed_over: bool = False
    """Whether one behind it ran first, being nearer in size to the first in line."""
    running_batches: set[int] = field(default_factory=set)


def _key(entry: Entry) -> Key:
    return entry.key


class Lane:
    """One bucket's queue: priority first, then the earliest deadline, then who came first."""

    def __init__(
        self, bucket: Axes, shape: ServedShape, sizes: Callable[[ServedShape], tuple[int, int]]
    ) -> None:
        """`sizes` gives b* and the largest batch for what is known of the shape; it is asked
        when predictions change."""
        self.bucket = bucket
        self.shape = shape
        self.rows = 0
        """Rows that wait."""
        self.entries: list[Entry] = []
        self._sizes = sizes
        self._best = 0
        self._until_trial = self._between_trials = _FIRST_TRIAL
        self.reshape(shape)

    def reshape(self, shape: ServedShape) -> None:
        """Takes what is known of a new model."""
        self.shape = shape
        best, self._largest = self._sizes(shape)
        if best != self._best:
            self._until_trial = self._between_trials = _FIRST_TRIAL
        self._best = best
        self._settled = shape.latency.settled

    @property
    def best_batch_size(self) -> int:
        """b*, by the latency model as it is now."""
        if self.shape.latency.settled != self._settled:
            self.reshape(self.shape)
        return self._best

    def next_size(self) -> int:
        """Returns how many rows the next batch takes: those that wait, b* at most.

        Where more wait it is now and then twice as many: the times of sizes that never ran
        are guessed from those that did, and what a call costs besides its rows, the cost
        that larger batches save, cannot be told from a model that is slower as a whole.
        Trials become rare while they teach nothing.
        """
        size = self.best_batch_size
        if self.rows > size:
            self._until_trial -= 1
            if not self._until_trial:
                self._between_trials = min(2 * self._between_trials, _SELDOM)
                self._until_trial = self._between_trials
                size = min(2 * size, self._largest)
        return min(size, self.rows)

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
