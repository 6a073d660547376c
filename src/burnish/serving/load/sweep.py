# SPDX-License-Identifier: Apache-2.0
"""Runs at one rate after another, to the largest that keeps an SLO."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from burnish.core.errors import Misuse
from burnish.core.progress import Progress, silent
from burnish.serving.load.knee import Search, knee
from burnish.serving.load.plan import LoadPlan
from burnish.serving.load.result import LoadResult
from burnish.serving.load.run import Crew
from burnish.serving.load.schedule import ClosedLoop, at_rate
from burnish.serving.load.slo import Slo

_PROBE_S = 1.0
_REST_S = 0.3  # between steps, for the server to forget the one before


@dataclass(frozen=True, eq=False)
class Step:
    """A rate that was tried, and what came of it."""

    per_s: float
    result: LoadResult

    @property
    def keeps(self) -> bool:
        """Whether the SLO was kept at this rate."""
        return self.result.keeps()


@dataclass(frozen=True, eq=False)
class SweepResult:
    """All steps in the order in which they ran; `best` is the knee, None where no rate holds."""

    slo: Slo
    steps: tuple[Step, ...]
    best: Step | None

    @property
    def bracketed(self) -> bool:
        """Whether a rate that is too high was seen: else the knee lies higher than `best`."""
        return any(not step.keeps for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as data for JSON."""
        return {
            "slo": {self.slo.name: self.slo.limit_ms},
            "knee_per_s": None if self.best is None else self.best.per_s,
            "bracketed": self.bracketed,
            "steps": [
                {"per_s": step.per_s, "keeps": step.keeps, **step.result.to_dict()}
                for step in self.steps
            ],
        }


def run_sweep(
    plan: LoadPlan, search: Search | None = None, progress: Progress = silent
) -> SweepResult:
    """Returns the knee of a server under the plan's schedule, at rising rates.

    plan: must have an SLO; the rate of its schedule does not count, its duration is that
        of each step.
    search: by default it starts at half of what one connection gets through in a closed loop.
    """
    if plan.slo is None:
        raise Misuse('a sweep needs an SLO, as "p99=50ms"')
    at_rate(plan.schedule, 1.0)  # refuses schedules that have no rate
    steps: list[Step] = []
    with Crew(plan.processes) as crew:
        if search is None:
            search = Search(_start(crew, plan, progress))
        while True:
            tried = [(step.per_s, step.keeps) for step in steps]
            per_s = search.next_rate(tried)
            if per_s is None:
                break
            if steps:
                time.sleep(_REST_S)
            # A schedule of its own for each step, or luck would repeat itself.
            at = replace(plan, schedule=at_rate(plan.schedule, per_s), seed=plan.seed + len(steps))
            steps.append(Step(per_s, crew.run(at, progress)))
    best = knee(tried)
    found = next((step for step in steps if step.per_s == best), None)
    return SweepResult(plan.slo, tuple(steps), found)


def _start(crew: Crew, plan: LoadPlan, progress: Progress) -> float:
    probe = replace(
        plan,
        schedule=ClosedLoop(),
        connections=plan.processes,
        duration_s=_PROBE_S,
        requests=None,
    )
    result = crew.run(probe, progress)
    if not result.ok:
        said = ", ".join(f"{kind}: {count}" for kind, count in result.failures.items())
        raise Misuse(f"no request was answered at all ({said or 'none ended'})")
    return max(0.5 * result.achieved_per_s / plan.processes, 0.1)
