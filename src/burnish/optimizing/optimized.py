# SPDX-License-Identifier: Apache-2.0
"""What `burnish.optimize` hands back: the result, with the models behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from burnish.core.bundle import Bundle
from burnish.core.candidate import Candidate
from burnish.core.goal import Status
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.optimizing.deploy import save_bundle
from burnish.optimizing.report.terminal import summary
from burnish.optimizing.result import Result


@dataclass(frozen=True)
class Optimized:
    """A result, the model that was given, and the model that was chosen."""

    result: Result
    original: Model
    model: Model
    task: Task | None

    @property
    def best(self) -> Candidate:
        """The candidate that was chosen."""
        return self.result.best

    @property
    def status(self) -> Status:
        """Whether the goal is met, not met, or not shown."""
        return self.result.status

    def table(self, width: int = 100) -> str:
        """Returns the verdict and the table of all candidates as plain text."""
        console = Console(width=width, no_color=True, force_terminal=False)
        with console.capture() as capture:
            console.print(summary(self.result))
        return capture.get()

    def save(self, path: str | Path) -> Bundle:
        """Writes the bundle and returns it. Raises `Misuse` when `path` holds something else."""
        return save_bundle(self.result, self.original, self.model, self.task, path)
