# SPDX-License-Identifier: Apache-2.0
"""Chooses among measured candidates: the best that meets the goal, or the nearest to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from burnish.core.candidate import Candidate, dominates
from burnish.core.goal import Goal, Status
from burnish.core.measurement import Measurement

_ALIKE_RATIO = 0.03

_QUANTITY = {
    "latency": "latency",
    "accuracy": "metric",
    "size": "size",
    "throughput": "throughput",
    "memory": "memory",
}


def judged(candidate: Candidate, fp32: Candidate, goal: Goal) -> Candidate:
    """Returns the candidate with the goal's verdicts on it."""
    measured = candidate.measured
    if candidate is fp32:  # against itself its speed-up is known, not measured
        itself = Measurement("speedup", 1.0, "x", "higher", 1.0, 1.0, 1)
        measured = {**measured, "speedup": itself}
    return replace(candidate, verdicts=goal.judge(measured, fp32.measured))


def choose(
    candidates: Sequence[Candidate], fp32: Candidate, goal: Goal
) -> tuple[Candidate, Status]:
    """Returns the choice and whether the goal is met.

    In order of preference:

    1. the best in the objective among those that meet the goal and beat fp32 (of those
       that are alike in it, the one that agrees most with fp32);
    2. the best among those that beat fp32, whose values are all within the limits but
       whose samples are too few to show it ("not shown");
    3. fp32 itself, when it meets the goal and nothing better was found;
    4. the nearest (`closeness`), then the objective.

    A candidate that is not better than fp32 in the objective is chosen only in case 4, when
    the limits ask for what fp32 does not give and it is nearer to them.
    """
    better = [one for one in candidates if improves(one, fp32, goal)]
    for status in ("met", "not shown"):
        found = [one for one in better if one.status == status and _within(one)]
        if found:
            chosen = _most_faithful(found, goal)
            return chosen, chosen.status
    if fp32.status == "met":
        return fp32, "met"
    far = closeness(fp32, fp32, goal)
    nearer = [one for one in candidates if one in better or closeness(one, fp32, goal) < far]
    nearest = min([fp32, *nearer], key=lambda one: (closeness(one, fp32, goal), _rank(one, goal)))
    return nearest, nearest.status


def _most_faithful(candidates: Sequence[Candidate], goal: Goal) -> Candidate:
    """Returns the candidate that agrees most with fp32 among those as good as the best.

    Figures closer than `_ALIKE_RATIO` are alike: two files of one structure differ by
    noise only, and what can be told apart is how often they answer as the original does.
    An accuracy is no such figure: three points of it are not noise.
    """
    near = 0.0 if goal.objective == "accuracy" else _ALIKE_RATIO
    best = min(candidates, key=lambda one: _rank(one, goal))
    first, _ = _rank(best, goal)
    alike = [one for one in candidates if _rank(one, goal)[0] - first <= near * abs(first)]

    def agreement(one: Candidate) -> float:
        return one.measured["agreement"].value if "agreement" in one.measured else 0.0

    return min(alike or [best], key=lambda one: (-agreement(one), _rank(one, goal)))


def closeness(candidate: Candidate, fp32: Candidate, goal: Goal) -> tuple[int, int, float, int]:
    """Returns how far the candidate is from the goal; less is nearer.

    First how many limits are not met; how many are not shown by a value that is not within
    them; by how much values are beyond the limits (a sum of logarithms of value over limit,
    and for a drop the share of fp32's metric that it is beyond); how many are not shown.
    """
    not_met, not_shown = _missed(candidate)
    outside = sum(not one.within for one in candidate.verdicts if one.status == "not shown")
    beyond = _drop_beyond(candidate, fp32, goal)
    size = fp32.measured["size"].value if "size" in fp32.measured else math.nan
    ratio = goal.max_size_ratio
    for quantity, limit in (
        ("latency", goal.max_latency_ms),
        ("speedup", goal.min_speedup),
        ("size", goal.max_size_bytes),
        ("size", None if ratio is None else ratio * size),
        ("memory", goal.max_memory_bytes),
        ("throughput", goal.min_throughput),
    ):
        one = candidate.measured.get(quantity)
        value = 1.0 if quantity == "speedup" and candidate is fp32 else one.value if one else 0.0
        if limit is None or not value > 0:
            continue
        over = math.log(value / limit)
        beyond += max(0.0, -over if quantity in ("speedup", "throughput") else over)
    return not_met, outside, beyond, not_shown


def _drop_beyond(candidate: Candidate, fp32: Candidate, goal: Goal) -> float:
    metric, drop = fp32.measured.get("metric"), candidate.measured.get("drop")
    limit = goal.drop_limit(metric.value) if metric else None
    if metric is None or drop is None or limit is None:
        return 0.0
    return max(0.0, drop.value - limit) / (abs(metric.value) or 1.0)


def improves(candidate: Candidate, fp32: Candidate, goal: Goal) -> bool:
    """Returns whether the candidate is better than fp32 in the goal's objective.

    For latency the paired ratio decides, with its whole interval above 1.
    """
    if goal.objective == "latency" and "speedup" in candidate.measured:
        return candidate.measured["speedup"].low > 1.0
    quantity = _QUANTITY[goal.objective]
    if quantity not in candidate.measured or quantity not in fp32.measured:
        return False
    one, other = candidate.measured[quantity], fp32.measured[quantity]
    sign = 1.0 if one.better == "lower" else -1.0
    return sign * one.value < sign * other.value


def promise(
    size_bytes: float, latency_ms: float, fp32_bytes: float, goal: Goal
) -> tuple[bool, float, float]:
    """Returns how a model promises to serve the goal, before it is judged; less is better.

    Whether it is larger than is allowed; its size, where little of it is the objective (a
    smaller file is also less memory); its latency.
    """
    limits = [goal.max_size_bytes, (goal.max_size_ratio or math.inf) * fp32_bytes]
    too_large = any(limit is not None and size_bytes > limit for limit in limits)
    small = size_bytes if goal.objective in ("size", "memory") else 0.0
    return too_large, small, latency_ms


def leads(one: Candidate, others: Sequence[Candidate], goal: Goal) -> bool:
    """Returns whether no other candidate is as good in all and in its verdicts.

    A metric as high proves less when the two answer differently more often; and memory and
    throughput, which are measured of those that lead, may be what the goal asks for.
    """
    if goal.objective in ("memory", "throughput") or goal.max_memory_bytes or goal.min_throughput:
        return True
    return not any(
        dominates(other, one, ("latency", "metric", "size", "agreement"))
        and _missed(other) <= _missed(one)
        for other in others
    )


def order(candidates: Sequence[Candidate], goal: Goal) -> list[Candidate]:
    """Returns the candidates, best objective first; equals by name, so that ties are stable."""
    return sorted(candidates, key=lambda one: _rank(one, goal))


def _rank(candidate: Candidate, goal: Goal) -> tuple[float, str]:
    measured = candidate.measured.get(_QUANTITY[goal.objective])
    if measured is None:
        return float("inf"), candidate.name
    return (measured.value if measured.better == "lower" else -measured.value), candidate.name


def _missed(candidate: Candidate) -> tuple[int, int]:
    """Returns how many limits are not met, and how many are not shown."""
    statuses = [verdict.status for verdict in candidate.verdicts]
    return statuses.count("not met"), statuses.count("not shown")


def _within(candidate: Candidate) -> bool:
    """Returns whether no verdict fails on its value: "not shown" ones could still be met."""
    return all(
        verdict.status == "met" or (verdict.status == "not shown" and verdict.within)
        for verdict in candidate.verdicts
    )
