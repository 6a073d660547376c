# SPDX-License-Identifier: Apache-2.0
"""The serving policy against made-up traffic: a discrete-event simulation.

It runs the batcher that serves, so what it says of a policy is what the server will do,
but for what it leaves out: the network, and the time that deciding takes. An engine is a
function from a batch to its milliseconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from burnish.core.errors import Broken
from burnish.serving.admission import Reason
from burnish.serving.arrivals import Arrival
from burnish.serving.batcher import Batcher
from burnish.serving.request import Batch, Request

Service = Callable[[Batch], float]
"""How long a batch takes, in milliseconds above 0."""

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

_COMPLETE, _CANCEL, _ARRIVE, _WAKE = range(4)  # the order of what happens at one moment


@dataclass(frozen=True)
class Simulation:
    """What came of a trace."""

    offered: int
    latencies_ms: tuple[float, ...]
    """From arrival to answer, in the order of answers."""
    in_slo: int
    """Answers within the SLO and the request's own timeout."""
    rejections: Mapping[Reason, int]
    rejected_after_ms: tuple[float, ...]
    """From arrival to rejection."""
    cancelled: int
    batch_sizes: Mapping[int, int]
    """Batches by rows."""
    busy_ms: float
    """Stream time spent in the engine."""
    streams: int
    duration_ms: float
    """From the first arrival to the last arrival or completed batch."""

    @property
    def answered(self) -> int:
        """Requests answered, in time or late."""
        return len(self.latencies_ms)

    @property
    def mean_ms(self) -> float:
        """Mean latency of the answered requests; NaN without any."""
        return float(np.mean(self.latencies_ms)) if self.latencies_ms else math.nan

    @property
    def latency_ms(self) -> Mapping[float, float]:
        """Percentiles of latency; NaN without answers."""
        return _percentiles(self.latencies_ms)

    @property
    def time_to_rejection_ms(self) -> Mapping[float, float]:
        """Percentiles of the time to rejection; NaN without rejections."""
        return _percentiles(self.rejected_after_ms)

    @property
    def goodput_per_s(self) -> float:
        """Requests answered in time, a second."""
        return 1e3 * self.in_slo / self.duration_ms if self.duration_ms else 0.0

    @property
    def utilisation_ratio(self) -> float:
        """The share of stream time spent in the engine."""
        return self.busy_ms / (self.streams * self.duration_ms) if self.duration_ms else 0.0


def simulate(
    arrivals: Iterable[Arrival],
    batcher: Batcher,
    service: Service,
    slo_ms: float | None = None,
) -> Simulation:
    """Returns what becomes of a trace, in ascending or any order, until all is answered.

    `batcher` must be fresh. `slo_ms` judges the answers, the batcher's own SLO unless given;
    give it with a batcher that has none to see what comes of serving without admission.
    """
    run = _Run(batcher, service, batcher.batching.slo_ms if slo_ms is None else slo_ms)
    return run.over(sorted(arrivals, key=lambda arrival: arrival.at_ms))


@dataclass
class _Run:
    batcher: Batcher
    service: Service
    slo_ms: float
    events: list[tuple[float, int, int, int]] = field(default_factory=list)  # time, kind, order, id
    orders: itertools.count[int] = field(default_factory=itertools.count)
    latencies_ms: list[float] = field(default_factory=list)
    rejected_after_ms: list[float] = field(default_factory=list)
    rejections: Counter[Reason] = field(default_factory=Counter)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    in_slo: int = 0
    cancelled: int = 0
    busy_ms: float = 0.0
    woken_ms: float = math.inf

    def over(self, arrivals: Sequence[Arrival]) -> Simulation:
        for index, arrival in enumerate(arrivals):
            self.at(arrival.at_ms, _ARRIVE, index)
        now_ms = last_ms = arrivals[0].at_ms if arrivals else 0.0
        first_ms = now_ms
        while self.events:
            now_ms, kind, _, which = heapq.heappop(self.events)
            if kind == _ARRIVE:
                self.arrive(which, arrivals[which])
            elif kind == _COMPLETE:
                for request in self.batcher.complete(which, now_ms):
                    self.answer(request, arrivals[request.id], now_ms)
            elif kind == _CANCEL:
                self.cancelled += self.batcher.cancel(which)
            else:
                self.woken_ms = math.inf
            self.dispatch(now_ms)
            if kind in (_ARRIVE, _COMPLETE):
                last_ms = now_ms
        settled = len(self.latencies_ms) + len(self.rejected_after_ms) + self.cancelled
        if settled != len(arrivals):
            raise Broken(f"{len(arrivals)} requests came, {settled} were settled")
        return Simulation(
            offered=len(arrivals),
            latencies_ms=tuple(self.latencies_ms),
            in_slo=self.in_slo,
            rejections=dict(self.rejections),
            rejected_after_ms=tuple(self.rejected_after_ms),
            cancelled=self.cancelled,
            batch_sizes=dict(sorted(self.batch_sizes.items())),
            busy_ms=self.busy_ms,
            streams=self.batcher.batching.streams,
            duration_ms=last_ms - first_ms,
        )

    def at(self, time_ms: float, kind: int, which: int) -> None:
        heapq.heappush(self.events, (time_ms, kind, next(self.orders), which))

    def arrive(self, index: int, arrival: Arrival) -> None:
        request = Request(
            id=index,
            rows=arrival.rows,
            arrival_ms=arrival.at_ms,
            deadline_ms=self.batcher.batching.deadline_ms(arrival.at_ms, arrival.timeout_ms),
            priority=arrival.priority,
            axes=arrival.axes,
            size_bytes=arrival.size_bytes,
        )
        rejection = self.batcher.offer(request, arrival.at_ms)
        if rejection is not None:
            self.reject(rejection.reason, 0.0)
        elif arrival.cancelled_after_ms < math.inf:
            self.at(arrival.at_ms + arrival.cancelled_after_ms, _CANCEL, index)

    def answer(self, request: Request, arrival: Arrival, now_ms: float) -> None:
        latency_ms = now_ms - request.arrival_ms
        self.latencies_ms.append(latency_ms)
        # Sums of times differ in their last digits, by the order in which they were added.
        self.in_slo += latency_ms <= min(self.slo_ms, arrival.timeout_ms) + 1e-6

    def reject(self, reason: Reason, after_ms: float) -> None:
        self.rejections[reason] += 1
        self.rejected_after_ms.append(after_ms)

    def dispatch(self, now_ms: float) -> None:
        decided = self.batcher.dispatch(now_ms)
        for request, rejection in decided.dropped:
            self.reject(rejection.reason, now_ms - request.arrival_ms)
        for batch in decided.batches:
            took_ms = self.service(batch)
            self.batch_sizes[batch.size] += 1
            self.busy_ms += took_ms
            self.at(now_ms + took_ms, _COMPLETE, batch.id)
        wake_ms = self.batcher.wake_ms()
        if wake_ms < self.woken_ms:
            self.woken_ms = wake_ms
            self.at(wake_ms, _WAKE, 0)


def _percentiles(values: Sequence[float]) -> Mapping[float, float]:
    if not values:
        return dict.fromkeys(PERCENTILES, math.nan)
    found = np.percentile(np.asarray(values), PERCENTILES)
    return {rank: float(value) for rank, value in zip(PERCENTILES, found, strict=True)}
