# SPDX-License-Identifier: Apache-2.0
"""The queue of one model: who runs next, with whom, and on which stream.

Work-conserving: a batch starts when a stream is free and something waits, with what there
is, up to b*; no timer, unless `linger_ms` asks for one. Rows run in the order of priority,
then deadline, then arrival; the bucket of the first one runs. A request of more rows than
there is room for is split: its parts say which rows they are, and it is answered when all
of them ran. Batches are never made smaller so that the oldest request is still in time,
which costs the throughput that all others need; that request is dropped instead.

Each event is a call, followed by `dispatch`:

    offer      a request arrives           rejected at once, or waits
    complete   a batch has run             gives the requests that are now answered
    fail       a batch could not be run    gives the requests that failed with it
    cancel     a client went away
    (time)     at `wake_ms`

Sources: work-conserving batching as in Inoue, "Queueing analysis of GPU-based inference
servers with dynamic batching", 2021, §2; early drop by Shen et al., "Nexus", 2019, §6.3.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from burnish.core.errors import Broken
from burnish.serving.admission import (
    Backlog,
    Reason,
    Rejection,
    Waiting,
    displaces,
    over_limits,
    too_late,
)
from burnish.serving.batching import Batching
from burnish.serving.lane import Entry, Key, Lane, ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.picking import pick
from burnish.serving.request import Axes, Batch, Part, Request

_MOST_RESERVED = 1 / 3


class Dispatch(NamedTuple):
    """What `dispatch` decided."""

    batches: tuple[Batch, ...]
    """To be run now."""
    dropped: tuple[tuple[Request, Rejection], ...]
    """To be told that they will not be answered."""


class _Running(NamedTuple):
    batch: Batch
    latency: LatencyModel  # the one in force when it started: a hot swap may come between
    free_ms: float


class Batcher:
    """The policy of one model; see the module for its rules and its events."""

    def __init__(self, batching: Batching, shape_for: Callable[[Axes], ServedShape]) -> None:
        """`shape_for` gives what is known of a bucket, when its first request comes."""
        self.batching = batching
        self.reserve_ms = 0.0
        """What an answer takes besides its batches; kept free when a request is let in."""
        self._shape_for = shape_for
        self._lanes: dict[Axes, Lane] = {}
        self._entries: dict[int, Entry] = {}
        self._running: dict[int, _Running] = {}
        self._idle = list(range(batching.streams))
        self._waiting_requests = 0
        self._waiting_bytes = 0
        self._deadlines: list[tuple[float, int]] = []
        self._arrivals = itertools.count()
        self._batch_ids = itertools.count()

    @property
    def waiting(self) -> Waiting:
        """The requests of which rows wait, and the bytes that they hold."""
        return Waiting(self._waiting_requests, self._waiting_bytes)

    @property
    def idle_streams(self) -> int:
        """Streams on which nothing runs."""
        return len(self._idle)

    def offer(self, request: Request, now_ms: float) -> Rejection | None:
        """Takes a request in, or returns why not.

        Raises `Misuse` when it is larger than the declared padding.
        """
        if request.id in self._entries:
            raise Broken(f"request {request.id} was offered twice")
        lane = self._lane(self.batching.padding.bucket(request.axes))
        key = (request.priority, request.deadline_ms, next(self._arrivals))
        limits = self.batching.limits
        if request.deadline_ms < math.inf or not limits.hold(self.waiting, request.size_bytes):
            backlog = self._backlog(lane, key, now_ms)
            rejection = over_limits(request.size_bytes, self.waiting, limits, backlog)
            if rejection is None:
                rejection = self._in_time(request, lane, key, backlog)
            if rejection is not None:
                return rejection
        entry = Entry(request, lane.bucket, key, request.rows)
        self._entries[request.id] = entry
        lane.add(entry)
        self._waiting_requests += 1
        self._waiting_bytes += request.size_bytes
        if request.deadline_ms < math.inf:
            self._remember(request)
        return None

    def foresee(self, coming: int, now_ms: float) -> Rejection | None:
        """Returns why a request would be refused of which nothing is known, or None.

        For a model of one bucket: the request is taken to be of one row, of the highest
        priority, and due by the SLO, and to come after `coming` others that are on their way.
        """
        lane = self._lane(())
        deadline_ms = self.batching.deadline_ms(now_ms)
        backlog = self._backlog(lane, (0, deadline_ms, math.inf), now_ms)
        backlog = backlog._replace(rows_ahead=backlog.rows_ahead + coming)
        rejection = over_limits(0, self.waiting, self.batching.limits, backlog)
        if rejection is not None or not self._waiting_requests + coming:
            return rejection
        alone_ms = lane.shape.latency.promised_ms(1)
        return too_late(1, self._due_ms(deadline_ms, now_ms), alone_ms, backlog, runs_now=False)

    def dispatch(self, now_ms: float) -> Dispatch:
        """Returns the batches to start now, and the requests that have become too late."""
        batches: list[Batch] = []
        dropped = self._expired(now_ms)
        while self._idle:
            ready = [lane for lane in self._lanes.values() if self._ready_ms(lane) <= now_ms]
            if not ready:
                break
            batch, late = self._form(min(ready, key=lambda lane: lane.head), now_ms)
            dropped += late
            if batch is not None:
                batches.append(batch)
        if not dropped:
            return Dispatch(tuple(batches), ())
        for entry in dropped:
            self._forget(entry)
        rejection = Rejection(Reason.LATE, self._next_free_ms(now_ms) - now_ms)
        return Dispatch(tuple(batches), tuple((entry.request, rejection) for entry in dropped))

    def wake_ms(self) -> float:
        """Returns when `dispatch` must be called again if nothing happens before, or infinity."""
        ready_ms = min(map(self._ready_ms, self._lanes.values()), default=math.inf)
        self._skim_deadlines()
        late_ms = self._deadlines[0][0] if self._deadlines else math.inf
        return min(ready_ms, late_ms) if self._idle else late_ms

    def complete(self, batch_id: int, now_ms: float) -> tuple[Request, ...]:
        """Returns the requests whose last rows ran in this batch; its stream is free again."""
        running = self._free(batch_id)
        elapsed_ms = now_ms - running.batch.started_ms
        if elapsed_ms > 0:
            running.latency.update(running.batch.size, elapsed_ms)
        answered = []
        for part in running.batch.parts:
            entry = self._entries.get(part.request_id)
            if entry is None or batch_id not in entry.running_batches:
                continue  # cancelled, dropped, or failed with another of its parts
            entry.running_batches.remove(batch_id)
            if not entry.waiting_rows and not entry.running_batches:
                del self._entries[part.request_id]
                answered.append(entry.request)
        return tuple(answered)

    def fail(self, batch_id: int) -> tuple[Request, ...]:
        """Returns the requests that cannot be answered, since this batch could not be run."""
        running = self._free(batch_id)
        failed = []
        for part in running.batch.parts:
            entry = self._entries.get(part.request_id)
            if entry is not None and batch_id in entry.running_batches:
                self._forget(entry)
                failed.append(entry.request)
        return tuple(failed)

    def cancel(self, request_id: int) -> bool:
        """Forgets a request and returns True, or False when it was over already.

        Rows of it that run go on, and nobody hears of them.
        """
        entry = self._entries.get(request_id)
        if entry is None:
            return False
        self._forget(entry)
        return True

    def refit(self, shape_for: Callable[[Axes], ServedShape]) -> None:
        """Takes what is known of the model that was swapped in; batches that run still count
        for the one that they started with."""
        self._shape_for = shape_for
        for lane in self._lanes.values():
            lane.reshape(shape_for(lane.bucket))

    def _sizes(self, shape: ServedShape) -> tuple[int, int]:
        bounds = (self.batching.slo_ms, shape.row_bytes, self.batching.batch_memory_bytes)
        return shape.latency.best_batch_size(*bounds), shape.latency.largest_batch_size(*bounds)

    def _lane(self, bucket: Axes) -> Lane:
        """Returns the bucket's lane, as the most recently used one."""
        known = self._lanes.get(bucket)
        if known is not None and len(self._lanes) == 1:
            return known
        lane = self._lanes.pop(bucket, None) or Lane(bucket, self._shape_for(bucket), self._sizes)
        spare = len(self._lanes) + 1 - self.batching.max_buckets
        if spare > 0:
            empty = [other for other, kept in self._lanes.items() if not kept.entries]
            for other in empty[:spare]:
                del self._lanes[other]
        self._lanes[bucket] = lane
        return lane

    def _backlog(self, lane: Lane, key: Key, now_ms: float) -> Backlog:
        free_ms = [now_ms] * len(self._idle)
        free_ms += [max(now_ms, running.free_ms) for running in self._running.values()]
        others_ms = 0.0
        for other in self._lanes.values():
            if other is not lane and other.entries:
                size = other.best_batch_size
                batches = -(-other.rows_before(key) // size)
                others_ms += batches * other.shape.latency.promised_ms(size)
        size = lane.best_batch_size
        return Backlog(
            now_ms=now_ms,
            free_ms=tuple(sorted(free_ms)),
            rows_ahead=lane.rows_before(key),
            batch_size=size,
            batch_ms=lane.shape.latency.promised_ms(size),
            others_ms=others_ms,
        )

    def _in_time(
        self, request: Request, lane: Lane, key: Key, backlog: Backlog
    ) -> Rejection | None:
        size, latency = backlog.batch_size, lane.shape.latency
        runs_now = (
            len(self._idle) * size >= request.rows
            and not self._waiting_requests
            and not self.batching.linger_ms
        )
        likely_ms = latency.hoped_ms if runs_now else latency.promised_ms
        rounds = math.ceil(request.rows / (size * self.batching.streams))
        alone_ms = rounds * likely_ms(min(request.rows, size))
        # What runs at once is tried in any case: it shows how late answers come.
        due_ms = request.deadline_ms
        if not runs_now:
            due_ms = self._due_ms(due_ms, backlog.now_ms)
        return too_late(request.rows, due_ms, alone_ms, backlog, runs_now) or (
            displaces(request.rows, lane.behind(key), backlog)
        )

    def _due_ms(self, deadline_ms: float, now_ms: float) -> float:
        """Returns by when a batch must have run for its answer to be there in time."""
        return deadline_ms - min(self.reserve_ms, _MOST_RESERVED * (deadline_ms - now_ms))

    def _remember(self, request: Request) -> None:
        """Notes the deadline; those of requests that are over are cleared out in time."""
        heapq.heappush(self._deadlines, (request.deadline_ms, request.id))
        if len(self._deadlines) > 2 * self._waiting_requests + 64:
            self._deadlines = [one for one in self._deadlines if self._waits(one[1])]
            heapq.heapify(self._deadlines)

    def _waits(self, request_id: int) -> bool:
        entry = self._entries.get(request_id)
        return entry is not None and entry.waiting_rows > 0

    def _skim_deadlines(self) -> None:
        while self._deadlines and not self._waits(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)

    def _expired(self, now_ms: float) -> list[Entry]:
        """Takes out, and returns, the requests whose deadlines passed while they waited."""
        expired = []
        self._skim_deadlines()
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            entry = self._entries[heapq.heappop(self._deadlines)[1]]
            self._leave(entry)
            expired.append(entry)
            self._skim_deadlines()
        return expired

    def _ready_ms(self, lane: Lane) -> float:
        """Returns since when the lane's next batch could start, or infinity if it is empty."""
        size = lane.best_batch_size
        if not lane.entries:
            return math.inf
        if not self.batching.linger_ms or lane.rows >= size:
            return -math.inf
        oldest_ms = min(entry.request.arrival_ms for entry in lane.entries)
        due_ms = min(entry.request.deadline_ms for entry in lane.entries)
        slack_ms = due_ms - lane.shape.latency.promised_ms(size)
        return min(oldest_ms + self.batching.linger_ms, slack_ms)

    def _form(self, lane: Lane, now_ms: float) -> tuple[Batch | None, list[Entry]]:
        """Starts the lane's next batch; returns it, and the requests dropped on the way.

        A request that a batch of this size would answer too late is dropped. Only when that
        leaves nothing to run is a smaller batch tried, and at last a single row that would
        be in time if the model were as fast as its table says: the stream has nothing else
        to do, and a model that was slow for a while must be seen to be fast again.
        """
        latency = lane.shape.latency
        size = lane.next_size()
        chosen, late = pick(lane, size, now_ms, latency.expected_ms(size))
        while not chosen and size > 1:
            size //= 2
            chosen, late = pick(lane, size, now_ms, latency.expected_ms(size))
        if not chosen:
            chosen, late = pick(lane, 1, now_ms, latency.hoped_ms(1))
        for entry in late:
            self._leave(entry)
        if not chosen:
            return None, late
        batch_id = next(self._batch_ids)
        parts: list[Part] = []
        filled = 0
        for entry, rows in chosen:
            whole = rows == entry.waiting_rows
            parts.append(Part(entry.request.id, lane.take(entry, rows), rows, filled))
            entry.running_batches.add(batch_id)
            filled += rows
            if whole:
                self._left(entry)
        batch = Batch(batch_id, self._idle.pop(0), lane.bucket, tuple(parts), now_ms)
        free_ms = now_ms + latency.promised_ms(filled)
        self._running[batch_id] = _Running(batch, latency, free_ms)
        return batch, late

    def _next_free_ms(self, now_ms: float) -> float:
        if self._idle:
            return now_ms
        return max(now_ms, min(running.free_ms for running in self._running.values()))

    def _free(self, batch_id: int) -> _Running:
        running = self._running.pop(batch_id, None)
        if running is None:
            raise Broken(f"batch {batch_id} is not running")
        self._idle.append(running.batch.stream)
        return running

    def _leave(self, entry: Entry) -> None:
        """Takes what waits of a request out of its lane."""
        if entry.waiting_rows:
            self._lanes[entry.bucket].remove(entry)
            self._left(entry)

    def _left(self, entry: Entry) -> None:
        self._waiting_requests -= 1
        self._waiting_bytes -= entry.request.size_bytes

    def _forget(self, entry: Entry) -> None:
        self._leave(entry)
        del self._entries[entry.request.id]
