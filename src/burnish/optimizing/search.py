# SPDX-License-Identifier: Apache-2.0
"""One search under way: what it may use, and what it passed over and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.core.errors import BurnishError
from burnish.core.goal import Goal
from burnish.core.recipe import Recipe
from burnish.core.technique import Outcome, Skipped
from burnish.engines.engine import Engine
from burnish.measuring.timing import Timed
from burnish.optimizing.bench import Bench
from burnish.optimizing.budget import Budget
from burnish.optimizing.entries import Entry


@dataclass
class Search:
    """What all stages of a search share."""

    bench: Bench
    goal: Goal
    budget: Budget
    engines: Sequence[Engine]
    threads: Sequence[int]
    passed: list[Skipped] = field(default_factory=list)

    def build(self, name: str, recipe: Recipe) -> Outcome | None:
        """Returns what the recipe makes of the original, or None when it cannot (noted)."""
        self.bench.progress(f"building {name}", 0, 0)
        try:
            return self.bench.build(recipe)
        except BurnishError as error:
            self.drop(name, str(error))
            return None

    def race(
        self, stage: str, entries: Sequence[Entry], baseline: str | Sequence[str], share: float
    ) -> dict[str, Timed]:
        """Returns the timings by key, within a share of the budget; failures are noted.

        The stage "racing" is the last and thorough one, others are brief.
        """
        # The time depends on the budget asked for, not on the clock, so that a run that
        # resumes asks for the same steps.
        final = stage == "racing"
        each_s = 6.0 if final else 1.2
        timed = self.bench.race(
            entries,
            stage=stage,
            baseline=baseline,
            budget_s=min(share * self.budget.total_s, each_s * len(entries)),
            precision_ratio=0.01 if final else 0.05,
            sessions=3 if final else 1,
        )
        for entry in entries:
            failure = timed[entry.key].failed
            if failure is not None:
                self.drop(f"{entry.name} on {entry.engine.name}", failure)
        return timed

    def late(self, place: Sequence[Any], is_late: Callable[[], bool]) -> bool:
        """Returns whether it is too late for a step: decided once, and then remembered.

        So a run that resumes, or the same command again, asks for the same steps.
        """
        question = ["late", *place, self.budget.total_s]
        return bool(self.bench.remember(question, is_late))

    def drop(self, place: str, reason: str) -> None:
        """Notes what is passed over, and why."""
        self.passed.append(Skipped(place, reason))
