# SPDX-License-Identifier: Apache-2.0
"""What measured calls become in the simulator, against queueing theory and plain arithmetic."""

import math
from itertools import pairwise

import numpy as np
import pytest

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.serving.planning.behaviour import MOST_PER_S, Traffic, most_per_s
from burnish.serving.planning.call_times import CallTimes, Resampled
from burnish.serving.planning.slo import Slo


def times(ms_of, sizes=(1,), streams=1, spread=()):
    """Calls that take `ms_of` a size, or that times each of `spread`, equally often."""
    factors = np.array(spread or (1.0,))
    return CallTimes(
        Setting(1, streams), {size: ms_of(size) * np.tile(factors, 20) for size in sizes}
    )


def test_calls_are_drawn_from_those_of_their_size():
    rng = np.random.default_rng(0)
    calls = {1: rng.exponential(5.0, 400) + 1, 4: rng.exponential(5.0, 300) + 9}
    service = Resampled(CallTimes(Setting(), calls), rng)
    for size in (1, 4):
        ordered = np.sort(calls[size])
        drawn = [service.at(size, luck) for luck in rng.random(500)]
        assert set(drawn) <= set(ordered)
        np.testing.assert_allclose(np.median(drawn), np.median(ordered), rtol=0.15)
    low, high = service.at(1, 0.7), service.at(4, 0.7)
    assert service.at(2, 0.7) == pytest.approx(low + (high - low) / 3)
    assert service.at(8, 0.7) == pytest.approx(2 * high)


def test_figures_of_calls():
    own = times(lambda b: 8.0 + b, (1, 2, 4), streams=2)
    assert own.table == ((1, 9.0), (2, 10.0), (4, 12.0))
    assert own.capacity_per_s == pytest.approx(2 * 4 / 12e-3)
    assert own.up_to(2).capacity_per_s == pytest.approx(2 * 2 / 10e-3)
    assert own.stalled_ratio == 0
    assert times(lambda b: 1.0, spread=(*[1.0] * 89, 11.0)).stalled_ratio == pytest.approx(0.11)
    with pytest.raises(Misuse, match="from 1"):
        CallTimes(Setting(), {2: np.ones(3)})
    with pytest.raises(Misuse, match="from 1"):
        CallTimes(Setting(), {1: np.ones(3), 2: np.ones(0)})


@pytest.mark.parametrize("load", [0.3, 0.5])
def test_one_stream_without_batches_is_the_queue_of_the_books(load):
    # M/D/1: P(W ≤ t) = (1 − ρ) Σ_k (λ (kD − t))^k / k! · exp(−λ (kD − t)), k = 0 … ⌊t/D⌋.
    # Source: Erlang, "The theory of probabilities and telephone conversations", 1909.
    call_ms, slo_ms = 10.0, 40.0
    per_ms, wait_ms = load / call_ms, slo_ms - call_ms
    expected = (1 - load) * sum(
        (per_ms * (k * call_ms - wait_ms)) ** k
        / math.factorial(k)
        * math.exp(-per_ms * (k * call_ms - wait_ms))
        for k in range(int(wait_ms // call_ms) + 1)
    )
    found = Traffic(seeds=12).behaviour(times(lambda b: call_ms), Slo(slo_ms), 1e3 * per_ms)
    # Whoever would be late is refused, so that those behind come in time: a little better.
    assert expected - 0.006 < found.in_slo_ratio < expected + 0.012


def test_a_rate_is_kept_or_not_by_the_asked_share():
    own, slo = times(lambda b: 10.0), Slo(50.0, 95.0)
    for rate in (20, 60, 80, 95, 120, 200):
        found = Traffic().behaviour(own, slo, rate)
        assert found.keeps == (found.in_slo_ratio >= 0.95)
        assert found.keeps == (found.latency_ms <= 50.0)  # refused ones count as infinite
        low, high = found.goodput_low_per_s - 1e-6, found.goodput_high_per_s + 1e-6
        assert low <= found.goodput_per_s <= high
    assert Traffic().behaviour(own, slo, 1000).latency_ms == math.inf


def largest(own, slo):
    found = Traffic(seeds=1).largest_rate(own, slo)
    return found.rate_per_s if found is not None else 0.0


def test_the_largest_rate_grows_with_the_slo_and_the_streams_and_shrinks_with_variance():
    own = times(lambda b: 10.0)
    rates = [largest(own, Slo(ms)) for ms in (5, 11, 30, 120)]
    assert rates[0] == 0
    assert all(b >= 0.96 * a for a, b in pairwise(rates))
    assert rates[-1] <= 100 / 0.95
    assert rates[-1] > 80
    by_share = [largest(own, Slo(30.0, share)) for share in (50, 90)]
    assert all(b <= 1.04 * a for a, b in pairwise(by_share))
    assert largest(times(lambda b: 10.0, streams=2), Slo(30.0, 90)) > 2 * by_share[1]
    uneven = times(lambda b: 10.0, spread=(0.5, 0.5, 0.5, 2.5))  # the same mean
    assert largest(uneven, Slo(30.0, 90)) < 0.9 * by_share[1]


def test_batches_carry_more_where_calls_cost_little_more():
    own = times(lambda b: 8.0 + b, (1, 2, 4, 8))
    rates = [largest(own.up_to(size), Slo(60.0, 95)) for size in (1, 2, 8)]
    assert all(b > 1.2 * a for a, b in pairwise(rates))
    assert rates[-1] <= 8 / 16e-3 / 0.95


def test_rates_beyond_what_a_server_takes_in_are_not_looked_for():
    own = times(lambda b: 0.01, streams=2)
    assert largest(own, Slo(20.0, 90)) == MOST_PER_S == most_per_s(own.capacity_per_s, Slo(20.0))


def test_the_same_seed_gives_the_same():
    own = times(lambda b: 5.0 + b, (1, 2), spread=(0.9, 1.0, 1.3))
    first, second, other = (Traffic(seed).behaviour(own, Slo(20.0), 90) for seed in (1, 1, 2))
    assert first == second != other
