# SPDX-License-Identifier: Apache-2.0
"""The time that training may take: what the budget leaves, less what must follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from burnish.optimizing.search import Search


@dataclass(frozen=True)
class Allotted:
    """The seconds left of a search's budget when `kept_s` are kept; `key` says for what model."""

    search: Search
    key: str
    kept_s: float

    @property
    def left_s(self) -> float:
        """The seconds left now; below 0 when more is kept than there is."""
        return self.search.budget.left_s - self.kept_s

    def seconds_for(self, stage: str) -> float:
        """Returns the seconds left when the stage was first asked about, by any run.

        So a run that resumes, or the same command again, trains as long.
        """
        question = ["seconds for", stage, self.search.budget.total_s, self.key]
        return float(self.search.bench.remember(question, lambda: self.left_s))

    def keeping(self, seconds: float) -> Allotted:
        """Returns the time with so many seconds more kept for what follows."""
        return replace(self, kept_s=self.kept_s + seconds)
