# SPDX-License-Identifier: Apache-2.0
"""Writes the bundle of an optimization: model, fallback, plan, drift reference, reports."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from burnish.core.bundle import Bundle
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.optimizing.reference import reference
from burnish.optimizing.report.html import html
from burnish.optimizing.report.markdown import markdown
from burnish.optimizing.result import Result


def save_bundle(
    result: Result, original: Model, chosen: Model, task: Task | None, path: str | Path
) -> Bundle:
    """Writes the chosen model as a bundle at `path`, replacing an earlier bundle there.

    Returns the bundle. Raises `Misuse` when `path` holds something else.
    """
    best = result.best
    latency = best.measured.get("latency")
    manifest: dict[str, Any] = {
        "burnish": version("burnish"),
        "name": result.model,
        "task": result.task,
        "created": result.created,
        "status": result.status,
        "plan": {
            "engine": best.engine.split()[0],
            "engine_identity": best.engine,
            "threads": best.setting.threads,
            "streams": best.setting.streams,
            "latency_ms": latency.value if latency else None,
            "latency_by_batch": best.detail.get("throughput", []),
        },
        "recipe": list(best.recipe),
        "measured": {name: one.to_dict() for name, one in best.measured.items()},
        "machine": dict(result.machine),
        "preprocessing": task.preprocessing.to_dict() if task and task.preprocessing else None,
        "classes": list(task.classes) if task else [],
        "metric": task.metric.name if task and task.metric else None,
    }
    files = {
        "report.html": html(result).encode(),
        "report.md": markdown(result).encode(),
        "report.json": json.dumps(result.to_dict(), indent=2).encode(),
    }
    if task is not None:
        statistics = reference(chosen, best, task)
        if statistics is not None:
            files["reference.json"] = json.dumps(statistics).encode()
    return Bundle.write(path, chosen, original, manifest, files)
