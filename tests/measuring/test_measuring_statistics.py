# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.proportion import proportion_confint

from burnish.core.errors import Misuse
from burnish.measuring.statistics import (
    bootstrap,
    bootstrap_by_session,
    mcnemar,
    mean_interval,
    median_interval,
    paired_binary,
    paired_ratio,
    percentile_interval,
    wilson,
)


def holds(intervals: list[tuple[float, float]], truth: float) -> float:
    """Returns the share of intervals that hold the truth."""
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_statsmodels(lost: int, won: int) -> None:
    table = [[10, lost], [won, 10]]
    expected = oracle_mcnemar(table, exact=True).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(min(1.0, expected))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(case: tuple[int, int]) -> None:
    assert wilson(*case) == pytest.approx(proportion_confint(*case, method="wilson"), abs=1e-9)


def pairs(lost: int, won: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    base = np.array([1] * lost + [0] * won + [1] * (n - lost - won), bool)
    candidate = np.array([0] * lost + [1] * won + [1] * (n - lost - won), bool)
    return base, candidate


def likeliest_score(lost: int, won: int, n: int, difference: float) -> float:
    """The score statistic with its nuisance parameter found by maximizing the likelihood."""

    def negative(q: float) -> float:
        cells = ((lost, q + difference), (won, q), (n - lost - won, 1 - 2 * q - difference))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = optimize.minimize_scalar(
        negative, bounds=(low, high), method="bounded", options={"xatol": 1e-13}
    ).x
    return (lost - won - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


@pytest.mark.parametrize(("lost", "won", "n"), [(12, 2, 50), (1, 9, 40), (5, 5, 1000), (3, 0, 30)])
def test_tango_ends_are_where_the_score_is_the_normal_quantile(lost: int, won: int, n: int) -> None:
    drop, low, high = paired_binary(*pairs(lost, won, n))
    z = stats.norm.ppf(0.975)
    assert drop == pytest.approx(100 * (lost - won) / n)
    assert likeliest_score(lost, won, n, low / 100) == pytest.approx(z, abs=1e-3)
    assert likeliest_score(lost, won, n, high / 100) == pytest.approx(-z, abs=1e-3)


@settings(max_examples=60)
@given(
    st.integers(1, 300).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
    )
)
def test_tango_holds_the_drop_and_is_antisymmetric(case: tuple[int, int, int]) -> None:
    lost, won, n = case
    won = min(won, n - lost)
    base, candidate = pairs(lost, won, n)
    drop, low, high = paired_binary(base, candidate)
    assert -100 <= low <= drop + 1e-9
    assert drop - 1e-9 <= high <= 100
    assert high > low  # never certain, not even when the two never differ
    back = paired_binary(candidate, base)
    assert back == pytest.approx((-drop, -high, -low), abs=1e-6)


def test_tango_coverage() -> None:
    rng = np.random.default_rng(0)
    cells, n = (0.06, 0.02, 0.92), 120
    intervals = []
    for lost, won, _ in rng.multinomial(n, cells, 600):
        intervals.append(paired_binary(*pairs(lost, won, n))[1:])
    assert 0.925 <= holds(intervals, 4.0) <= 0.98


def test_bootstrap_coverage_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    intervals = [
        bootstrap(rng.exponential(1, 60), np.mean, seed=seed, resamples=300) for seed in range(150)
    ]
    assert 0.88 <= holds(intervals, 1.0) <= 0.98


def test_bootstrap_resamples_rows_and_skips_undefined() -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    low, high = bootstrap(rows, lambda r: float(r[:, 1].mean() - r[:, 0].mean()))
    assert (low, high) == pytest.approx((1.0, 1.0))

    def undefined_alone(values: np.ndarray) -> float:
        return math.nan if len(np.unique(values)) == 1 else 2.0

    assert bootstrap(np.array([0, 1]), undefined_alone) == (2.0, 2.0)
    assert all(map(math.isnan, bootstrap(np.array([1, 1]), undefined_alone)))
    assert bootstrap(np.arange(50), seed=3) == bootstrap(np.arange(50), seed=3)
    with pytest.raises(Misuse, match="at least one value"):
        bootstrap([])


@pytest.mark.parametrize(("n_sessions", "between"), [(3, 0.03), (3, 0.0), (8, 0.03), (8, 0.005)])
def test_session_interval_holds_the_truth_of_all_sessions(n_sessions: int, between: float) -> None:
    # Rounds of a session share an offset: what differs from one start to the next.
    rng = np.random.default_rng(2)
    intervals = []
    for seed in range(80):
        offsets = rng.normal(0, between, n_sessions)
        sessions = [np.exp(offset + rng.normal(0, 0.02, 8)) * 5.0 for offset in offsets]
        intervals.append(bootstrap_by_session(sessions, seed=seed, resamples=80))
    assert holds(intervals, 5.0) >= 0.91


def test_plain_bootstrap_would_not() -> None:
    rng = np.random.default_rng(2)
    intervals = []
    for seed in range(100):
        offsets = rng.normal(0, 0.03, 3)
        pooled = np.concatenate([np.exp(o + rng.normal(0, 0.02, 8)) * 5.0 for o in offsets])
        intervals.append(bootstrap(pooled, seed=seed, resamples=100))
    assert holds(intervals, 5.0) < 0.8


def test_paired_ratio_cancels_what_slows_both() -> None:
    rng = np.random.default_rng(3)
    weather = [np.exp(rng.normal(0, 0.5, 10)) for _ in range(4)]
    base = [6 * one for one in weather]
    candidate = [2 * one * np.exp(rng.normal(0, 0.01, 10)) for one in weather]
    ratio, low, high = paired_ratio(base, candidate)
    assert low < ratio < high
    assert ratio == pytest.approx(3, rel=0.02)
    assert high / low < 1.05


def test_one_session_and_one_round() -> None:
    low, high = bootstrap_by_session([[1.0, 1.1, 0.9, 1.0]])
    assert 0.7 < low < 1 < high < 1.4
    assert bootstrap_by_session([[1.0]]) == (0.0, math.inf)
    with pytest.raises(Misuse, match="at least one round"):
        bootstrap_by_session([[], []])


def test_percentiles_only_where_the_sample_supports_them() -> None:
    values = np.arange(1000.0)
    low, high = percentile_interval(values, 0.99) or (0, 0)
    assert low < 990 < high < 999
    assert percentile_interval(values[:999], 0.99) is None
    assert percentile_interval(values, 0.01) is not None
    assert percentile_interval(values[:19], 0.5) is None


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_percentile_coverage(q: float) -> None:
    rng = np.random.default_rng(4)
    truth = float(stats.expon.ppf(q))
    drawn = [percentile_interval(rng.exponential(1, 1200), q) for _ in range(400)]
    assert 0.92 <= holds([one for one in drawn if one is not None], truth) <= 0.99


@given(st.integers(21, 3000), st.floats(0.01, 0.99), st.sampled_from([0.9, 0.95, 0.99]))
def test_percentile_ends_are_scipys_binomial_quantiles(n: int, q: float, level: float) -> None:
    found = percentile_interval(np.arange(n), q, level)
    if n * min(q, 1 - q) < 10:
        assert found is None
        return
    low, high = stats.binom.ppf([(1 - level) / 2, (1 + level) / 2], n, q)
    assert found == (max(0, low - 1), min(n - 1, high))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_the_means_interval_is_scipys(values: list[float]) -> None:
    low, high = mean_interval(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-9)


def test_median_and_mean_coverage() -> None:
    rng = np.random.default_rng(5)
    samples = rng.normal(7, 1, (400, 9))
    assert holds([median_interval(one) for one in samples], 7) >= 0.93
    assert 0.92 <= holds([mean_interval(one) for one in samples], 7) <= 0.98
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert mean_interval([1.0]) == (-math.inf, math.inf)


def test_misuse_is_said() -> None:
    with pytest.raises(Misuse, match="same samples"):
        paired_binary([1, 0], [1, 0, 1])
    with pytest.raises(Misuse, match="0 ≤ k ≤ n"):
        wilson(3, 2)
