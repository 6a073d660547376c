# SPDX-License-Identifier: Apache-2.0
"""What must hold, what to improve, and the verdict on a candidate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from burnish.core.errors import Misuse, unknown
from burnish.core.measurement import Measurement

Status = Literal["met", "not met", "not shown"]
OBJECTIVES = ("latency", "accuracy", "size", "throughput", "memory")


@dataclass(frozen=True)
class Verdict:
    """Whether one requirement holds.

    `got` describes the measurement and `n_more` says, for "not shown", how many more
    samples would settle it if the measured values stayed as they are (None: unknown).
    """

    requirement: str
    status: Status
    got: str
    n_more: int | None = None
    within: bool = False
    """Whether the measured value itself, its interval aside, is within the limit."""

    def __str__(self) -> str:
        more = f"; about {self.n_more} more samples would tell" if self.n_more else ""
        return f"{self.requirement}: {self.status} ({self.got}{more})"


@dataclass(frozen=True)
class Goal:
    """Limits, each optional, and one objective to improve within them.

    `max_drop`: the metric's largest loss, in its own unit (points for percentages), or
    relative to the baseline as "1%", which is the default: an accuracy may not fall unnoticed.
    None lifts the limit. `max_latency_ms` is for one request of one sample
    at the median; `min_speedup` is against the best fp32 engine. `max_size_ratio` and
    `max_size_bytes` bound the file, `max_memory_bytes` the peak resident memory of a
    process that serves it, `min_throughput` the samples per second.
    """

    max_drop: float | str | None = "1%"
    max_latency_ms: float | None = None
    min_speedup: float | None = None
    max_size_bytes: int | None = None
    max_size_ratio: float | None = None
    max_memory_bytes: int | None = None
    min_throughput: float | None = None
    objective: str = "latency"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        if isinstance(self.max_drop, str):
            _percent(self.max_drop)
        for name, value in asdict(self).items():
            if name in ("objective", "max_drop") or value is None:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise Misuse(f"Goal.{name} must be a number above 0, got {value!r}")
        if isinstance(self.max_drop, int | float) and not 0 <= self.max_drop < math.inf:
            raise Misuse(f"Goal.max_drop must be 0 or more, got {self.max_drop!r}")

    def drop_limit(self, baseline: float) -> float | None:
        """Returns the largest drop in the metric's own unit, or None when there is no limit."""
        if isinstance(self.max_drop, str):
            return abs(baseline) * _percent(self.max_drop)
        return self.max_drop

    def judge(
        self, measured: Mapping[str, Measurement], baseline: Mapping[str, Measurement]
    ) -> tuple[Verdict, ...]:
        """Returns a verdict for each limit that is set.

        `measured` holds the candidate's measurements by quantity: "drop" (paired, positive
        when worse), "latency", "speedup", "size", "memory", "throughput"; a limit on
        something that was not measured is "not shown". `baseline` holds the original's
        "metric" and "size".
        """
        drop = "drop at most"
        if isinstance(self.max_drop, str) and "metric" not in baseline:
            drop += f" {self.max_drop} of the metric"  # of what, nobody knows
        limits: list[tuple[str, str, float | None, bool]] = [
            ("drop", drop, self.drop_limit(_value(baseline, "metric")), True),
            ("latency", "latency at most", self.max_latency_ms, True),
            ("speedup", "speed-up at least", self.min_speedup, False),
            ("size", "size at most", self._size_limit(baseline), True),
            ("memory", "memory at most", self.max_memory_bytes, True),
            ("throughput", "throughput at least", self.min_throughput, False),
        ]
        return tuple(
            _verdict(words, limit, measured.get(quantity), at_most)
            for quantity, words, limit, at_most in limits
            if limit is not None
        )

    def _size_limit(self, baseline: Mapping[str, Measurement]) -> float | None:
        limits = [float(self.max_size_bytes)] if self.max_size_bytes is not None else []
        if self.max_size_ratio is not None:
            limits.append(self.max_size_ratio * _value(baseline, "size"))
        return min(limits) if limits else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the limits that are set, max_drop always, and the objective."""
        data = {name: value for name, value in asdict(self).items() if value is not None}
        return data | {"max_drop": self.max_drop}


def overall(verdicts: tuple[Verdict, ...]) -> Status:
    """Returns "met" when all are met, "not met" when one is not, else "not shown"."""
    statuses = {verdict.status for verdict in verdicts}
    if "not met" in statuses:
        return "not met"
    return "not shown" if "not shown" in statuses else "met"


def _verdict(words: str, limit: float, measured: Measurement | None, at_most: bool) -> Verdict:
    if measured is None:
        shown = words if math.isnan(limit) else f"{words} {limit:.4g}"
        return Verdict(shown, "not shown", "not measured")
    requirement = f"{words} {limit:.4g} {measured.unit}".rstrip()
    sign = 1.0 if at_most else -1.0
    worst, best = (measured.high, measured.low) if at_most else (measured.low, measured.high)
    status: Status = "not shown"
    if sign * worst <= sign * limit:
        status = "met"
    elif sign * best > sign * limit:
        status = "not met"
    more = None
    margin = sign * (limit - measured.value)
    if status == "not shown" and margin > 0 and measured.n:
        # An interval's half-width falls with the square root of the sample count.
        half = abs(worst - measured.value)
        if half < 1e4 * margin:  # a hopeless margin gives no figure
            more = math.ceil(measured.n * (half / margin) ** 2) - measured.n
    return Verdict(requirement, status, str(measured), more, within=margin >= 0)


def _value(measured: Mapping[str, Measurement], quantity: str) -> float:
    return measured[quantity].value if quantity in measured else math.nan


def _percent(text: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if not match:
        raise Misuse(f'a relative drop is written like "1%", got {text!r}')
    return float(match[1]) / 100
