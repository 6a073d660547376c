# SPDX-License-Identifier: Apache-2.0
"""Repositories that never ran, with counts as real ones have, for the tests of what is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from burnish.core.model import Signature, TensorSpec
from burnish.serving.admission import Limits
from burnish.serving.batching import Batching
from burnish.serving.counts import ModelCounts
from burnish.serving.rows import Rows
from burnish.serving.shape_buckets import Padding

ROW = TensorSpec("row", "float32", ("N", 4))
IMAGE = TensorSpec("image", "float32", ("N", 3, 224, 224))
OUTPUT = TensorSpec("logits", "float32", ("N", 2))


def model(
    name: str = "net",
    version: str = "1",
    inputs: tuple[TensorSpec, ...] = (ROW,),
    outputs: tuple[TensorSpec, ...] = (OUTPUT,),
    slo_ms: float = math.inf,
    padding: Mapping[str, tuple[int, ...]] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Any:
    """Returns what stands for a served model; it is a bundle when it has a manifest."""
    signature = Signature(inputs, outputs)
    session = SimpleNamespace()
    if manifest is not None:
        session.bundle = SimpleNamespace(manifest=manifest)
    return SimpleNamespace(
        name=name,
        version=version,
        counts=ModelCounts(),
        waiting=0,
        in_flight=0,
        batching=Batching(2, slo_ms, Limits(100), padding=Padding(dict(padding or {}))),
        max_batch_size=16,
        signature=signature,
        rows=Rows(signature),
        session=session,
    )


def busy(**settings: Any) -> Any:
    """Returns a model that answered three requests, failed one and rejected two."""
    made = model(**settings)
    counts = made.counts
    for ms in (0.05, 3.0, 70_000.0):
        for stage in counts.stages.values():
            stage.add(ms)
    counts.answered, counts.rows, counts.in_slo = 3, 9, 2
    counts.failed, counts.cancelled = 1, 4
    counts.rejections["deadline"] += 2
    counts.batches[1] += 2
    counts.batches[5] += 1
    counts.batch_ms |= {1: 4.0, 5: 6.0}
    counts.last_answer_s = 1.7e9
    made.waiting, made.in_flight = 2, 5
    return made


class Shelf:
    """A repository of such models; `missing` are (name, reason) of what is not open."""

    ready = True

    def __init__(self, *models: Any, missing: tuple[tuple[str, str], ...] = ()) -> None:
        self._models, self._missing = models, missing

    def models(self) -> list[Any]:
        return list(self._models)

    def index(self) -> list[dict[str, Any]]:
        open_ = [(one.name, one.version, "READY", "") for one in self._models]
        closed = [(name, "1", "UNAVAILABLE", reason) for name, reason in self._missing]
        keys = ("name", "version", "state", "reason")
        return [dict(zip(keys, one, strict=True)) for one in open_ + closed]


def shelf(*models: Any, **settings: Any) -> Any:
    """Returns a repository, untyped as the models are."""
    return Shelf(*models, **settings)
