# SPDX-License-Identifier: Apache-2.0
"""Every range method stays in what was seen, and each does what it is named for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.core.errors import Misuse
from burnish.techniques.quantize.grid import activation_grid
from burnish.techniques.quantize.histogram import Histogram
from burnish.techniques.quantize.ranges import METHODS, choose_range

RNG = np.random.default_rng(11)
STREAMS = {
    "gaussian": RNG.standard_normal(10_000),
    "relu": np.maximum(RNG.standard_normal(10_000), 0),
    "exponential": RNG.exponential(1, 10_000),
    "negative": -RNG.exponential(1, 10_000),
    "uniform": RNG.uniform(-1, 3, 10_000),
    "heavy": RNG.standard_t(2.5, 10_000),
}


def seen(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def squared_error(values: np.ndarray, low: float, high: float, kind: str) -> float:
    grid = activation_grid(low, high, kind)
    x = np.asarray(values, np.float32)
    return float(np.square(grid.dequantize(grid.quantize(x)).astype(np.float64) - x).sum())


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)),
    method=st.sampled_from(METHODS),
    kind=st.sampled_from(["u8", "s8"]),
)
def test_the_range_is_inside_what_was_seen_and_holds_zero(values, method, kind) -> None:
    low, high = choose_range(seen(values), method, kind, 99.0)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("kind", ["u8", "s8"])
def test_mse_is_near_the_best_of_a_fine_search(name: str, kind: str) -> None:
    values = STREAMS[name].astype(np.float32)
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    found = squared_error(values, *choose_range(seen(values), "mse", kind), kind)
    assert found <= 1.001 * squared_error(values, low, high, kind)
    steps = np.linspace(0.05, 1, 20)
    both = [(low * a, high * b) for a in steps for b in steps]
    if low == 0 or high == 0:
        both = [(low * a, high * a) for a in np.linspace(0.02, 1, 200)]
    best = min(squared_error(values, *one, kind) for one in both)
    assert found <= 1.1 * best


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_is_numpys_within_a_bin(name: str, percentile: float) -> None:
    values = STREAMS[name].astype(np.float32)
    histogram = seen(values)
    low, high = choose_range(histogram, "percentile", "u8", percentile)
    top = max(np.percentile(values, percentile, method="inverted_cdf"), 0)
    bottom = min(-np.percentile(-values, percentile, method="inverted_cdf"), 0)
    assert abs(high - top) <= 2 * histogram.width
    assert abs(low - bottom) <= 2 * histogram.width


def test_percentile_100_is_minmax() -> None:
    histogram = seen(STREAMS["heavy"])
    assert choose_range(histogram, "percentile", "u8", 100) == choose_range(
        histogram, "minmax", "u8"
    )


@pytest.mark.parametrize("name", ["gaussian", "relu", "exponential", "uniform", "negative"])
@pytest.mark.parametrize("kind", ["u8", "s8"])
def test_entropy_keeps_the_mass_of_ordinary_data(name: str, kind: str) -> None:
    values = STREAMS[name]
    low, high = choose_range(seen(values), "entropy", kind)
    assert ((values >= low) & (values <= high)).mean() >= 0.99


@pytest.mark.parametrize("far", [10.0, 30.0, 100.0])
@pytest.mark.parametrize("name", ["gaussian", "relu"])
def test_entropy_clips_far_outliers(name: str, far: float) -> None:
    values = np.append(STREAMS[name], [far, far * 1.1])
    low, high = choose_range(seen(values), "entropy", "u8")
    assert high < far / 2
    assert ((values >= low) & (values <= high)).mean() >= 0.99


def migacz(counts: np.ndarray) -> int:
    """Returns how many bins the procedure of Migacz 2017 keeps, written out as on its slides,
    with 255 levels of which the divergence of those merged bins is taken."""
    best, kept = np.inf, len(counts)
    for end in range(256, len(counts) + 1, 8):
        p = counts[:end].astype(float)
        if p.sum() == 0:
            continue
        p[-1] += counts[end:].sum()
        q = np.zeros(end)
        for chunk in np.array_split(np.arange(end), 256):
            filled = chunk[counts[chunk] > 0]
            if len(filled):
                q[filled] = counts[chunk].sum() / len(filled)
        p, q = p / p.sum(), q / q.sum()
        p, q = (np.where(one > 0, one, 1e-9) for one in (p, q))
        divergence = float((p * np.log(p / q)).sum())
        if divergence < best:
            best, kept = divergence, end
    return kept


@pytest.mark.parametrize("name", ["exponential", "relu"])
def test_entropy_is_near_the_published_procedure_on_one_sided_data(name: str) -> None:
    histogram = seen(STREAMS[name])
    _, high = choose_range(histogram, "entropy", "u8")
    theirs = migacz(histogram.counts) * histogram.width
    assert 0.7 * theirs <= high <= 1.4 * theirs


def test_constants_and_zeros() -> None:
    for method in METHODS:
        assert choose_range(seen(np.zeros(9)), method, "u8") == (0.0, 0.0)
        low, high = choose_range(seen(np.full(9, 2.5)), method, "u8")
        assert low == 0
        assert 0 < high <= 2.5


def test_refuses_what_it_cannot_do() -> None:
    histogram = seen(np.ones(3))
    with pytest.raises(Misuse, match="did you mean 'entropy'"):
        choose_range(histogram, "entropie", "u8")
    with pytest.raises(Misuse, match="must be in 50"):
        choose_range(histogram, "percentile", "u8", 20)
    with pytest.raises(Misuse, match="no finite value"):
        choose_range(Histogram(), "minmax", "u8")
