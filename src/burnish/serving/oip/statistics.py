# SPDX-License-Identifier: Apache-2.0
"""The statistics extension: what was counted since the server started, as a document for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Duration:
    """How often something was done, and the nanoseconds that it took in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class BatchStatistics:
    """The runs of the model with one batch size."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


@dataclass(frozen=True)
class ModelStatistics:
    """One version of one model.

    last_inference_ms: since 1970. inference_count: samples answered. execution_count: runs of
    the model, which are fewer where requests were batched. success to cache_hit: requests.
    """

    name: str
    version: str | None = None
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    batches: tuple[BatchStatistics, ...] = ()


_STAGES = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
)


def statistics_document(models: Iterable[ModelStatistics]) -> dict[str, Any]:
    """Returns the statistics of the models, in the order given."""
    return {"model_stats": [_model(model) for model in models]}


def _model(model: ModelStatistics) -> dict[str, Any]:
    return {
        "name": model.name,
        **({} if model.version is None else {"version": model.version}),
        "last_inference": model.last_inference_ms,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {stage: asdict(getattr(model, stage)) for stage in _STAGES},
        "batch_stats": [
            asdict(batch) for batch in sorted(model.batches, key=lambda batch: batch.batch_size)
        ],
    }
