# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests for what is measured.

Every interval is two-sided and has `level` as its coverage, 95 % unless said otherwise.
Randomness comes from `seed` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from burnish.core.errors import Misuse

Floats = NDArray[np.float64]
Statistic = Callable[[Any], Any]

_RESAMPLED_VALUES = 2e7  # bounds the time of a bootstrap over many samples
_BEYOND = 10


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = np.median,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Returns the percentile interval of a statistic, resampling along the first axis.

    Resamples for which the statistic is undefined (NaN) are left out. Fewer resamples, but
    at least 200, are drawn above 20,000 values. Source: Efron, "Bootstrap methods", 1979.
    """
    array = np.asarray(values)
    n = len(array)
    if n == 0:
        raise Misuse("an interval needs at least one value, got none")
    rng = np.random.default_rng(seed)
    count = int(max(200, min(resamples, _RESAMPLED_VALUES / n)))
    drawn = np.array([statistic(array[rng.integers(0, n, n)]) for _ in range(count)], np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return math.nan, math.nan
    return _ends(drawn, level)


def bootstrap_by_session(
    sessions: Sequence[ArrayLike],
    statistic: Statistic = np.median,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 400,
) -> tuple[float, float]:
    """Returns the interval of a positive statistic of rounds that are grouped by session.

    Sessions are resampled, then rounds within each, since rounds of one session share its
    memory layout and the machine's mood. Few sessions make the bootstrap's spread too
    small (by the factor √(S−1)/√S) and too sure of itself, so the interval is Student's,
    around the logarithm of the statistic, with S−1 degrees of freedom. One session alone
    says nothing of the next: its rounds then count as sessions, and the interval is
    too narrow.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, §3.8;
    Kalibera and Jones, "Rigorous benchmarking in reasonable time", 2013, for the levels.
    """
    groups = [np.asarray(one, np.float64) for one in sessions if len(np.atleast_1d(one))]
    if not groups:
        raise Misuse("an interval needs at least one round, got none")
    centre = float(statistic(np.concatenate(groups)))
    if len(groups) == 1:
        groups = [one[None] for one in groups[0]]
    n = len(groups)
    if n == 1:
        return 0.0, math.inf
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for index in range(resamples):
        parts = [groups[chosen] for chosen in rng.integers(0, n, n)]
        drawn[index] = statistic(
            np.concatenate([part[rng.integers(0, len(part), len(part))] for part in parts])
        )
    spread = float(np.std(np.log(drawn))) * math.sqrt(n / (n - 1))
    half = spread * float(special.stdtrit(n - 1, (1 + level) / 2))
    return centre * math.exp(-half), centre * math.exp(half)


def paired_ratio(
    base: Sequence[ArrayLike],
    candidate: Sequence[ArrayLike],
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Returns the median of base / candidate over rounds, and its interval.

    Both hold one array of round medians for each session; the same places were measured
    next to each other in time, so what slows the machine cancels.

    >>> ratio, low, high = paired_ratio([[2.0, 4.0], [2.2, 2.0]], [[1.0, 2.0], [1.1, 1.0]])
    >>> round(low, 3), ratio, round(high, 3)
    (2.0, 2.0, 2.0)
    """
    ratios = [
        np.asarray(one, np.float64) / np.asarray(other, np.float64)
        for one, other in zip(base, candidate, strict=True)
    ]
    low, high = bootstrap_by_session(ratios, seed=seed, level=level)
    return float(np.median(np.concatenate(ratios))), low, high


def paired_binary(
    base_correct: ArrayLike, candidate_correct: ArrayLike, level: float = 0.95
) -> tuple[float, float, float]:
    """Returns the drop base − candidate in percentage points, and its interval.

    Both say, for the same samples, whether the answer was right. The drop is positive when
    the candidate is worse. The score interval holds its coverage for small samples, and
    is not empty when the two never differ.

    Source: Tango, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", 1998, equations 6 to 11.
    """
    from scipy.optimize import brentq  # here: it takes as long to load as all else of scipy

    base = np.asarray(base_correct, bool)
    candidate = np.asarray(candidate_correct, bool)
    if base.shape != candidate.shape or base.ndim != 1 or not len(base):
        raise Misuse(
            "paired answers must be for the same samples: got shapes "
            f"{base.shape} and {candidate.shape}"
        )
    n = len(base)
    lost = int((base & ~candidate).sum())
    won = int((~base & candidate).sum())
    z = float(special.ndtri((1 + level) / 2))
    drop = (lost - won) / n

    def score(difference: float) -> float:
        return _tango(lost, won, n, difference)

    low, high = -1.0, 1.0
    edge = 1e-12
    if score(-1 + edge) > z:
        low = brentq(lambda d: score(d) - z, -1 + edge, min(drop, 1 - edge))
    if score(1 - edge) < -z:
        high = brentq(lambda d: score(d) + z, max(drop, -1 + edge), 1 - edge)
    return 100 * drop, 100 * low, 100 * high


def _tango(lost: int, won: int, n: int, difference: float) -> float:
    """Returns the score statistic of the hypothesis that the true difference is this."""
    a = 2 * n
    b = -lost - won + (2 * n - lost + won) * difference
    c = -won * difference * (1 - difference)
    # The likeliest share of samples that only the candidate gets right.
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    gap = lost - won - n * difference
    if variance <= 0:
        return 0.0 if abs(gap) < 1e-9 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def mcnemar(lost: int, won: int) -> float:
    """Returns the exact two-sided p-value that two models err equally often.

    `lost` counts samples that only the first gets right, `won` those that only the second
    does. Source: McNemar, 1947, with the binomial distribution in place of chi-squared.

    >>> mcnemar(0, 0), mcnemar(0, 6)
    (1.0, 0.03125)
    """
    if lost + won == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(lost, won), lost + won, 0.5)))


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval of a proportion of which k of n were seen, within 0..1.

    Source: Wilson, "Probable inference", 1927.

    >>> low, high = wilson(9, 10)
    >>> round(low, 4), round(high, 4)
    (0.5958, 0.9821)
    """
    if not 0 <= k <= n or n == 0:
        raise Misuse(f"a proportion needs 0 ≤ k ≤ n and n above 0, got {k} of {n}")
    z = float(special.ndtri((1 + level) / 2))
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    # Rounding must not push the ends past certainty.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


def percentile_interval(
    values: ArrayLike, q: float, level: float = 0.95
) -> tuple[float, float] | None:
    """Returns the interval of the q-quantile (0 < q < 1), by order statistics.

    None when fewer than 10 of the values are expected beyond it, on either side: the ends
    would be the sample's own extremes. (The rule of ten is ours: with it, both ends lie
    about two standard deviations of the count, some four values, inside the sample.)
    Source: Le Boudec, "Performance Evaluation of Computer and Communication Systems",
    2010, theorem 2.1.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if n * min(q, 1 - q) < _BEYOND:
        return None
    return _order_statistics(ordered, q, level)


def median_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Returns the median's interval by order statistics; below 6 values, their range."""
    ordered = np.sort(np.asarray(values, np.float64))
    return _order_statistics(ordered, 0.5, level)


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Returns Student's interval of the mean of independent values; infinite for one value."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return -math.inf, math.inf
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = float(special.stdtrit(len(array) - 1, (1 + level) / 2)) * error
    return float(array.mean()) - half, float(array.mean()) + half


def _order_statistics(ordered: Floats, q: float, level: float) -> tuple[float, float]:
    n = len(ordered)
    tail = (1 - level) / 2
    low = _binomial_quantile(tail, n, q) - 1
    high = _binomial_quantile(1 - tail, n, q)
    return float(ordered[max(0, low)]), float(ordered[min(n - 1, high)])


def _binomial_quantile(share: float, n: int, p: float) -> int:
    """Returns the least count that n trials of probability p reach or stay below so often."""
    count: int = max(0, math.ceil(special.bdtrik(share, n, p)))
    return count - 1 if count > 0 and special.bdtr(count - 1, n, p) >= share else count


def _ends(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
