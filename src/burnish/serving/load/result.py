# SPDX-License-Identifier: Apache-2.0
"""What came of a run: the parts of its processes, added up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.serving.load.histogram import Histogram
from burnish.serving.load.slo import PERCENTILES, Slo

TIMEOUT, CONNECTION, PROTOCOL = "timeout", "connection", "protocol"
"""Failures that have no HTTP status: given up, connection refused or lost, no HTTP."""

REJECTIONS = ("429", "503")
_HISTOGRAMS = ("latency", "service", "late", "refusals")
_BEHIND_MS = 5.0


@dataclass(frozen=True, eq=False)
class Part:
    """What one process counted."""

    latency: Histogram
    """Of the answers with a status of 2xx, from when each was due."""
    service: Histogram
    """Of the same, from when each was sent: what a load generator shows that is not careful."""
    late: Histogram
    """How long after it was due each request was taken up: the generator's own delay."""
    failures: Mapping[str, int]
    """By HTTP status, or by kind."""
    in_slo: int | None
    last_s: float
    """When the last request was answered or given up, from the start."""
    resent: int
    waited: int
    opened: int
    cpu_s: float
    wall_s: float
    refusals: Histogram = field(default_factory=Histogram)
    """Of the answers with another status than 2xx, from when each was sent."""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as data for JSON, for another process."""
        return vars(self) | {key: getattr(self, key).to_text() for key in _HISTOGRAMS}

    @staticmethod
    def from_dict(said: Mapping[str, Any]) -> Part:
        """Returns what `to_dict` gave."""
        return Part(**dict(said) | {key: Histogram.from_text(said[key]) for key in _HISTOGRAMS})


@dataclass(frozen=True, eq=False)
class LoadResult:
    """A run, measured. Requests of the warm-up are not in it."""

    url: str
    model: str
    schedule: str
    slo: Slo | None
    offered_per_s: float | None
    """Requests that were due, by the time in which they were; None in a closed loop."""
    elapsed_s: float
    """From the first second that counts to the last answer, at least the duration."""
    latency: Histogram
    service: Histogram
    late: Histogram
    failures: Mapping[str, int]
    in_slo: int | None
    resent: int
    """Sent again, since the server had just ended the idle connection."""
    waited: int
    """Found no free connection when they were due."""
    opened: int
    connections: int
    processes: int
    generator_cpu_ratio: float
    """Of one core, what the generator took."""
    request_bytes: int
    rows: int | None
    refusals: Histogram = field(default_factory=Histogram)

    @property
    def closed(self) -> bool:
        """Whether requests waited for answers."""
        return self.offered_per_s is None

    @property
    def ok(self) -> int:
        """How many requests were answered with 2xx."""
        return self.latency.n

    @property
    def requests(self) -> int:
        """How many requests came to an end, one way or another."""
        return self.ok + sum(self.failures.values())

    @property
    def achieved_per_s(self) -> float:
        """Requests answered with 2xx in a second."""
        return self.ok / self.elapsed_s

    @property
    def goodput_per_s(self) -> float | None:
        """Of those, the ones within the SLO's limit; None without an SLO."""
        return None if self.in_slo is None else self.in_slo / self.elapsed_s

    @property
    def rejected(self) -> int:
        """Requests that the server turned away: 429 and 503."""
        return sum(self.failures.get(status, 0) for status in REJECTIONS)

    @property
    def failure_ratio(self) -> float:
        """The share of requests that were not answered with 2xx."""
        return sum(self.failures.values()) / self.requests if self.requests else math.nan

    @property
    def generator_behind(self) -> bool:
        """Whether 1 % of the requests were taken up so late that the figures say less."""
        late = self.late.percentile_ms(99)
        return late > max(_BEHIND_MS, 0.1 * self.latency.percentile_ms(99))

    def percentile_ms(self, percentile: float) -> float:
        """Returns a percentile of the latency, counted from when requests were due."""
        return self.latency.percentile_ms(percentile)

    def keeps(self, most_failures_ratio: float = 0.01) -> bool:
        """Says whether the SLO is kept, and less than 1 % of the requests failed."""
        return (
            self.slo is not None
            and self.failure_ratio < most_failures_ratio
            and self.percentile_ms(self.slo.percentile) <= self.slo.limit_ms
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns it as data for JSON; the histograms can be read by every HdrHistogram."""
        return {
            "url": self.url,
            "model": self.model,
            "schedule": self.schedule,
            "slo": None if self.slo is None else {self.slo.name: self.slo.limit_ms},
            "slo_kept": None if self.slo is None else self.keeps(),
            "offered_per_s": self.offered_per_s,
            "achieved_per_s": self.achieved_per_s,
            "goodput_per_s": self.goodput_per_s,
            "elapsed_s": self.elapsed_s,
            "requests": self.requests,
            "ok": self.ok,
            "failures": dict(self.failures),
            "rejected": self.rejected,
            "failure_ratio": self.failure_ratio,
            "latency_ms": _summary(self.latency),
            "latency_from_sending_ms": _summary(self.service),
            "refusal_from_sending_ms": _summary(self.refusals),
            "generator": {
                "late_ms": _summary(self.late),
                "behind": self.generator_behind,
                "cpu_ratio": self.generator_cpu_ratio,
                "processes": self.processes,
                "connections": self.connections,
                "opened": self.opened,
                "waited_for_connection": self.waited,
                "resent": self.resent,
            },
            "request_bytes": self.request_bytes,
            "rows": self.rows,
            "histograms_us": {key: getattr(self, key).to_text() for key in _HISTOGRAMS},
        }


def add_up(parts: Sequence[Part]) -> Part:
    """Returns the parts of several processes as one."""
    failures: Counter[str] = Counter()
    for part in parts:
        failures.update(part.failures)
    in_slo = [part.in_slo for part in parts if part.in_slo is not None]
    return Part(
        latency=Histogram.merged(part.latency for part in parts),
        service=Histogram.merged(part.service for part in parts),
        late=Histogram.merged(part.late for part in parts),
        refusals=Histogram.merged(part.refusals for part in parts),
        failures=dict(sorted(failures.items())),
        in_slo=sum(in_slo) if in_slo else None,
        last_s=max(part.last_s for part in parts),
        resent=sum(part.resent for part in parts),
        waited=sum(part.waited for part in parts),
        opened=sum(part.opened for part in parts),
        cpu_s=sum(part.cpu_s for part in parts),
        wall_s=max(part.wall_s for part in parts),
    )


def _summary(histogram: Histogram) -> dict[str, Any]:
    values = histogram.percentiles_ms(PERCENTILES.values())
    return {
        "n": histogram.n,
        "mean": histogram.mean_ms,
        **dict(zip(PERCENTILES, values, strict=True)),
        "max": histogram.max_ms,
        "interval_95": {
            name: list(histogram.interval_ms(percentile))
            for name, percentile in PERCENTILES.items()
        },
    }
