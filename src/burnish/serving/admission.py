# SPDX-License-Identifier: Apache-2.0
"""Whether a request that arrives can be answered in time.

The rule is asked once, at arrival, so that who cannot be served hears so at once. It takes
every batch ahead to be full and as slow as promised:

    finish = a stream is free + ⌈(rows ahead + own rows) / b*⌉ · t_q(b*)

Predicting with the batch as it stands now is too hopeful: later arrivals fill it, and every
request in it then comes late.

Source: the idea of rejecting at arrival is that of Gujarati et al., "Serving DNNs like
Clockwork", 2020, §4; full batches are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from burnish.core.errors import Misuse


class Reason(StrEnum):
    """Why a request is not answered."""

    COUNT = "queue full: requests"
    BYTES = "queue full: bytes"
    TOO_LARGE = "larger than the queue"
    IMPOSSIBLE = "deadline too short even without a queue"
    DEADLINE = "would be late"
    DISPLACING = "would make others late"
    LATE = "became late in the queue"


class Rejection(NamedTuple):
    """A request that will not be answered."""

    reason: Reason
    retry_after_ms: float | None
    """When to ask again, from now; None when asking again is no use."""


@dataclass(frozen=True)
class Limits:
    """How much may wait, whatever the deadlines."""

    requests: int = 1024
    size_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        if self.requests < 1 or self.size_bytes < 1:
            raise Misuse(f"a queue holds at least 1 request and 1 byte, got {self}")

    def hold(self, waiting: Waiting, size_bytes: int) -> bool:
        """Returns whether a request of `size_bytes` may wait with the others."""
        return (
            waiting.requests < self.requests and waiting.size_bytes + size_bytes <= self.size_bytes
        )


class Waiting(NamedTuple):
    """How much waits now."""

    requests: int
    size_bytes: int


class Backlog(NamedTuple):
    """What runs before a request."""

    now_ms: float
    free_ms: tuple[float, ...]
    """When each stream is predicted to be free: ascending, none before now."""
    rows_ahead: int
    """Rows of the same bucket that run before it."""
    batch_size: int
    """b* of the bucket."""
    batch_ms: float
    """t_q(b*) of the bucket."""
    others_ms: float = 0.0
    """Stream time of the full batches of other buckets that run before it."""

    def finish_ms(self, rows: int) -> float:
        """Returns when `rows` more rows of the bucket are done.

        The n-th batch of the bucket runs on the (n mod k)-th of k streams to be free.
        """
        streams = len(self.free_ms)
        rounds, stream = divmod(-(-(self.rows_ahead + rows) // self.batch_size) - 1, streams)
        start_ms = self.free_ms[stream] + self.others_ms / streams
        return start_ms + (rounds + 1) * self.batch_ms


def over_limits(
    size_bytes: int, waiting: Waiting, limits: Limits, backlog: Backlog
) -> Rejection | None:
    """Returns the rejection of a request of `size_bytes` for want of room, or None."""
    if limits.hold(waiting, size_bytes):
        return None
    room_ms = backlog.free_ms[0] - backlog.now_ms + backlog.batch_ms
    if size_bytes > limits.size_bytes:
        return Rejection(Reason.TOO_LARGE, None)
    if waiting.requests + 1 > limits.requests:
        return Rejection(Reason.COUNT, room_ms)
    return Rejection(Reason.BYTES, room_ms)


def too_late(
    rows: int, deadline_ms: float, alone_ms: float, backlog: Backlog, runs_now: bool
) -> Rejection | None:
    """Returns the rejection of a request that would miss its deadline, or None.

    `alone_ms` is how long its rows take with nothing else to do; `runs_now` says that they
    start at once, so that no later arrival can join them.
    """
    if deadline_ms == math.inf:
        return None
    if backlog.now_ms + alone_ms > deadline_ms:
        return Rejection(Reason.IMPOSSIBLE, None)
    if runs_now:
        return None
    late_ms = backlog.finish_ms(rows) - deadline_ms
    return Rejection(Reason.DEADLINE, late_ms) if late_ms > 0 else None


def displaces(rows: int, behind: Iterable[tuple[int, float]], backlog: Backlog) -> Rejection | None:
    """Returns the rejection of a request that would make one behind it late, or None.

    `behind` are rows and deadlines of the requests of its bucket and priority that would
    run after it, in their order. One that is late already is no reason.
    """
    between = 0
    for own_rows, deadline_ms in behind:
        between += own_rows
        late_ms = backlog.finish_ms(rows + between) - deadline_ms
        if late_ms > 0 and backlog.finish_ms(between) <= deadline_ms:
            return Rejection(Reason.DISPLACING, late_ms)
    return None
