# SPDX-License-Identifier: Apache-2.0
"""One run of load: where, what, when, and what ends it; plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse
from burnish.serving.load.address import address
from burnish.serving.load.payload import Payload
from burnish.serving.load.schedule import ClosedLoop, Schedule
from burnish.serving.load.slo import Slo

_MOST_CONNECTIONS = 10_000
_MOST_PROCESSES = 64
_MOST_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class LoadPlan:
    """A run that ends by itself, whatever the server does."""

    url: str
    payload: Payload
    schedule: Schedule
    duration_s: float = 10.0
    """How long requests are counted."""
    warmup_s: float = 0.0
    """How long the same traffic runs before, uncounted."""
    requests: int | None = None
    """Ends the run earlier, after so many, those of the warm-up included."""
    connections: int = 64
    """The most at a time, in all processes together; in a closed loop, just so many."""
    processes: int = 1
    """1: in this thread. More: each a process of its own, and none here."""
    timeout_s: float = 10.0
    """When a request is given up, counted as its latency is."""
    slo: Slo | None = None
    seed: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, as Authorization."""
    certificate: Path | None = None
    """A PEM file of those to trust, where the URL begins with https; None: the system's."""

    def __post_init__(self) -> None:
        for what, value in (
            ("duration", self.duration_s),
            ("timeout", self.timeout_s),
        ):
            if not 0 < value <= _MOST_SECONDS:
                raise Misuse(f"expected a {what} above 0, to {_MOST_SECONDS:g} s, got {value}")
        if not 0 <= self.warmup_s <= _MOST_SECONDS:
            raise Misuse(f"expected a warm-up of 0 to {_MOST_SECONDS:g} s, got {self.warmup_s}")
        address(self.url, self.certificate)  # raises where that is none, or they do not agree
        if self.requests is not None and self.requests < 1:
            raise Misuse(f"a run has at least 1 request, got {self.requests}")
        if not 1 <= self.processes <= _MOST_PROCESSES:
            raise Misuse(f"expected 1 to {_MOST_PROCESSES} processes, got {self.processes}")
        if not self.processes <= self.connections <= _MOST_CONNECTIONS:
            raise Misuse(
                f"expected {self.processes} (a connection each process) to {_MOST_CONNECTIONS} "
                f"connections, got {self.connections}"
            )

    @property
    def closed(self) -> bool:
        """Whether requests wait for answers."""
        return isinstance(self.schedule, ClosedLoop)


@dataclass(frozen=True)
class Order:
    """What one process has to do of a plan; times in seconds from the start."""

    host: str
    port: int
    connections: int
    timeout_s: float
    count_from_s: float
    until_s: float
    closed: bool
    requests: int | None
    """Of a closed loop, the share of this process."""
    slo_ms: float | None
    tls: bool = False
    certificate: str | None = None
    """A PEM file of those to trust."""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as data for JSON."""
        return dict(vars(self))
