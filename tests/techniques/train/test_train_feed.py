# SPDX-License-Identifier: Apache-2.0
"""The feed gives every sample its turn, in an order that the seed alone decides."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.core.task import Batch
from burnish.data.samples import ArraySamples
from burnish.techniques.train import decoded
from burnish.techniques.train.feed import Feed
from burnish.techniques.train.prefetch import prefetched
from burnish.techniques.train.training import Training

BYTES = 4 * 4 + 8  # of a sample: 4 floats and a label


def _samples(n: int) -> ArraySamples:
    numbers = np.arange(n, dtype=np.float32)
    return ArraySamples({"x": np.stack([numbers] * 4, axis=1)}, np.arange(n))


def _epoch(feed: Feed, number: int, start: int = 0) -> list[list[int]]:
    batches = []
    for batch in feed.epoch(number, start):
        assert batch.labels is not None
        # Labels stay with their samples.
        np.testing.assert_array_equal(batch.inputs["x"][:, 0], batch.labels)
        batches.append(batch.labels.tolist())
    return batches


CASES = st.tuples(
    st.integers(2, 300),  # samples
    st.integers(1, 40),  # batch size
    st.sampled_from([1 << 30, 50 * BYTES, 7 * BYTES, 1]),  # memory
    st.sampled_from([0.0, 0.1, 0.5]),  # held out
    st.integers(0, 2**40),  # seed
)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_no_sample_comes_twice_and_the_held_out_never(case) -> None:
    n, size, memory, held, seed = case
    feed = Feed(
        _samples(n),
        Training(batch_size=size, memory_bytes=memory, hold_out_ratio=held),
        seed,
    )
    apart = {int(one) for batch in feed.probe(16) for one in batch.labels} if held else set()
    assert len(apart) == feed.n_held_out
    assert bool(held) == bool(apart)
    for number in range(2):
        batches = _epoch(feed, number)
        flat = [one for batch in batches for one in batch]
        assert [len(batch) for batch in batches] == [feed.batch_size] * feed.steps
        assert len(set(flat)) == len(flat)
        assert not apart & set(flat)
        assert n - len(apart) - len(flat) < feed.batch_size
    again = Feed(
        _samples(n),
        Training(batch_size=size, memory_bytes=memory, hold_out_ratio=held),
        seed,
    )
    assert _epoch(again, 1) == _epoch(feed, 1)
    middle = feed.steps // 2
    assert _epoch(feed, 1, middle) == _epoch(feed, 1)[middle:]


@pytest.mark.parametrize("memory", [1 << 30, 100 * BYTES])
def test_each_epoch_has_another_order(memory: int) -> None:
    feed = Feed(_samples(400), Training(batch_size=20, memory_bytes=memory), 3)
    first, second = _epoch(feed, 0), _epoch(feed, 1)
    assert first != second
    assert first[0] != sorted(first[0])


def test_a_shuffle_buffer_mixes_far_beyond_a_batch() -> None:
    feed = Feed(_samples(2000), Training(batch_size=50, memory_bytes=500 * BYTES), 0)
    assert not feed.cached
    spread = [max(batch) - min(batch) for batch in _epoch(feed, 0)]
    assert np.mean(spread) > 400
    assert [one.place for one in feed.notes] == ["full shuffle"]


def test_an_epoch_may_be_limited_and_still_sees_all_in_time() -> None:
    feed = Feed(_samples(100), Training(batch_size=10, samples=30), 0)
    assert feed.steps == 3
    seen = {one for number in range(40) for batch in _epoch(feed, number) for one in batch}
    assert seen == set(range(100))


def test_what_is_read_anew_is_read_no_further_than_an_epoch_needs() -> None:
    feed = Feed(_samples(100), Training(batch_size=10, samples=30, memory_bytes=20 * BYTES), 0)
    assert {one for batch in _epoch(feed, 0) for one in batch} == set(range(30))


def test_few_samples_make_a_small_batch_and_that_is_said() -> None:
    feed = Feed(_samples(7), Training(batch_size=128), 0)
    assert (feed.batch_size, feed.steps) == (7, 1)
    assert [one.place for one in feed.notes] == ["batch_size 128"]
    with pytest.raises(Misuse, match="2 samples or more"):
        Feed(_samples(1), Training(), 0)


def test_arrays_that_are_added_go_with_their_samples() -> None:
    feed = Feed(_samples(50), Training(batch_size=8, hold_out_ratio=0.2), 0)
    answers = np.concatenate([batch.inputs["x"][:, 0] * 10 for batch in feed.in_order(16)])
    feed.add({"answers": answers})
    for batch in feed.epoch(0):
        np.testing.assert_array_equal(batch.inputs["answers"], batch.inputs["x"][:, 0] * 10)


class _Ragged(ArraySamples):
    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches(batch_size, limit)):
            yield Batch({"x": batch.inputs["x"][:, : 4 - number]}, batch.labels)


def test_samples_of_several_shapes_are_refused() -> None:
    ragged = _Ragged(_samples(600).inputs, np.arange(600))
    with pytest.raises(Misuse, match=r"'x' is float32\[4\] at first and float32\[3\] from sample"):
        Feed(ragged, Training(), 0)


def test_samples_that_end_early_are_refused() -> None:
    class Short(ArraySamples):
        def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
            return super().batches(batch_size, 5)

    with pytest.raises(Misuse, match="ended after 5 samples"):
        Feed(Short(_samples(9).inputs), Training(), 0)


def test_samples_are_decoded_once_for_all_training_on_them() -> None:
    class Counted(ArraySamples):
        read = 0

        def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
            for batch in super().batches(batch_size, limit):
                Counted.read += len(batch)
                yield batch

    samples = Counted(_samples(100).inputs, np.arange(100))
    first = Feed(samples, Training(batch_size=10), 0)
    again = Feed(samples, Training(batch_size=10, hold_out_ratio=0.1), 1)
    assert Counted.read == 100 + 2  # each feed looks at one sample first
    assert _epoch(first, 0) != _epoch(again, 0)
    Feed(_samples(50), Training(), 0)  # others take their place
    Feed(samples, Training(batch_size=10), 0)
    assert Counted.read == 203
    del first, again, samples
    gc.collect()
    assert not decoded._held


def test_prefetching_passes_errors_on_in_their_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Misuse("sample 2 is damaged")

    made = prefetched(items())
    assert next(made) == 1
    with pytest.raises(Misuse, match="sample 2"):
        next(made)


def test_prefetching_ends_its_thread_when_it_is_left() -> None:
    made = prefetched(iter(range(10**9)))
    assert next(made) == 0
    made.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(
        thread.name == "burnish-prefetch" for thread in threading.enumerate()
    ):
        time.sleep(0.01)
    assert not any(thread.name == "burnish-prefetch" for thread in threading.enumerate())
