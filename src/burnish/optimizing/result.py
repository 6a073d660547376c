# SPDX-License-Identifier: Apache-2.0
"""What an optimization found, and how it is kept, printed and bundled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from burnish.core.candidate import Candidate
from burnish.core.goal import Goal, Status, Verdict
from burnish.core.technique import Skipped


@dataclass(frozen=True)
class Result:
    """The baselines, the frontier and the choice.

    `baselines`: first the source framework's eager run when a module was given, then the
    original model on every engine, the fastest (`fp32`) first. `candidates`: what was kept
    after screening, best objective first. `best`: the candidate that was chosen; when
    `status` is not "met" it is the nearest to the goal, and may be the baseline itself.
    `stages`: where training was called for, what each stage gave, from the baseline on:
    (what was added, the model then). `passed_over`: recipes and engines that were dropped,
    and why.
    """

    model: str
    """What was optimized: a file's name or a module's."""
    task: str
    goal: Goal
    status: Status
    best: Candidate
    fp32: Candidate
    baselines: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    passed_over: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    machine: Mapping[str, Any]
    """The machine as `Machine.to_dict` gives it, engine versions included."""
    protocol: Mapping[str, Any]
    """How it was measured: samples, rounds, seed, budget and time taken in seconds."""
    command: str
    """The exact command, or call, that reproduces it."""
    created: str
    """The time in UTC, ISO 8601."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[tuple[str, Candidate], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; `from_dict` is its inverse."""
        return {
            "model": self.model,
            "task": self.task,
            "goal": self.goal.to_dict(),
            "status": self.status,
            "best": self.best.to_dict(),
            "fp32": self.fp32.to_dict(),
            "baselines": [one.to_dict() for one in self.baselines],
            "candidates": [one.to_dict() for one in self.candidates],
            "passed_over": [vars(one) for one in self.passed_over],
            "warnings": list(self.warnings),
            "machine": dict(self.machine),
            "protocol": dict(self.protocol),
            "command": self.command,
            "created": self.created,
            "extra": dict(self.extra),
            "stages": [[added, one.to_dict()] for added, one in self.stages],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Result:
        """Returns the result that `to_dict` wrote."""
        return Result(
            model=data["model"],
            task=data["task"],
            goal=Goal(**data["goal"]),
            status=data["status"],
            best=Candidate.from_dict(data["best"]),
            fp32=Candidate.from_dict(data["fp32"]),
            baselines=tuple(map(Candidate.from_dict, data["baselines"])),
            candidates=tuple(map(Candidate.from_dict, data["candidates"])),
            passed_over=tuple(Skipped(**one) for one in data["passed_over"]),
            warnings=tuple(data["warnings"]),
            machine=data["machine"],
            protocol=data["protocol"],
            command=data["command"],
            created=data["created"],
            extra=data["extra"],
            stages=tuple((added, Candidate.from_dict(one)) for added, one in data["stages"]),
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The chosen candidate's verdicts on the goal."""
        return self.best.verdicts
