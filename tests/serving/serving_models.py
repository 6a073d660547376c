# SPDX-License-Identifier: Apache-2.0
"""Small bundles and served models for the tests of the server."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import small_models
from numpy.typing import NDArray

from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.engine import Session, by_name
from burnish.serving.admission import Limits
from burnish.serving.batching import Batching
from burnish.serving.rows import Rows
from burnish.serving.served_model import ServedModel
from burnish.serving.shape_buckets import Padding


class Recorder(Session):
    """A session that keeps what it ran, and waits at a gate when it is told to."""

    def __init__(self, model: Model, streams: int = 1) -> None:
        self._session = by_name("onnxruntime").open(model, Setting(1, streams))
        self.signature = self._session.signature
        self.setting, self.engine = self._session.setting, self._session.engine
        self.batches: list[int] = []
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.closed = False

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.gate.wait(10)
        self.batches.append(len(next(iter(inputs.values()))))
        self.shapes.append({name: array.shape for name, array in inputs.items()})
        if self.error is not None:
            raise self.error
        return self._session.execute(inputs)

    def close(self) -> None:
        self.closed = True


def served(
    model: Model | None = None,
    *,
    streams: int = 1,
    max_batch_size: int = 8,
    slo_ms: float = math.inf,
    padding: Mapping[str, tuple[int, ...]] | None = None,
    queue: int = 1024,
    table: list[tuple[int, float]] | None = None,
    name: str = "net",
    version: str = "1",
) -> tuple[ServedModel, Recorder]:
    """Returns a model that answers on the running loop, and the session that it runs."""
    session = Recorder(model or small_models.convolutional(), streams)
    batching = Batching(
        streams, slo_ms, Limits(requests=queue), padding=Padding(dict(padding or {}))
    )
    made = ServedModel(
        name,
        version,
        session,
        Rows(session.signature),
        batching,
        table or [(1, 1.0), (8, 2.0)],
        max_batch_size,
    )
    return made, session


def bundle(
    path: Path, model: Model | None = None, plan: Mapping[str, Any] | None = None, **manifest: Any
) -> Path:
    """Writes a bundle of a small model, and returns its folder."""
    model = model or small_models.convolutional()
    rows = [
        {
            "batch_size": size,
            "threads": 1,
            "streams": 1,
            "samples_per_s": size / (1 + size) * 1e3,
            "low": 1.0,
            "high": 1e6,
            "latency_ms": 1.0 + size,
        }
        for size in (1, 8)
    ]
    full = {"engine": "onnxruntime", "threads": 1, "streams": 1, "latency_by_batch": rows}
    content = {"plan": {**full, **(plan or {})}, "preprocessing": None, "classes": [], **manifest}
    Bundle.write(path, model, model, content, {})
    return path


def images(rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Returns inputs of `small_models.convolutional`."""
    return small_models.random_inputs(small_models.convolutional(), rows, seed)


async def eventually(check: Any, seconds: float = 5.0) -> None:
    """Waits until `check()` holds."""
    until = asyncio.get_running_loop().time() + seconds
    while not check():
        assert asyncio.get_running_loop().time() < until, "it never came to hold"
        await asyncio.sleep(0.002)


def close_to(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Returns whether two outputs differ by rounding only."""
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-5))
