# SPDX-License-Identifier: Apache-2.0
"""What latency is to be kept, and by how many of the answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from burnish.core.errors import Misuse


@dataclass(frozen=True)
class Slo:
    """Of the requests that come, `percentile` percent are to be answered within `ms`.

    One that is refused counts as one that is not answered in time.

    >>> str(Slo(50.0, 99.9))
    'p99.9 ≤ 50 ms'
    """

    ms: float
    percentile: float = 99.0

    def __post_init__(self) -> None:
        if not 0 < self.ms < math.inf:
            raise Misuse(f"the SLO's latency must be above 0 ms and finite, got {self.ms}")
        if not 1 <= self.percentile <= 99.99:
            raise Misuse(f"the SLO's percentile is from 1 to 99.99, got {self.percentile:g}")

    @property
    def ratio(self) -> float:
        """The percentile as a share."""
        return self.percentile / 100

    def __str__(self) -> str:
        return f"p{self.percentile:g} ≤ {self.ms:g} ms"
