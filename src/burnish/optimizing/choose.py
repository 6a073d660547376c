# SPDX-License-Identifier: Apache-2.0
"""Chooses among measured candidates: the best that meets the goal, or the nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from burnish.core.candidate import Candidate
from burnish.core.goal import Goal, Status

_QUANTITY = {
    "latency": "latency",
    "accuracy": "metric",
    "size": "size",
    "throughput": "throughput",
    "memory": "memory",
}


def judged(candidate: Candidate, fp32: Candidate, goal: Goal) -> Candidate:
    """Returns the candidate with the goal's verdicts on it."""
    return replace(candidate, verdicts=goal.judge(candidate.measured, fp32.measured))


def choose(
    candidates: Sequence[Candidate], fp32: Candidate, goal: Goal
) -> tuple[Candidate, Status]:
    """Returns the choice and whether the goal is met.

    In order of preference:

    1. the best in the objective among those that meet the goal and beat fp32;
    2. the best among those that beat fp32, whose values are all within the limits but
       whose samples are too few to show it ("not shown");
    3. fp32 itself, when it meets the goal and nothing better was found;
    4. the nearest: fewest limits that are not met, then the objective.

    A candidate that is worse than fp32 in the objective is chosen only in case 4, when
    the limits ask for what fp32 does not give.
    """
    better = [one for one in candidates if improves(one, fp32, goal)]
    for status in ("met", "not shown"):
        found = [one for one in better if one.status == status and _within(one)]
        if found:
            return min(found, key=lambda one: _rank(one, goal)), found[0].status
    if fp32.status == "met":
        return fp32, "met"
    nearest = min([*candidates, fp32], key=lambda one: (_missed(one), _rank(one, goal)))
    return nearest, nearest.status


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


def order(candidates: Sequence[Candidate], goal: Goal) -> list[Candidate]:
    """Returns the candidates, best objective first; equals by name, so that ties are stable."""
    return sorted(candidates, key=lambda one: _rank(one, goal))


def _rank(candidate: Candidate, goal: Goal) -> tuple[float, str]:
    measured = candidate.measured.get(_QUANTITY[goal.objective])
    if measured is None:
        return float("inf"), candidate.name
    return (measured.value if measured.better == "lower" else -measured.value), candidate.name


def _missed(candidate: Candidate) -> tuple[int, int]:
    statuses = [verdict.status for verdict in candidate.verdicts]
    return statuses.count("not met"), statuses.count("not shown")


def _within(candidate: Candidate) -> bool:
    """Returns whether no verdict fails on its value: "not shown" ones could still be met."""
    return all(
        verdict.status == "met" or (verdict.status == "not shown" and verdict.within)
        for verdict in candidate.verdicts
    )
