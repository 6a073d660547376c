# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics, read from the counts when they are asked for; requests pay nothing.

Units are the base units of Prometheus: seconds, bytes, ratios. The buckets of the whole
request's time are each √2 times the one before, those of its stages twice: `BOUNDS_MS`,
thinned, for a series a bucket is what a scrape costs. GPUs are there when the package
nvidia-ml-py is.

Writing the text takes milliseconds. A server reads the counts on its event loop (`seen`,
which takes microseconds), and has them written on another thread (`written`).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from burnish.serving.admission import Reason
from burnish.serving.batching import Batching
from burnish.serving.counts import BOUNDS_MS, Histogram, ModelCounts
from burnish.serving.repository import Repository
from burnish.serving.showing.resources import burnish_version, gpus, process

_WHOLE_EVERY, _PART_EVERY = 2, 4
_PARTS = ("queue", "gather", "run", "respond")
_MODEL = ("model", "version")
_BATCH_BOUNDS = tuple(2**power for power in range(11))


@dataclass(frozen=True)
class SeenModel:
    """A served model as it was at one moment; its counts are copies."""

    name: str
    version: str
    counts: ModelCounts
    waiting: int
    in_flight: int
    batching: Batching
    max_batch_size: int


@dataclass(frozen=True)
class Seen:
    """All that the metrics are written from; `states` says of each known model if it answers."""

    models: tuple[SeenModel, ...]
    states: tuple[tuple[str, str, bool], ...]
    loop_lag: Histogram


def exposition(repository: Repository, loop_lag: Histogram, accept: str = "") -> tuple[bytes, str]:
    """Returns the metrics as text, and its content type: OpenMetrics where `accept` prefers it."""
    return written(seen(repository, loop_lag), accept)


def seen(repository: Repository, loop_lag: Histogram) -> Seen:
    """Returns what is counted now; to be called on the event loop."""
    return Seen(
        tuple(
            SeenModel(
                one.name,
                one.version,
                _copy(one.counts),
                one.waiting,
                one.in_flight,
                one.batching,
                one.max_batch_size,
            )
            for one in repository.models()
        ),
        tuple((one["name"], one["version"], one["state"] == "READY") for one in repository.index()),
        _copy_of(loop_lag),
    )


def written(now: Seen, accept: str = "") -> tuple[bytes, str]:
    """Returns the text and its content type; may run on any thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(now))
    if prefers_openmetrics(accept):
        write: Any = openmetrics.generate_latest  # it has no types
        return write(registry), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _copy(counts: ModelCounts) -> ModelCounts:
    return replace(
        counts,
        stages={stage: _copy_of(histogram) for stage, histogram in counts.stages.items()},
        rejections=counts.rejections.copy(),
        batches=counts.batches.copy(),
        batch_ms=dict(counts.batch_ms),
    )


def _copy_of(histogram: Histogram) -> Histogram:
    return replace(histogram, counts=list(histogram.counts))


def prefers_openmetrics(accept: str) -> bool:
    """Says whether a header Accept asks for OpenMetrics at least as much as for plain text.

    >>> prefers_openmetrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3")
    True
    >>> prefers_openmetrics("text/html,*/*;q=0.8")
    False
    """
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (one.strip().lower() for one in part.split(";"))
        if kind in weights:
            weights[kind] = max(weights[kind], _weight(parameters))
    wanted = weights["application/openmetrics-text"]
    return wanted > 0 and wanted >= weights["text/plain"]


def _weight(parameters: Iterable[str]) -> float:
    for one in parameters:
        if one.startswith("q="):
            try:
                return float(one[2:])
            except ValueError:
                return 0.0
    return 1.0


class _Counts(Collector):
    def __init__(self, now: Seen) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        models = self._now.models
        yield from _requests(models)
        yield from _times(models)
        yield from _batches(models)
        yield from _gauges(models)
        yield self._readiness()
        yield from _server(self._now.loop_lag)
        yield from _gpus()

    def _readiness(self) -> Metric:
        ready = GaugeMetricFamily(
            "burnish_model_ready", "Whether the model answers: 1, or 0.", labels=_MODEL
        )
        for name, version, answers in self._now.states:
            ready.add_metric((name, version), float(answers))
        return ready


def _requests(models: tuple[SeenModel, ...]) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "burnish_requests",
        "Requests by what became of them: answered, failed (by our fault), rejected, or "
        "cancelled (the client went away).",
        labels=(*_MODEL, "outcome"),
    )
    rejected = CounterMetricFamily(
        "burnish_requests_rejected",
        "Requests that were not answered for want of time or room, by the reason.",
        labels=(*_MODEL, "reason"),
    )
    in_slo = CounterMetricFamily(
        "burnish_requests_in_slo",
        "Requests answered by their deadline: the objective, or a shorter timeout of their own.",
        labels=_MODEL,
    )
    rows = CounterMetricFamily("burnish_rows", "Rows of answered requests.", labels=_MODEL)
    for one in models:
        labels, counts = (one.name, one.version), one.counts
        outcomes.add_metric((*labels, "answered"), counts.answered)
        outcomes.add_metric((*labels, "failed"), counts.failed)
        outcomes.add_metric((*labels, "rejected"), counts.rejections.total())
        outcomes.add_metric((*labels, "cancelled"), counts.cancelled)
        for reason in _reasons(counts.rejections):
            rejected.add_metric((*labels, reason), counts.rejections[reason])
        in_slo.add_metric(labels, counts.in_slo)
        rows.add_metric(labels, counts.rows)
    yield from (outcomes, rejected, in_slo, rows)


def _reasons(rejections: Counter[str]) -> list[str]:
    """Returns all reasons there are, so that a rate is known before the first rejection."""
    return list(dict.fromkeys([*(reason.name.lower() for reason in Reason), *rejections]))


def _times(models: tuple[SeenModel, ...]) -> Iterator[Metric]:
    whole = HistogramMetricFamily(
        "burnish_request_duration_seconds",
        "From a request's arrival to its answer's last byte being handed over.",
        labels=_MODEL,
    )
    parts = HistogramMetricFamily(
        "burnish_request_stage_duration_seconds",
        "Stages of a request: queue (waiting for a stream), gather (making the batch), run "
        "(the engine), respond (back to the client).",
        labels=(*_MODEL, "stage"),
    )
    for one in models:
        labels, stages = (one.name, one.version), one.counts.stages
        _add(whole, labels, stages["total"], _WHOLE_EVERY)
        for stage in _PARTS:
            _add(parts, (*labels, stage), stages[stage], _PART_EVERY)
    yield from (whole, parts)


def _batches(models: tuple[SeenModel, ...]) -> Iterator[Metric]:
    sizes = HistogramMetricFamily(
        "burnish_batch_rows", "Rows in a batch, for each run of the engine.", labels=_MODEL
    )
    busy = CounterMetricFamily(
        "burnish_engine_busy_seconds",
        "Time that the streams ran batches: at most burnish_streams seconds a second.",
        labels=_MODEL,
    )
    for one in models:
        labels, batches = (one.name, one.version), one.counts.batches
        buckets = [
            (str(float(bound)), sum(runs for size, runs in batches.items() if size <= bound))
            for bound in _BATCH_BOUNDS
        ]
        buckets.append(("+Inf", batches.total()))
        sizes.add_metric(labels, buckets, sum(size * runs for size, runs in batches.items()))
        busy.add_metric(labels, sum(one.counts.batch_ms.values()) / 1e3)
    yield from (sizes, busy)


def _gauges(models: tuple[SeenModel, ...]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "burnish_queue_depth", "Requests that wait for a stream.", labels=_MODEL
    )
    in_flight = GaugeMetricFamily(
        "burnish_requests_in_flight", "Requests that are not answered yet.", labels=_MODEL
    )
    limit = GaugeMetricFamily(
        "burnish_queue_limit", "Requests that may wait at most.", labels=_MODEL
    )
    slo = GaugeMetricFamily(
        "burnish_slo_seconds", "The latency that answers must keep; +Inf for none.", labels=_MODEL
    )
    most = GaugeMetricFamily("burnish_max_batch_rows", "Rows that a batch may have.", labels=_MODEL)
    streams = GaugeMetricFamily("burnish_streams", "Batches that run at once.", labels=_MODEL)
    last = GaugeMetricFamily(
        "burnish_last_answer_timestamp_seconds",
        "When a request was answered last, since 1970; 0 for never.",
        labels=_MODEL,
    )
    for one in models:
        labels = (one.name, one.version)
        waiting.add_metric(labels, one.waiting)
        in_flight.add_metric(labels, one.in_flight)
        limit.add_metric(labels, one.batching.limits.requests)
        slo.add_metric(labels, one.batching.slo_ms / 1e3)
        most.add_metric(labels, one.max_batch_size)
        streams.add_metric(labels, one.batching.streams)
        last.add_metric(labels, one.counts.last_answer_s)
    yield from (waiting, in_flight, limit, slo, most, streams, last)


def _server(loop_lag: Histogram) -> Iterator[Metric]:
    now = process()
    yield CounterMetricFamily(
        "burnish_process_cpu_seconds", "CPU time of the server, user and system.", now.cpu_s
    )
    yield GaugeMetricFamily(
        "burnish_process_resident_memory_bytes", "Memory that the server holds.", now.resident_bytes
    )
    if now.open_files is not None:
        yield GaugeMetricFamily(
            "burnish_process_open_fds", "Files, sockets and pipes that are open.", now.open_files
        )
    yield GaugeMetricFamily("burnish_process_threads", "Threads of the server.", now.threads)
    yield GaugeMetricFamily(
        "burnish_process_start_time_seconds", "When the server started, since 1970.", now.started_s
    )
    lag = HistogramMetricFamily(
        "burnish_event_loop_lag_seconds",
        "How late the event loop was, sampled 50 times a second: what blocks it shows here.",
        labels=(),
    )
    _add(lag, (), loop_lag, _PART_EVERY)
    yield lag
    build = InfoMetricFamily("burnish_build", "The versions of Burnish and of Python.")
    build.add_metric((), {"version": burnish_version(), "python": platform.python_version()})
    yield build


def _gpus() -> Iterator[Metric]:
    labels = ("gpu", "name")
    used = GaugeMetricFamily(
        "burnish_gpu_memory_used_bytes", "Memory of the GPU in use, by any process.", labels=labels
    )
    size = GaugeMetricFamily(
        "burnish_gpu_memory_size_bytes", "Memory that the GPU has.", labels=labels
    )
    busy = GaugeMetricFamily(
        "burnish_gpu_utilization_ratio", "Share of time that the GPU ran kernels.", labels=labels
    )
    for gpu in gpus():
        for family, value in (
            (used, gpu.memory_used_bytes),
            (size, gpu.memory_size_bytes),
            (busy, gpu.busy_ratio),
        ):
            if value is not None:
                family.add_metric((str(gpu.index), gpu.name), value)
    yield from (family for family in (used, size, busy) if family.samples)


def _add(
    family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram, every: int
) -> None:
    """Adds a histogram, counted up to each bound as Prometheus has it, with one bound of `every`.

    Which ones they are does not depend on the counts, so they can be summed over servers.
    """
    below = list(accumulate(histogram.counts))
    buckets = [
        (f"{BOUNDS_MS[place] / 1e3:.6g}", below[place]) for place in range(0, len(BOUNDS_MS), every)
    ]
    family.add_metric(labels, [*buckets, ("+Inf", below[-1])], histogram.sum_ms / 1e3)
