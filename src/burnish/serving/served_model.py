# SPDX-License-Identifier: Apache-2.0
"""One version of one model, answering: its policy, its streams, and its requests.

The event loop offers requests; the streams' threads run batches and take the next ones
themselves, so the policy is shared and a lock guards it, held for microseconds. All that
belongs to a request (its future, the counts) is touched on the event loop only.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import BurnishError
from burnish.engines.engine import Session
from burnish.serving.admission import Rejection
from burnish.serving.batch_runner import Asked, BatchRunner, Ran, now_ms
from burnish.serving.batcher import Batcher, Dispatch
from burnish.serving.batching import Batching
from burnish.serving.bucket_shapes import BucketShapes
from burnish.serving.counts import ModelCounts
from burnish.serving.landing import Landing
from burnish.serving.loop_lag import LoopLag
from burnish.serving.oip.faults import OUR_FAULT, Fault
from burnish.serving.refusals import CANNOT_NOW, Refused, refusal
from burnish.serving.request import Batch, Request
from burnish.serving.rows import Arrays, Rows
from burnish.serving.streams import Streams

_log = logging.getLogger(__name__)

_WARM_UP_S = 5.0
_LARGE_BODY_BYTES = 64 * 1024


class Answer(NamedTuple):
    """The outputs of a request, views of its batch's, and what it waited for, in milliseconds."""

    outputs: Mapping[str, NDArray[Any]]
    queue_ms: float
    gather_ms: float
    run_ms: float
    batch_size: int


@dataclass(slots=True)
class _Call:
    """A request on its way."""

    request: Request
    inputs: Arrays
    future: asyncio.Future[Answer]
    parts: list[tuple[int, Arrays]] = field(default_factory=list)
    started_ms: float = math.nan


class ServedModel:
    """A model that answers. Made and used on one event loop; see the module.

    `closed` is called once, on a thread, when the last request was answered after `retire`.
    """

    def __init__(
        self,
        name: str,
        version: str,
        session: Session,
        rows: Rows,
        batching: Batching,
        table: list[tuple[int, float]],
        max_batch_size: int,
        labels: tuple[str, ...] = (),
        table_axes: Mapping[str, int] | None = None,
    ) -> None:
        """`table`: milliseconds by batch size, as measured, with all streams busy.

        `table_axes`: the sizes of the free axes that it was measured at.
        """
        self.name, self.version = name, version
        self.session, self.rows, self.labels = session, rows, labels
        self.signature = session.signature
        self.output_names = tuple(spec.name for spec in session.signature.outputs)
        self.max_batch_size = max_batch_size if rows.batched else 1
        self.batching = batching
        self.counts = ModelCounts()
        self._shapes = BucketShapes(
            rows, batching.padding, table, table_axes or {}, self.max_batch_size
        )
        self.landing = Landing(rows)
        """Where bodies are received."""
        self._runner = BatchRunner(
            session, rows, self.landing, batching.streams, batching.max_buckets
        )
        self._batcher = Batcher(batching, self._shapes.known)
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._next_id = 0
        self._coming = 0
        """Requests whose bodies are being received."""
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._wake_ms = math.inf
        self._retired = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._lag = LoopLag()
        self._streams: Streams[Batch] = Streams(
            f"{name}-{version}",
            batching.streams,
            self._run,
            giving_way=batching.slo_ms < math.inf,
            one_a_core=session.setting.threads == 1,
        )

    @property
    def waiting(self) -> int:
        """Requests that wait for a stream."""
        return self._batcher.waiting.requests

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._calls)

    def best_batch_size(self) -> int:
        """Returns the rows that a full batch has by now."""
        return self._shapes.known(()).latency.best_batch_size(self.batching.slo_ms)

    def warm_up(self) -> None:
        """Runs a batch of each size that traffic may bring, for some seconds at most; blocks.

        Engines prepare for a shape when they first see it, which takes longer than to run it.
        """
        bucket = self._shapes.usual
        until_s = time.monotonic() + _WARM_UP_S
        sizes = dict.fromkeys([1, self.max_batch_size, *range(2, self.max_batch_size)])
        for rows in sizes:
            self.session.execute(self.rows.zeros(rows, bucket))
            if rows > 1 and time.monotonic() > until_s:
                break

    def expect_body(self, size_bytes: int) -> bool:
        """Counts a request whose body, of `size_bytes`, is about to be received.

        Returns whether `body_over` must be called when it has come, or will not come. Raises
        `Refused` when it could not be answered in time whatever it holds: to receive a large
        body only to refuse it would cost the others their time.
        """
        if size_bytes < _LARGE_BODY_BYTES or self._shapes.free_axes:
            return False
        with self._lock:
            rejection = self._batcher.foresee(self._coming, now_ms())
        if rejection is not None:
            self._count(rejection)
            raise refusal(self.name, rejection)
        self._coming += 1
        return True

    def body_over(self) -> None:
        """Takes back what `expect_body` counted."""
        self._coming -= 1

    def submit(
        self, inputs: Arrays, timeout_ms: float = math.inf, priority: int = 0
    ) -> asyncio.Future[Answer]:
        """Returns the answer to come. Cancelling it takes the request out of the queue.

        Raises `Fault` when the inputs do not fit, and `Refused` when the request cannot be
        answered in time; the future raises `Refused` when it became too late on the way.
        """
        arrival_ms = now_ms()
        if self._retired:
            raise Refused(f"the model {self.name!r} is being unloaded", CANNOT_NOW, None)
        shape = self.rows.shape(inputs)
        inputs = self.rows.readable(inputs)
        self._next_id += 1
        request = Request(
            id=self._next_id,
            rows=shape.rows,
            arrival_ms=arrival_ms,
            deadline_ms=self.batching.deadline_ms(arrival_ms, timeout_ms),
            priority=priority,
            axes=shape.axes,
            size_bytes=shape.size_bytes,
        )
        call = _Call(request, inputs, self._loop.create_future())
        self._calls[request.id] = call  # before a thread can ask for it
        try:
            with self._lock:
                rejection = self._batcher.offer(request, arrival_ms)
                decided = self._batcher.dispatch(arrival_ms) if rejection is None else None
        except BurnishError as error:  # larger than the declared padding
            del self._calls[request.id]
            raise Fault(str(error)) from error
        if decided is None:
            assert rejection is not None
            del self._calls[request.id]
            self._count(rejection)
            raise refusal(self.name, rejection)
        self._idle.clear()
        call.future.add_done_callback(lambda future: self._over(request.id, future))
        self._start(decided)
        self._drop(decided)
        if self.batching.linger_ms or request.deadline_ms < self._wake_ms:
            self._set_wake()
        return call.future

    async def retire(self) -> None:
        """Takes no more requests, waits until those that came are answered, and closes."""
        self._retired = True
        await self._idle.wait()
        self._streams.close()
        await asyncio.to_thread(self._streams.join)
        self.session.close()

    # On the streams' threads.

    def _run(self, stream: int, batch: Batch) -> Batch | None:
        """Runs a batch, posts what came of it, and returns the next one for this stream."""
        calls = [self._calls.get(part.request_id) for part in batch.parts]
        asked = [Asked(call.inputs, call.request.axes) if call else None for call in calls]
        ran = self._runner.run(stream, batch, asked)
        with self._lock:
            if ran.error is None:
                answered = self._batcher.complete(batch.id, ran.ended_ms)
            else:
                answered = self._batcher.fail(batch.id)
            decided = self._batcher.dispatch(ran.ended_ms)
        following = None
        for other in decided.batches:
            if other.stream == stream:
                following = other
            else:
                self._streams.put(other.stream, other)
        try:
            self._loop.call_soon_threadsafe(self._ran, ran, answered, decided)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _log.info("dropped model=%s batch=%d reason=loop-closed", self.name, batch.id)
        return following

    # On the event loop.

    def _start(self, decided: Dispatch) -> None:
        for batch in decided.batches:
            self._streams.put(batch.stream, batch)

    def _ran(self, ran: Ran, answered: tuple[Request, ...], decided: Dispatch) -> None:
        """Hands out what a batch gave."""
        heard_ms = now_ms()
        self._lag.add(heard_ms - ran.ended_ms)
        self._batcher.reserve_ms = self._lag.reserve_ms
        size = ran.batch.size
        self.counts.batches[size] += 1
        self.counts.batch_ms[size] = self.counts.batch_ms.get(size, 0.0) + ran.run_ms
        if ran.error is not None:
            _log.error("failed model=%s batch=%d error=%r", self.name, size, ran.error)
            self._fail(answered, ran.error, heard_ms)
        else:
            self._share_out(ran)
            self._answer(answered, ran, heard_ms)
        self._drop(decided)
        self._set_wake()

    def _share_out(self, ran: Ran) -> None:
        for part, piece in zip(ran.batch.parts, ran.pieces, strict=True):
            call = self._calls.get(part.request_id)
            if call is None:
                continue
            if not call.parts:
                call.started_ms = ran.batch.started_ms
            taken = self.rows.take(ran.outputs, piece, call.request.axes)
            call.parts.append((part.first_row, taken))

    def _answer(self, answered: tuple[Request, ...], ran: Ran, heard_ms: float) -> None:
        counts, size, n = self.counts, ran.batch.size, 0
        queue = counts.stages["queue"]
        for request in answered:
            call = self._calls.get(request.id)
            if call is None or call.future.done():
                continue
            n += 1
            queue_ms = call.started_ms - request.arrival_ms
            queue.add(queue_ms)
            counts.rows += request.rows
            counts.in_slo += heard_ms <= request.deadline_ms
            outputs = _joined(call.parts)
            call.future.set_result(Answer(outputs, queue_ms, ran.gather_ms, ran.run_ms, size))
        if n:
            counts.answered += n
            counts.last_answer_s = time.time()
            counts.stages["gather"].add(ran.gather_ms, n)
            counts.stages["run"].add(ran.run_ms, n)

    def _fail(self, failed: tuple[Request, ...], error: BaseException, heard_ms: float) -> None:
        told = str(error) if isinstance(error, BurnishError) else "the model failed to run"
        for request in failed:
            call = self._calls.get(request.id)
            if call is None or call.future.done():
                continue
            self.counts.failed += 1
            self.counts.failed_ms += heard_ms - request.arrival_ms
            call.future.set_exception(Fault(f"{self.name}: {told}", OUR_FAULT))

    def _drop(self, decided: Dispatch) -> None:
        for request, rejection in decided.dropped:
            call = self._calls.get(request.id)
            if call is not None and not call.future.done():
                self._count(rejection)
                call.future.set_exception(refusal(self.name, rejection))

    def _over(self, request_id: int, future: asyncio.Future[Answer]) -> None:
        if future.cancelled():
            with self._lock:
                self._batcher.cancel(request_id)
            self.counts.cancelled += 1
        del self._calls[request_id]
        if not self._calls:
            self._idle.set()

    def _count(self, rejection: Rejection) -> None:
        self.counts.rejections[rejection.reason.name.lower()] += 1

    def _set_wake(self) -> None:
        """Asks the policy again when it has to be: a deadline passes, a linger ends.

        A timer that is set for earlier stays: it costs less to wake once for nothing than
        to move it with every request.
        """
        with self._lock:
            wake_ms = self._batcher.wake_ms()
        if wake_ms >= self._wake_ms:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_ms = wake_ms
        delay_s = max(0.0, wake_ms - now_ms()) / 1e3
        self._wake = self._loop.call_later(delay_s, self._woken)

    def _woken(self) -> None:
        self._wake, self._wake_ms = None, math.inf
        with self._lock:
            decided = self._batcher.dispatch(now_ms())
        self._start(decided)
        self._drop(decided)
        self._set_wake()


def _joined(parts: list[tuple[int, Arrays]]) -> Arrays:
    """Returns a request's outputs from the batches that its rows ran in."""
    if len(parts) == 1:
        return parts[0][1]
    ordered = [outputs for _, outputs in sorted(parts, key=lambda part: part[0])]
    return {name: np.concatenate([one[name] for one in ordered]) for name in ordered[0]}
