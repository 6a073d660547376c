# SPDX-License-Identifier: Apache-2.0
"""The batcher's rules, one by one."""

from __future__ import annotations

import math

import pytest

from burnish.core.errors import Broken, Misuse
from burnish.serving.admission import Limits, Reason
from burnish.serving.batcher import Batcher
from burnish.serving.batching import Batching
from burnish.serving.lane import ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.request import Axes, Batch, Request
from burnish.serving.shape_buckets import Padding

LINEAR = [(1, 5.0), (8, 12.0), (32, 36.0)]  # 4 + b
PADDING = Padding({"sequence": (16, 32, 64)})


def linear(bucket: Axes = ()) -> ServedShape:
    return ServedShape(LatencyModel(LINEAR))


def upto(largest: int) -> ServedShape:
    """Returns a shape for which the best batch is the largest."""
    return ServedShape(LatencyModel([(1, 10.0), (largest, 10.0 + 0.01 * largest)]))


def filled(batching: Batching, shape: ServedShape) -> tuple[Batcher, Batch]:
    """Returns a batcher whose only stream is busy with request 0 from time 0."""
    batcher = Batcher(batching, lambda bucket: shape)
    assert batcher.offer(Request(0, 1, 0.0), 0.0) is None
    (batch,) = batcher.dispatch(0.0).batches
    return batcher, batch


def parts(batch: Batch) -> list[tuple[int, int, int]]:
    return [(part.request_id, part.first_row, part.rows) for part in batch.parts]


def test_a_request_larger_than_the_largest_batch_is_split_over_streams() -> None:
    batcher = Batcher(Batching(streams=2), lambda bucket: upto(8))
    assert batcher.offer(Request(7, 19, 0.0), 0.0) is None
    first, second = batcher.dispatch(0.0).batches
    assert [parts(first), parts(second)] == [[(7, 0, 8)], [(7, 8, 8)]]
    assert batcher.complete(first.id, 10.0) == ()
    (third,) = batcher.dispatch(10.0).batches
    assert parts(third) == [(7, 16, 3)]
    assert batcher.complete(third.id, 20.0) == ()
    assert [request.id for request in batcher.complete(second.id, 21.0)] == [7]


def test_earliest_deadline_first_within_priority() -> None:
    batcher, batch = filled(Batching(), upto(2))
    for number, (deadline_ms, priority) in enumerate(
        [(900.0, 1), (math.inf, 0), (800.0, 0), (700.0, 1), (800.0, 0)], start=1
    ):
        request = Request(number, 1, 0.0, deadline_ms, priority)
        assert batcher.offer(request, 0.0) is None
    order = []
    while batch:
        batcher.complete(batch.id, batch.started_ms + 10.0)
        started = batcher.dispatch(batch.started_ms + 10.0).batches
        batch = started[0] if started else None
        order += [part.request_id for part in batch.parts] if batch else []
    assert order == [3, 5, 2, 4, 1]


def test_the_bucket_with_the_earliest_deadline_runs_and_shapes_do_not_mix() -> None:
    batcher, batch = filled(Batching(padding=PADDING), upto(8))
    for number, (sequence, deadline_ms) in enumerate([(9, 900.0), (40, 300.0), (16, 500.0)], 1):
        request = Request(number, 1, 0.0, deadline_ms, axes=(("sequence", sequence),))
        assert batcher.offer(request, 0.0) is None
    batcher.complete(batch.id, 10.0)
    (long,) = batcher.dispatch(10.0).batches
    assert (long.bucket, parts(long)) == ((("sequence", 64),), [(2, 0, 1)])
    batcher.complete(long.id, 20.0)
    (short,) = batcher.dispatch(20.0).batches
    assert (short.bucket, parts(short)) == ((("sequence", 16),), [(3, 0, 1), (1, 0, 1)])


def test_those_of_like_size_run_together_and_nobody_is_passed_over_twice() -> None:
    batcher, batch = filled(Batching(padding=PADDING), upto(2))
    for number, sequence in enumerate([40, 64, 63, 41, 62, 42, 33, 61], start=1):
        request = Request(number, 1, 0.0, axes=(("sequence", sequence),))
        assert batcher.offer(request, 0.0) is None
    ran = []
    while batch:
        batcher.complete(batch.id, batch.started_ms + 10.0)
        started = batcher.dispatch(batch.started_ms + 10.0).batches
        batch = started[0] if started else None
        ran += [[part.request_id for part in batch.parts]] if batch else []
    assert ran == [[1, 4], [2, 3], [5, 8], [6, 7]]


@pytest.mark.parametrize(("second_due_ms", "together"), [(33.0, [1, 3]), (30.0, [1, 2])])
def test_who_is_in_a_hurry_is_not_passed_over(second_due_ms: float, together: list[int]) -> None:
    """Two batches end at 30.04 ms, and who is passed over runs in the second."""
    batcher, batch = filled(Batching(padding=PADDING), upto(2))
    due_ms = [29.0, second_due_ms, 35.0]
    for number, sequence in enumerate([40, 64, 41], start=1):
        request = Request(number, 1, 0.0, due_ms[number - 1], axes=(("sequence", sequence),))
        assert batcher.offer(request, 0.0) is None
    batcher.complete(batch.id, 10.0)
    (first,) = batcher.dispatch(10.0).batches
    assert [part.request_id for part in first.parts] == together


def test_a_higher_priority_is_not_passed_over() -> None:
    batcher, batch = filled(Batching(padding=PADDING), upto(2))
    for number, (sequence, priority) in enumerate([(40, 0), (64, 0), (41, 1)], start=1):
        request = Request(number, 1, 0.0, priority=priority, axes=(("sequence", sequence),))
        assert batcher.offer(request, 0.0) is None
    batcher.complete(batch.id, 10.0)
    (first,) = batcher.dispatch(10.0).batches
    assert [part.request_id for part in first.parts] == [1, 2]


def test_a_shape_beyond_the_declared_padding_is_refused() -> None:
    batcher = Batcher(Batching(padding=PADDING), linear)
    with pytest.raises(Misuse, match="'sequence' takes at most 64, got 65"):
        batcher.offer(Request(0, 1, 0.0, axes=(("sequence", 65),)), 0.0)


def test_buckets_that_nobody_uses_are_forgotten() -> None:
    asked: list[Axes] = []

    def shape_for(bucket: Axes) -> ServedShape:
        asked.append(bucket)
        return linear()

    batcher = Batcher(Batching(max_buckets=2), shape_for)
    now_ms = 0.0
    for width in [1, 2, 1, 3, 1, 2]:
        batcher.offer(Request(width, 1, now_ms, axes=(("width", width),)), now_ms)
        (batch,) = batcher.dispatch(now_ms).batches
        now_ms += 5.0
        batcher.complete(batch.id, now_ms)
    assert [dict(bucket)["width"] for bucket in asked] == [1, 2, 3, 2]


def test_late_requests_are_dropped_rather_than_shrinking_the_batch() -> None:
    batcher, batch = filled(Batching(), upto(8))
    for number in range(1, 10):
        assert batcher.offer(Request(number, 1, 0.0, 40.0 if number == 1 else 900.0), 0.0) is None
    batcher.complete(batch.id, 35.0)  # the engine stalled
    decided = batcher.dispatch(35.0)
    assert [request.id for request, _ in decided.dropped] == [1]
    assert decided.batches[0].size == 8


def test_a_smaller_batch_is_tried_before_everything_is_dropped() -> None:
    batcher = Batcher(Batching(), linear)
    batcher.offer(Request(0, 1, 0.0), 0.0)
    (batch,) = batcher.dispatch(0.0).batches
    for number in range(1, 9):
        assert batcher.offer(Request(number, 1, 0.0, 60.0), 0.0) is None
    batcher.complete(batch.id, 50.0)  # 10 ms are left, and eight take 12 or more
    decided = batcher.dispatch(50.0)
    assert decided.batches[0].size in (1, 2, 4)
    assert not decided.dropped


def test_a_request_hears_at_its_deadline_though_the_engine_hangs() -> None:
    batcher, _ = filled(Batching(), linear())
    assert batcher.offer(Request(1, 1, 0.0, 100.0), 0.0) is None
    assert batcher.wake_ms() == 100.0
    ((request, rejection),) = batcher.dispatch(100.0).dropped
    assert (request.id, rejection.reason) == (1, Reason.LATE)
    assert batcher.wake_ms() == math.inf


def test_linger_waits_for_company_but_not_beyond_the_slack() -> None:
    batcher = Batcher(Batching(linger_ms=10.0), lambda bucket: upto(4))
    assert batcher.offer(Request(0, 1, 0.0), 0.0) is None
    assert batcher.dispatch(0.0).batches == ()
    assert batcher.wake_ms() == 10.0
    assert batcher.offer(Request(1, 1, 2.0, 18.0), 2.0) is None
    assert batcher.dispatch(2.0).batches == ()
    assert 6.5 < batcher.wake_ms() < 8.0, "18 ms less the promised time of a full batch"
    assert batcher.offer(Request(2, 2, 3.0), 3.0) is None
    assert batcher.dispatch(3.0).batches[0].size == 4, "full: it starts at once"


def test_a_cancelled_request_leaves_and_its_running_part_is_not_heard_of() -> None:
    batcher = Batcher(Batching(), lambda bucket: upto(2))
    assert batcher.offer(Request(0, 5, 0.0, size_bytes=10), 0.0) is None
    (batch,) = batcher.dispatch(0.0).batches
    assert batcher.waiting.size_bytes == 10
    assert batcher.cancel(0)
    assert batcher.waiting.size_bytes == 0
    assert not batcher.cancel(0)
    assert batcher.offer(Request(0, 1, 1.0), 1.0) is None, "the id is free again"
    assert batcher.complete(batch.id, 10.0) == ()
    (again,) = batcher.dispatch(10.0).batches
    assert [request.id for request in batcher.complete(again.id, 20.0)] == [0]


def test_a_failed_batch_fails_its_requests_whole() -> None:
    batcher = Batcher(Batching(), lambda bucket: upto(2))
    assert batcher.offer(Request(0, 3, 0.0), 0.0) is None
    (batch,) = batcher.dispatch(0.0).batches
    assert [request.id for request in batcher.fail(batch.id)] == [0]
    assert batcher.dispatch(1.0).batches == ()
    with pytest.raises(Broken, match="not running"):
        batcher.complete(batch.id, 2.0)


def test_a_hot_swap_keeps_the_queue_and_what_runs_teaches_the_old_model() -> None:
    batcher, batch = filled(Batching(), upto(2))
    for number in range(1, 5):
        assert batcher.offer(Request(number, 1, 0.0), 0.0) is None
    swapped = upto(4)
    batcher.refit(lambda bucket: swapped)
    batcher.complete(batch.id, 500.0)
    assert swapped.latency.calls == 0
    assert batcher.dispatch(500.0).batches[0].size == 4


def test_memory_caps_the_batch() -> None:
    shape = ServedShape(LatencyModel(LINEAR), row_bytes=100)
    batcher = Batcher(Batching(batch_memory_bytes=350), lambda bucket: shape)
    assert batcher.offer(Request(0, 10, 0.0), 0.0) is None
    assert batcher.dispatch(0.0).batches[0].size == 3


def test_an_id_is_offered_once() -> None:
    batcher, _ = filled(Batching(), linear())
    with pytest.raises(Broken, match="offered twice"):
        batcher.offer(Request(0, 1, 0.0), 0.0)


def test_refuses_what_cannot_be() -> None:
    for wrong in [{"streams": 0}, {"slo_ms": 0.0}, {"linger_ms": -1.0}, {"slo_ms": math.nan}]:
        with pytest.raises(Misuse):
            Batching(**wrong)
    with pytest.raises(Misuse):
        Request(0, 0, 0.0)
    with pytest.raises(Misuse):
        Limits(requests=0)
    with pytest.raises(Misuse):
        Padding({"sequence": (32, 16)})
