# SPDX-License-Identifier: Apache-2.0
"""What must hold of the batcher whatever arrives, ends, fails or goes away."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.serving.admission import Limits, Reason
from burnish.serving.batcher import Batcher, Dispatch
from burnish.serving.batching import Batching
from burnish.serving.lane import ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.request import Axes, Batch, Request
from burnish.serving.shape_buckets import Padding

LINEAR = [(1, 5.0), (8, 12.0), (32, 36.0)]  # 4 + b
PADDING = Padding({"sequence": (16, 32, 64)})


def linear(bucket: Axes = ()) -> ServedShape:
    return ServedShape(LatencyModel(LINEAR))


class Recorder:
    """Drives a batcher and checks, at every step, what must always hold."""

    def __init__(self, batching: Batching) -> None:
        self.batcher = Batcher(batching, linear)
        self.now_ms = 0.0
        self.requests: dict[int, Request] = {}
        self.ends: Counter[int] = Counter()
        self.rows: dict[int, list[tuple[int, int]]] = {}
        self.running: dict[int, Batch] = {}
        self.queue: dict[int, int] = {}  # rows that wait, by request: kept independently
        self.answered: set[int] = set()
        self.passed_over: set[int] = set()

    def offer(self, request: Request) -> None:
        self.requests[request.id] = request
        self.rows[request.id] = []
        if self.batcher.offer(request, self.now_ms) is None:
            self.queue[request.id] = request.rows
        else:
            self.ends[request.id] += 1
        self.step()

    def step(self) -> Dispatch:
        before = dict(self.queue)
        decided = self.batcher.dispatch(self.now_ms)
        for request, rejection in decided.dropped:
            assert rejection.reason is Reason.LATE
            self.ends[request.id] += 1
            self.queue.pop(request.id)
        dropped = {request.id for request, _ in decided.dropped}
        for batch in decided.batches:
            self.start(batch, before, dropped)
        limits = self.batcher.batching.limits
        held = sum(self.requests[one].size_bytes for one in self.queue)
        assert (len(self.queue), held) == (
            self.batcher.waiting.requests,
            self.batcher.waiting.size_bytes,
        )
        assert len(self.queue) <= limits.requests
        assert held <= limits.size_bytes
        if not self.batcher.batching.linger_ms:
            assert not (self.queue and self.batcher.idle_streams), "idle while something waits"
        return decided

    def start(self, batch: Batch, before: dict[int, int], dropped: set[int]) -> None:
        streams = {other.stream for other in self.running.values()}
        assert batch.stream not in streams
        assert 0 <= batch.stream < self.batcher.batching.streams
        assert 1 <= batch.size <= 32
        self.running[batch.id] = batch
        row = 0
        for part in batch.parts:
            assert part.batch_row == row
            row += part.rows
            request = self.requests[part.request_id]
            assert PADDING.bucket(request.axes) == batch.bucket
            assert part.first_row == request.rows - self.queue[part.request_id]
            self.rows[part.request_id].append((part.first_row, part.rows))
            self.queue[part.request_id] -= part.rows
            if not self.queue[part.request_id]:
                del self.queue[part.request_id]

        def place(one: int) -> tuple[int, float]:
            return self.requests[one].priority, self.requests[one].deadline_ms

        last = max(place(part.request_id) for part in batch.parts)
        for other in self.queue:
            request = self.requests[other]
            if PADDING.bucket(request.axes) != batch.bucket or other not in before:
                continue
            if place(other) < last:  # one of like size went first
                assert request.priority == last[0], "a higher priority was passed over"
                assert {self.requests[part.request_id].axes for part in batch.parts} != {
                    request.axes
                }, "a request was passed over for others of its size"
                assert other not in self.passed_over, "a request was passed over twice"
                assert request.deadline_ms > self.now_ms, "a request in a hurry was passed over"
                self.passed_over.add(other)

    def finish(self, which: int, failed: bool) -> None:
        batch = self.running.pop(sorted(self.running)[which % len(self.running)])
        if failed:
            ended = self.batcher.fail(batch.id)
            for request in ended:
                self.queue.pop(request.id, None)
        else:
            ended = self.batcher.complete(batch.id, self.now_ms)
            for request in ended:
                parts = sorted(self.rows[request.id])
                assert [first for first, _ in parts] == [
                    sum(rows for _, rows in parts[:index]) for index in range(len(parts))
                ]
                assert sum(rows for _, rows in parts) == request.rows, "parts rejoin exactly"
                self.answered.add(request.id)
        self.ends.update(request.id for request in ended)
        self.step()

    def cancel(self, which: int) -> None:
        known = sorted(self.requests)
        one = known[which % len(known)]
        if self.batcher.cancel(one):
            self.ends[one] += 1
            self.queue.pop(one, None)
        else:
            assert self.ends[one] == 1
        self.step()


REQUESTS = st.tuples(
    st.just("offer"),
    st.integers(1, 80),
    st.one_of(st.just(math.inf), st.floats(0, 300)),
    st.integers(0, 2),
    st.sampled_from([(), *((("sequence", size),) for size in (9, 31, 32, 33, 40, 50, 64))]),
    st.integers(0, 400),
)
STEPS = st.one_of(
    REQUESTS,
    REQUESTS,
    st.tuples(st.just("finish"), st.integers(0, 7), st.floats(0, 60)),
    st.tuples(st.just("fail"), st.integers(0, 7)),
    st.tuples(st.just("cancel"), st.integers(0, 99)),
    st.tuples(st.just("wait"), st.floats(0, 50)),
)
BATCHINGS = st.builds(
    Batching,
    streams=st.integers(1, 3),
    slo_ms=st.sampled_from([math.inf, 60.0, 200.0]),
    limits=st.builds(Limits, requests=st.integers(1, 12), size_bytes=st.integers(1, 2000)),
    linger_ms=st.sampled_from([0.0, 0.0, 10.0]),
    padding=st.just(PADDING),
    max_buckets=st.integers(1, 3),
)


@settings(max_examples=200, deadline=None)
@given(batching=BATCHINGS, steps=st.lists(STEPS, max_size=60))
def test_nothing_is_lost_answered_twice_or_out_of_order(
    batching: Batching, steps: list[tuple]
) -> None:
    run = Recorder(batching)
    for number, (verb, *values) in enumerate(steps):
        if verb == "offer":
            rows, within_ms, priority, axes, size_bytes = values
            deadline_ms = batching.deadline_ms(run.now_ms, within_ms)
            run.offer(Request(number, rows, run.now_ms, deadline_ms, priority, axes, size_bytes))
        elif verb == "wait":
            run.now_ms += values[0]
            run.step()
        elif verb == "cancel" and run.requests:
            run.cancel(values[0])
        elif verb in ("finish", "fail") and run.running:
            run.now_ms += values[1] if verb == "finish" else 0.0
            run.finish(values[0], failed=verb == "fail")
    while run.running or run.queue:
        run.now_ms += 20.0
        if run.running:
            run.finish(0, failed=False)
        else:
            run.step()
    assert run.ends == Counter(dict.fromkeys(run.requests, 1)), "each ends once"
    assert run.batcher.idle_streams == batching.streams


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    within=st.lists(st.floats(20, 500), min_size=30, max_size=30),
    streams=st.integers(1, 3),
    sizes=st.lists(st.integers(33, 64), min_size=30, max_size=30),
)
def test_who_is_let_in_is_in_time_when_the_engine_keeps_its_promise(
    rows: list[int], within: list[float], streams: int, sizes: list[int]
) -> None:
    """With one priority and one bucket, an admitted request is never dropped nor late."""
    batcher = Batcher(Batching(streams=streams, padding=PADDING), linear)
    now_ms, running, admitted = 0.0, [], {}

    def dispatch() -> None:
        decided = batcher.dispatch(now_ms)
        assert not decided.dropped
        for batch in decided.batches:
            running.append((now_ms + 4.0 + batch.size, batch.id))

    for number, (count, within_ms) in enumerate(zip(rows, within, strict=False)):
        axes = (("sequence", sizes[number]),)
        request = Request(number, count, now_ms, now_ms + within_ms, axes=axes)
        if batcher.offer(request, now_ms) is None:
            admitted[number] = request
        dispatch()
        if number % 3 == 2 and running:
            now_ms, batch_id = running.pop(running.index(min(running)))
            for done in batcher.complete(batch_id, now_ms):
                assert now_ms <= admitted.pop(done.id).deadline_ms + 1e-6
            dispatch()
    while running:
        now_ms, batch_id = running.pop(running.index(min(running)))
        for done in batcher.complete(batch_id, now_ms):
            assert now_ms <= admitted.pop(done.id).deadline_ms + 1e-6
        dispatch()
    assert not admitted


@settings(max_examples=200, deadline=None)
@given(
    asked=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2), st.floats(0, 9)), max_size=40),
    slo_ms=st.sampled_from([15.0, 60.0, 200.0, math.inf]),
    streams=st.integers(1, 3),
    queue=st.integers(1, 12),
    reserve_ms=st.sampled_from([0.0, 5.0, 100.0]),
)
def test_who_is_refused_unseen_would_be_refused_when_seen(
    asked: list[tuple[int, int, float]], slo_ms: float, streams: int, queue: int, reserve_ms: float
) -> None:
    """Whatever its rows and priority, a request with the SLO's deadline is never better off."""
    batcher = Batcher(Batching(streams, slo_ms, Limits(requests=queue)), linear)
    batcher.reserve_ms = reserve_ms
    now_ms, running = 0.0, []
    for number, (rows, priority, later_ms) in enumerate(asked):
        now_ms += later_ms
        while running and min(running)[0] <= now_ms:
            ended_ms, batch_id = running.pop(running.index(min(running)))
            batcher.complete(batch_id, ended_ms)
            running += [
                (ended_ms + 4.0 + one.size, one.id) for one in batcher.dispatch(ended_ms)[0]
            ]
        unseen = batcher.foresee(0, now_ms)
        more = batcher.foresee(1, now_ms)
        request = Request(number, rows, now_ms, now_ms + slo_ms, priority)
        seen = batcher.offer(request, now_ms)
        assert unseen is None or seen is not None
        assert unseen is None or more is not None, "others on their way make it no better"
        running += [(now_ms + 4.0 + one.size, one.id) for one in batcher.dispatch(now_ms)[0]]
