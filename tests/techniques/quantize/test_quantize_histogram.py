# SPDX-License-Identifier: Apache-2.0
"""The histogram does not depend on how its stream was cut, and equals numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.techniques.quantize.histogram import BINS, Histogram

VALUES = st.one_of(
    st.floats(width=32),
    st.floats(-8, 8, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, -2.0, 2.0**-140, -(2.0**-140)]),
)
STREAMS = hnp.arrays(np.float32, st.integers(0, 60), elements=VALUES)


def fill(stream: np.ndarray, cuts: list[int] = ()) -> Histogram:
    histogram = Histogram()
    for part in np.split(stream, sorted(cuts)):
        histogram.add(part)
    return histogram


def same(one: Histogram, other: Histogram) -> bool:
    mine, theirs = one.to_arrays(), other.to_arrays()
    return all(np.array_equal(mine[key], theirs[key]) for key in mine)


@settings(max_examples=300, deadline=None)
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_does_not_depend_on_the_cuts(stream, cuts) -> None:
    assert same(fill(stream), fill(stream, cuts))


def test_a_power_of_two_in_a_later_batch_changes_nothing() -> None:
    # 0.9 alone is binned twice as finely as with 1.0, though both would fit in BINS bins.
    assert same(fill(np.float32([0.9, 1.0])), fill(np.float32([0.9, 1.0]), [1]))


@settings(max_examples=200, deadline=None)
@given(stream=STREAMS)
def test_counts_equal_numpy_on_the_same_edges(stream) -> None:
    histogram = fill(stream, [len(stream) // 2])
    finite = stream[np.isfinite(stream)].astype(np.float64)
    assert histogram.not_finite == len(stream) - len(finite)
    assert histogram.n == len(finite)
    assert histogram.zeros == (finite == 0).sum()
    assert histogram.zeros + histogram.counts.sum() == histogram.n
    assert histogram.counts.size <= BINS
    if len(finite):
        assert (histogram.low, histogram.high) == (finite.min(), finite.max())
    nonzero = finite[finite != 0]
    if len(nonzero):
        centres = histogram.centres()
        np.testing.assert_array_equal(np.diff(centres), histogram.width)
        edges = np.append(centres - histogram.width / 2, centres[-1] + histogram.width / 2)
        inside = np.searchsorted(edges, nonzero, side="right") - 1
        expected = np.bincount(inside, minlength=len(centres))
        np.testing.assert_array_equal(histogram.counts, expected)
        # As fine as BINS allows: the span fills at least a quarter of them.
        assert histogram.width * BINS <= 4 * max(np.abs(nonzero).max(), BINS * 2.0**-126)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30, 3e38])
def test_any_magnitude_and_sign(scale: float) -> None:
    stream = -np.linspace(0.1, 1, 1000, dtype=np.float64)
    histogram = fill((stream * scale).astype(np.float32), [10, 500])
    assert histogram.high < 0
    assert histogram.counts.sum() == 1000
    if scale > 1e-38:
        assert histogram.width <= scale / 500


def test_a_stream_that_grows_by_76_orders_of_magnitude() -> None:
    histogram = fill(np.float32([1e-38, -1e-38, 1e38]), [1, 2])
    assert histogram.counts.sum() == 3
    assert histogram.counts.size <= BINS


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-45])
def test_constant_streams(value: float) -> None:
    histogram = fill(np.full(50, value, np.float32), [7])
    assert histogram.n == 50
    assert histogram.counts.size == (value != 0)
    assert histogram.low == histogram.high == np.float32(value)


def test_nothing_finite() -> None:
    histogram = fill(np.float32([np.nan, np.inf, -np.inf]))
    assert (histogram.n, histogram.not_finite) == (0, 3)
    assert not np.isfinite(histogram.low)


def test_every_keeps_the_exact_ends() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values, every=7)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.n == len(values[::7])


@settings(max_examples=50, deadline=None)
@given(first=STREAMS, second=STREAMS)
def test_arrays_round_trip(first, second) -> None:
    histogram = fill(first)
    back = Histogram.from_arrays(histogram.to_arrays())
    assert same(histogram, back)
    histogram.add(second)
    back.add(second)
    assert same(histogram, back)
