# SPDX-License-Identifier: Apache-2.0
"""What is asked of a model, and the batches that are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from burnish.core.errors import Misuse

Axes = tuple[tuple[str, int], ...]
"""The sizes of a request's free axes by name, the batch axis left out: (("sequence", 37),)."""


@dataclass(frozen=True)
class Request:
    """One request as the policy sees it: how much, until when, how urgent; no tensors."""

    id: int
    rows: int
    """Samples along the batch axis, at least 1."""
    arrival_ms: float
    deadline_ms: float = math.inf
    """When the answer must be there, on the same clock as `arrival_ms`."""
    priority: int = 0
    """Lower runs first, always; a low priority may starve."""
    axes: Axes = ()
    size_bytes: int = 0
    """What it holds in memory while it waits."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise Misuse(f"a request has at least 1 sample, got {self.rows}")
        if self.size_bytes < 0:
            raise Misuse(f"a request's size is at least 0 bytes, got {self.size_bytes}")
        if math.isnan(self.arrival_ms) or math.isnan(self.deadline_ms):
            raise Misuse("a request's arrival and deadline are numbers, got NaN")


class Part(NamedTuple):
    """Rows of one request that run in one batch."""

    request_id: int
    first_row: int
    """The first of them in the request."""
    rows: int
    batch_row: int
    """The first of them in the batch."""


class Batch(NamedTuple):
    """What one call of the engine runs."""

    id: int
    stream: int
    """0 … streams − 1."""
    bucket: Axes
    """The sizes to which every row is padded."""
    parts: tuple[Part, ...]
    started_ms: float

    @property
    def size(self) -> int:
        """The rows of all parts."""
        last = self.parts[-1]
        return last.batch_row + last.rows
