# SPDX-License-Identifier: Apache-2.0
"""How one model is served: what an operator chooses of its policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from burnish.core.errors import Misuse
from burnish.serving.admission import Limits
from burnish.serving.shape_buckets import Padding


@dataclass(frozen=True)
class Batching:
    """How one model is served."""

    streams: int = 1
    """Batches that run at once."""
    slo_ms: float = math.inf
    """The latency that answers must keep; it caps the batch size."""
    limits: Limits = field(default_factory=Limits)
    batch_memory_bytes: float = math.inf
    """What the rows of one batch may hold."""
    linger_ms: float = 0.0
    """How long the first request may wait for company while a stream is free."""
    padding: Padding = field(default_factory=Padding)
    max_buckets: int = 64
    """Buckets remembered; the least recently used empty ones beyond are forgotten."""

    def __post_init__(self) -> None:
        if self.streams < 1 or self.max_buckets < 1:
            raise Misuse(f"expected at least 1 stream and 1 bucket, got {self}")
        if not self.slo_ms > 0 or not self.batch_memory_bytes > 0 or not self.linger_ms >= 0:
            raise Misuse(f"expected slo_ms and memory above 0 and linger_ms from 0, got {self}")

    def deadline_ms(self, arrival_ms: float, timeout_ms: float = math.inf) -> float:
        """Returns the deadline of a request: the SLO, or its own timeout if that is shorter."""
        return arrival_ms + min(self.slo_ms, timeout_ms)
