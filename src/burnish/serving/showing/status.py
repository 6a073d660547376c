# SPDX-License-Identifier: Apache-2.0
"""The live page, and what it draws: all that was counted since the start, as plain data.

The page asks each second and subtracts; nothing is kept here for it.
"""

from __future__ import annotations

import math
import time
from functools import cache
from importlib.resources import files
from typing import Any

from burnish.engines.hardware import hardware
from burnish.serving.admission import Reason
from burnish.serving.counts import BOUNDS_MS, STAGES, Histogram
from burnish.serving.repository import Repository
from burnish.serving.served_model import ServedModel
from burnish.serving.showing.resources import burnish_version, gpus, process
from burnish.serving.showing.samples import BASE, CURL, infer_sample


def snapshot(repository: Repository, loop_lag: Histogram) -> dict[str, Any]:
    """Returns what the server counted and uses, for JSON: no number in it is NaN or infinite.

    `clock_s` is what rates are computed with: it neither jumps nor follows the client's
    clock. Counts begin anew when a model is loaded anew.
    """
    now, machine = process(), hardware()
    return {
        "clock_s": time.monotonic(),
        "server": {
            "version": burnish_version(),
            "ready": repository.ready,
            "started_s": now.started_s,
            "uptime_s": max(0.0, time.time() - now.started_s),
            "cpu_s": now.cpu_s,
            "cores": machine.cores,
            "resident_bytes": now.resident_bytes,
            "memory_bytes": machine.memory_bytes,
            "open_files": now.open_files,
            "threads": now.threads,
        },
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "memory_used_bytes": gpu.memory_used_bytes,
                "memory_size_bytes": gpu.memory_size_bytes,
                "busy_ratio": gpu.busy_ratio,
            }
            for gpu in gpus()
        ],
        "bounds_ms": BOUNDS_MS,
        "reasons": {reason.name.lower(): str(reason) for reason in Reason},
        "curl": {"base": BASE, "command": CURL},
        "loop_lag": _histogram(loop_lag),
        "models": [_model(one) for one in repository.models()],
        "unavailable": [
            {"name": one["name"], "version": one["version"], "reason": one["reason"]}
            for one in repository.index()
            if one["state"] != "READY"
        ],
    }


def live_page() -> bytes:
    """Returns the page that asks for /status.json and draws it."""
    return packaged("page.html")


@cache
def packaged(name: str) -> bytes:
    """Returns a file of this package."""
    return (files(__package__) / name).read_bytes()


def _model(served: ServedModel) -> dict[str, Any]:
    counts, batching = served.counts, served.batching
    return {
        "name": served.name,
        "version": served.version,
        "slo_ms": batching.slo_ms if math.isfinite(batching.slo_ms) else None,
        "streams": batching.streams,
        "max_batch_size": served.max_batch_size,
        "queue_limit": batching.limits.requests,
        "waiting": served.waiting,
        "in_flight": served.in_flight,
        "answered": counts.answered,
        "rows": counts.rows,
        "in_slo": counts.in_slo,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "rejections": dict(counts.rejections),
        "batches": [
            {"rows": rows, "runs": runs, "run_ms": counts.batch_ms.get(rows, 0.0)}
            for rows, runs in sorted(counts.batches.items())
        ],
        "stages": {stage: _histogram(counts.stages[stage]) for stage in STAGES},
        "last_answer_s": counts.last_answer_s or None,
        "signature": {
            "inputs": [str(spec) for spec in served.signature.inputs],
            "outputs": [str(spec) for spec in served.signature.outputs],
        },
        "try": infer_sample(served).command,
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Returns counts by bucket of `bounds_ms`, without the zeros at their end."""
    last = max((place for place, count in enumerate(histogram.counts) if count), default=-1)
    return {
        "counts": histogram.counts[: last + 1],
        "n": histogram.n,
        "sum_ms": histogram.sum_ms,
    }
