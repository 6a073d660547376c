# SPDX-License-Identifier: Apache-2.0
"""The plain route: an image, a row of numbers or a text in, labels and outputs out.

The bundle's own preprocessing makes the tensors, the batcher runs them with all others,
and its class names read the answer.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.engines.deployed import DeployedSession, Prediction
from burnish.serving.http.inference import unless_gone
from burnish.serving.http.message import BodyLimits, Call, Reply, declared_bytes, read_body
from burnish.serving.http.outcome import Inferred
from burnish.serving.oip.faults import Fault, shown
from burnish.serving.oip.framing import parse
from burnish.serving.repository import Repository

_MOST_SAMPLES = 1024
_MOST_SCORES = 5


async def predict(
    call: Call, repository: Repository, name: str, version: str | None, limits: BodyLimits
) -> Inferred:
    """Returns the predictions for the samples of a body. Raises `Fault` and `Gone`."""
    served = await repository.get(name, version)
    session = served.session
    if not isinstance(session, DeployedSession):
        raise Fault(f"the model {name!r} is no bundle: use the infer route", 404)
    kind = call.header(b"content-type").split(";")[0].strip().lower()
    expected = served.expect_body(declared_bytes(call, limits))
    try:
        body = bytes(await read_body(call, limits))
    finally:
        if expected:
            served.body_over()
    inputs, n = await asyncio.to_thread(_prepared, session, body, kind)
    served = repository.find(name, version)  # another may have taken its place by now
    future = served.submit(inputs)
    queued_ms = time.perf_counter() * 1e3
    answer = await unless_gone(future, call)

    def reply() -> Reply:
        predictions = [
            session.prediction({key: array[place] for key, array in answer.outputs.items()})
            for place in range(n)
        ]
        return Reply.json(
            {
                "model_name": served.name,
                "model_version": served.version,
                "predictions": [_document(one) for one in predictions],
            }
        )

    return Inferred(await asyncio.to_thread(reply), served, answer, queued_ms)


def _prepared(
    session: DeployedSession, body: bytes, kind: str
) -> tuple[dict[str, NDArray[Any]], int]:
    """Returns the inputs of all samples, stacked, and how many there are."""
    raws = _samples(body, kind)
    if not raws:
        raise Fault("expected one sample or more, got none")
    if len(raws) > _MOST_SAMPLES:
        raise Fault(f"expected at most {_MOST_SAMPLES} samples, got {len(raws)}", 413)
    ready = []
    for place, raw in enumerate(raws):
        try:
            ready.append(session.prepare(raw))
        except (Misuse, ValueError, TypeError) as error:
            raise Fault(f"sample {place}: {error}") from error
    shapes = {tuple((key, one[key].shape) for key in sorted(one)) for one in ready}
    if len(shapes) > 1:
        raise Fault("expected samples of one shape: send those of other shapes on their own")
    return {key: np.stack([one[key] for one in ready]) for key in ready[0]}, len(ready)


def _samples(body: bytes, kind: str) -> list[Any]:
    if kind.startswith("image/") or kind in ("application/octet-stream", ""):
        return [body]
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Fault(f"expected UTF-8 text, got byte {error.start} that does not belong") from error
    if kind == "text/csv":
        return [_row(line, place) for place, line in enumerate(text.splitlines()) if line.strip()]
    if kind == "text/plain":
        return [text]
    if kind == "application/json":
        return _json_samples(parse(body))
    raise Fault(
        "expected Content-Type image/*, text/csv, text/plain or application/json, got "
        f"{shown(kind)}",
        415,
    )


def _row(line: str, place: int) -> tuple[float, ...]:
    try:
        row = tuple(float(one) for one in line.split(","))
    except ValueError as error:
        raise Fault(f"row {place}: expected numbers with commas between: {error}") from error
    return row


def _json_samples(document: Mapping[str, Any]) -> list[Any]:
    samples = document.get("samples")
    if not isinstance(samples, list):
        raise Fault(
            'expected {"samples": [...]}: each a list of numbers, a text, or inputs by name'
        )
    return [tuple(one) if isinstance(one, list) else one for one in samples]


def _document(one: Prediction) -> dict[str, Any]:
    return {
        "label": one.label,
        "score": one.score,
        "scores": [{"label": label, "score": score} for label, score in one.scores[:_MOST_SCORES]],
        "outputs": {name: _plain(array) for name, array in one.outputs.items()},
    }


def _plain(array: NDArray[Any]) -> Any:
    """Returns an array as lists; what JSON cannot hold is null."""
    if array.dtype == object:
        return json.loads(
            json.dumps(array.tolist(), default=lambda one: one.decode("utf-8", "replace"))
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return (
            [
                _plain(one)
                if isinstance(one, np.ndarray)
                else (float(one) if math.isfinite(one) else None)
                for one in array
            ]
            if array.ndim
            else None
        )
    return array.astype(np.float32).tolist() if array.dtype.name == "bfloat16" else array.tolist()
