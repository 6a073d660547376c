# SPDX-License-Identifier: Apache-2.0
"""One point of the frontier: a recipe, the model it made, an engine, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from burnish.core.goal import Status, Verdict, overall
from burnish.core.measurement import Measurement
from burnish.core.technique import Skipped


@dataclass(frozen=True)
class Setting:
    """How an engine runs a model: threads for one call, and calls run side by side.

    Both are at least 1. `threads` × `streams` beyond the usable cores is allowed, since
    measuring decides what pays.
    """

    threads: int = 1
    streams: int = 1

    def __str__(self) -> str:
        return f"{_count(self.threads, 'thread')} × {_count(self.streams, 'stream')}"


@dataclass(frozen=True)
class Candidate:
    """A recipe's model on one engine, with its measurements by quantity.

    Quantities: "latency" (ms, batch 1, median), "speedup" (paired, against the best fp32
    engine), "metric" and "drop" (the Task's own, paired), "agreement" (% of samples with
    the baseline's answer), "size", "memory", "load" (ms), "throughput". The baseline is
    the candidate of the empty recipe. `model` is a digest into the store; it is empty
    for the source framework's own run, which is no Burnish model.
    """

    name: str
    recipe: Sequence[Mapping[str, Any]]
    model: str
    engine: str
    setting: Setting
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    applied: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the report: latency samples, throughput by batch, percentiles."""

    @property
    def status(self) -> Status:
        """The verdicts as one: met, not met, or not shown."""
        return overall(self.verdicts)

    def with_measured(self, **more: Measurement) -> Candidate:
        """Returns the candidate with these measurements added."""
        return replace(self, measured={**self.measured, **more})

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON; `from_dict` is its inverse."""
        return {
            "name": self.name,
            "recipe": [dict(step) for step in self.recipe],
            "model": self.model,
            "engine": self.engine,
            "setting": vars(self.setting),
            "measured": {key: one.to_dict() for key, one in self.measured.items()},
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "status": self.status,
            "applied": list(self.applied),
            "skipped": [vars(skipped) for skipped in self.skipped],
            "detail": dict(self.detail),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Candidate:
        """Returns the candidate that `to_dict` wrote."""
        return Candidate(
            name=data["name"],
            recipe=tuple(data["recipe"]),
            model=data["model"],
            engine=data["engine"],
            setting=Setting(**data["setting"]),
            measured={key: Measurement.from_dict(one) for key, one in data["measured"].items()},
            verdicts=tuple(Verdict(**verdict) for verdict in data["verdicts"]),
            applied=tuple(data["applied"]),
            skipped=tuple(Skipped(**skipped) for skipped in data["skipped"]),
            detail=data["detail"],
        )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def dominates(a: Candidate, b: Candidate, quantities: Sequence[str]) -> bool:
    """Returns whether `a` is at least as good as `b` in every quantity and better in one.

    Values are compared, not intervals. A quantity that either lacks does not count.
    """
    better = False
    for quantity in quantities:
        if quantity not in a.measured or quantity not in b.measured:
            continue
        one, other = a.measured[quantity], b.measured[quantity]
        sign = 1.0 if one.better == "lower" else -1.0
        if sign * one.value > sign * other.value:
            return False
        better = better or sign * one.value < sign * other.value
    return better


def frontier(candidates: Sequence[Candidate], quantities: Sequence[str]) -> list[Candidate]:
    """Returns the candidates that no other dominates, in the order given."""
    return [
        one
        for one in candidates
        if not any(dominates(other, one, quantities) for other in candidates)
    ]
