# SPDX-License-Identifier: Apache-2.0
"""The latency model: what it predicts, how it learns, which batch size it chooses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.serving.latency_model import GAIN_RATIO, LatencyModel

LINEAR = [(1, 5.0), (2, 6.0), (4, 8.0), (8, 12.0), (16, 20.0), (32, 36.0)]  # 4 + b


def taught(model: LatencyModel, calls: int, ratio: float, *sizes: int) -> LatencyModel:
    for call in range(calls):
        size = sizes[call % len(sizes)]
        model.update(size, ratio * (4.0 + size))
    return model


def test_starts_from_the_table_of_the_plan() -> None:
    rows = [{"batch_size": size, "latency_ms": ms, "streams": 2} for size, ms in LINEAR]
    model = LatencyModel.from_plan(rows[::-1])
    assert [model.expected_ms(size) for size in range(1, 33)] == pytest.approx(
        [4.0 + size for size in range(1, 33)]
    )
    assert model.promised_ms(8) == pytest.approx(12.0, rel=0.11)
    assert model.promised_ms(8) > 12.0


def test_beyond_the_table_no_throughput_is_promised() -> None:
    model = LatencyModel([(4, 8.0), (8, 12.0)], max_batch_size=16)
    assert model.expected_ms(1) == 8.0
    assert model.expected_ms(16) == 24.0
    assert model.best_batch_size() <= 8


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_learns_a_machine_that_is_slower_or_faster(ratio: float) -> None:
    model = taught(LatencyModel(LINEAR), 64, ratio, 8)
    assert model.expected_ms(8) == pytest.approx(ratio * 12.0, rel=0.03)
    assert model.expected_ms(32) == pytest.approx(ratio * 36.0, rel=0.08), "unseen sizes follow"


def test_recent_calls_count_more() -> None:
    model = taught(taught(LatencyModel(LINEAR), 500, 1.0, 1, 8, 32), 192, 2.0, 1, 8, 32)
    assert model.expected_ms(8) == pytest.approx(24.0, rel=0.1)


def test_one_stall_hardly_moves_it() -> None:
    model = taught(LatencyModel(LINEAR), 200, 1.0, 8)
    model.update(8, 60_000.0)
    assert model.expected_ms(8) == pytest.approx(12.0, rel=0.03)
    assert model.promised_ms(8) < 13.0


@pytest.mark.parametrize("ms", [5e-324, 1e308])
def test_one_time_however_small_or_large_hardly_moves_it(ms: float) -> None:
    model = taught(LatencyModel(LINEAR), 200, 1.0, 4)
    model.update(4, ms)
    taught(model, 200, 1.0, 4)
    assert model.expected_ms(4) == pytest.approx(8.0, rel=0.05)


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    model = taught(LatencyModel(LINEAR), 100, 1.0, 4, 8, 16)
    for _ in range(20):
        model.update(32, 200.0)
    assert model.best_batch_size() < 32
    taught(model, 600, 1.0, 4, 8, 16)
    assert model.expected_ms(32) == pytest.approx(36.0, rel=0.1)


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_the_promise_is_kept_as_often_as_it_says(spread: float) -> None:
    rng = np.random.default_rng(0)
    model = LatencyModel(LINEAR, quantile=0.95)
    broken = []
    for _ in range(3000):
        size = int(rng.integers(1, 33))
        ms = (4.0 + size) * float(rng.lognormal(0.0, spread))
        broken.append(ms > model.promised_ms(size))
        model.update(size, ms)
    assert np.mean(broken[200:]) == pytest.approx(0.05, abs=0.025)


def test_a_hot_swap_starts_anew() -> None:
    model = taught(LatencyModel(LINEAR), 200, 3.0, 8)
    assert model.reseeded(LINEAR).expected_ms(8) == pytest.approx(12.0)
    carried = model.reseeded()
    assert carried.expected_ms(8) == pytest.approx(36.0, rel=0.02)
    assert taught(carried, 16, 1.0, 8).expected_ms(8) < 20.0, "it gives way within a few calls"


@given(
    tau=st.floats(0.01, 100),
    alpha=st.floats(0.01, 10),
    largest=st.integers(1, 200),
    slo_ms=st.floats(1, 1000),
    row_bytes=st.integers(1, 1000),
    memory_bytes=st.integers(1, 100_000),
)
def test_best_batch_size_is_the_definition(
    tau: float, alpha: float, largest: int, slo_ms: float, row_bytes: int, memory_bytes: int
) -> None:
    model = LatencyModel([(1, tau + alpha), (largest, tau + alpha * largest)][: min(2, largest)])
    sizes = range(1, largest + 1)
    rates = [size / model.expected_ms(size) for size in sizes]
    near = next(size for size in sizes if rates[size - 1] >= GAIN_RATIO * max(rates) * (1 - 1e-9))
    caps = [
        size
        for size in sizes
        if 2 * model.promised_ms(size) <= slo_ms and size * row_bytes <= memory_bytes
    ]
    expected = min(near, max(caps, default=1))
    got = model.best_batch_size(slo_ms, row_bytes, memory_bytes)
    assert got == expected or 2 * model.promised_ms(max(got, expected)) == pytest.approx(slo_ms)


def test_batch_1_where_batching_does_not_pay() -> None:
    assert LatencyModel([(1, 5.0), (8, 40.0), (32, 160.0)]).best_batch_size() == 1
    assert LatencyModel([(1, 5.0), (32, 170.0)]).best_batch_size() == 1


@pytest.mark.parametrize(
    "table", [[], [(0, 1.0)], [(1, 0.0)], [(1, math.nan)], [(1, math.inf)], [(1, 1.0), (1, 2.0)]]
)
def test_refuses_a_table_that_is_none(table: list[tuple[int, float]]) -> None:
    with pytest.raises(Misuse, match="latency table"):
        LatencyModel(table)


def test_refuses_calls_and_plans_out_of_range() -> None:
    model = LatencyModel(LINEAR)
    for size, ms in [(0, 1.0), (33, 1.0), (1, 0.0), (1, math.nan), (1, math.inf)]:
        with pytest.raises(Misuse, match="batch of 1 to 32"):
            model.update(size, ms)
    with pytest.raises(Misuse, match="latency_by_batch"):
        LatencyModel.from_plan([{"batch": 1}])
    with pytest.raises(Misuse, match="quantile"):
        LatencyModel(LINEAR, quantile=1.0)
