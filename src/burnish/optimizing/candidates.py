# SPDX-License-Identifier: Apache-2.0
"""Turns what was measured of an entry into a Candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from burnish.core.candidate import Candidate, Setting
from burnish.core.measurement import Measurement
from burnish.core.task import Task
from burnish.graph.cost import cost
from burnish.measuring import resources
from burnish.measuring.accuracy import Judged, compare, fixed_batch
from burnish.measuring.machine import machine
from burnish.measuring.timing import Timed
from burnish.optimizing.bench import Bench
from burnish.optimizing.entries import Entry

_BATCH_SIZES = (1, 8, 32)
_RATE_S = 0.3


def make_candidate(
    entry: Entry,
    timed: Timed,
    baseline: Entry,
    verdicts: Mapping[str, Judged],
    task: Task | None,
) -> Candidate:
    """Returns the candidate with latency and, where `verdicts` (by entry key) has it, accuracy."""
    measured = {"latency": timed.latency, "size": resources.size(entry.model)}
    if timed.speedup is not None:
        measured["speedup"] = timed.speedup
    counted = cost(entry.model)
    detail: dict[str, Any] = {
        "round_medians_ms": timed.round_medians_ms,
        "percentiles_ms": timed.percentiles_ms,
        "noise_ratio": timed.noise_ratio,
        "n_calls": timed.n_calls,
        "macs": counted.macs,
        "parameters": counted.parameters,
    }
    if entry.key in verdicts and task is not None:
        own = verdicts[entry.key]
        measured["metric"] = own.value
        comparison = compare(verdicts[baseline.key], own, task.judge())
        measured["drop"] = comparison.drop
        if entry.key == baseline.key:  # against itself it is known, not estimated
            measured["drop"] = replace(comparison.drop, low=0.0, high=0.0)
        if comparison.agreement is not None:
            measured["agreement"] = comparison.agreement
        if comparison.mcnemar_p is not None:
            detail["mcnemar_p"] = comparison.mcnemar_p
    outcome = entry.outcome
    return Candidate(
        name=entry.name,
        recipe=tuple(step.to_dict() for step in entry.recipe.steps()),
        model=entry.model.digest,
        engine=entry.engine.identity,
        setting=entry.setting,
        measured=measured,
        applied=outcome.applied if outcome else (),
        skipped=outcome.skipped if outcome else (),
        detail=detail,
    )


def with_resources(bench: Bench, candidate: Candidate, entry: Entry) -> Candidate:
    """Returns the candidate with size, load time, memory, and throughput by batch and setting."""
    bench.progress(f"measuring the resources of {entry.name}", 0, 0)
    candidate = candidate.with_measured(**bench.resources(entry))
    cores = machine().cores
    settings = list(dict.fromkeys([entry.setting, Setting(1, cores)]))
    fixed = fixed_batch(entry.model.signature)
    points = bench.throughput(entry, settings, (fixed,) if fixed else _BATCH_SIZES, _RATE_S)
    if not points:
        return candidate
    top = max(points, key=lambda point: point["samples_per_s"])
    rate = Measurement(
        "throughput",
        top["samples_per_s"],
        "samples/s",
        "higher",
        top["low"],
        top["high"],
        n=1,
        machine=machine().fingerprint,
        engine=candidate.engine,
        conditions={key: top[key] for key in ("batch_size", "threads", "streams")},
    )
    return replace(
        candidate.with_measured(throughput=rate), detail={**candidate.detail, "throughput": points}
    )
