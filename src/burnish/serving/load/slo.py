# SPDX-License-Identifier: Apache-2.0
"""A percentile of the latency, and the limit that it has to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from burnish.core.errors import Misuse, unknown

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}


@dataclass(frozen=True)
class Slo:
    """As "p99=50ms": 99 of 100 answers take at most 50 ms."""

    name: str
    limit_ms: float

    def __post_init__(self) -> None:
        if self.name not in PERCENTILES:
            raise unknown("percentile", self.name, PERCENTILES)
        if not 0 < self.limit_ms < math.inf:
            raise Misuse(f"the limit of an SLO is above 0 ms and finite, got {self.limit_ms}")

    @property
    def percentile(self) -> float:
        """In percent."""
        return PERCENTILES[self.name]

    def __str__(self) -> str:
        return f"{self.name} ≤ {self.limit_ms:g} ms"
