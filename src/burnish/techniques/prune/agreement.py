# SPDX-License-Identifier: Apache-2.0
"""Whether two models give the same outputs, tried on random inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Unsupported
from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.engines.engine import Session
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.techniques.fuse import random_inputs

_TRIES = ((3, 8), (3, 32), (3, 64), (3, 224), (1, 8), (1, 32), (1, 64), (1, 224))


def largest_difference(
    expected: Model, got: Model, limit: float, seed: int, what: str
) -> float | Skipped:
    """Returns the largest difference of float outputs, over the largest value of each.

    Raises `Broken`, saying `what` differs, above `limit` or when only `expected` runs. Where
    nothing can be compared, says why.
    """
    place = "numerical check"
    try:
        with OnnxRuntime().open(expected, Setting()) as session:
            found = _first(session, expected, seed)
    except Unsupported as error:
        return Skipped(place, f"ONNX Runtime does not run the model: {error}")
    if found is None:
        return Skipped(place, "ONNX Runtime does not run the model on random inputs")
    inputs, wanted = found
    wanted = {name: one for name, one in wanted.items() if one.dtype.kind == "f"}
    if not wanted or not all(np.isfinite(one).all() for one in wanted.values()):
        return Skipped(place, "no output on random inputs is a finite real number")
    try:
        with OnnxRuntime().open(got, Setting()) as session:
            outputs = session.run(inputs)
    except Unsupported as error:
        raise Broken(f"{what} differ: the result does not run: {error}") from error
    worst = 0.0
    for name, one in wanted.items():
        if outputs[name].shape != one.shape:
            raise Broken(f"{what} differ: {name} is {outputs[name].shape}, not {one.shape}")
        if one.size:
            wide = one.astype(np.float64)
            scale = float(np.abs(wide).max()) or 1.0
            worst = max(worst, float(np.abs(outputs[name] - wide).max()) / scale)
    if not worst <= limit:
        raise Broken(f"{what} differ by {worst:.1e} of the largest output; {limit:.0e} is allowed")
    return worst


def _first(
    session: Session, model: Model, seed: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]] | None:
    """Returns random inputs of the first sizes that the model takes, and its outputs."""
    for batch, size in _TRIES:
        inputs = random_inputs(model, batch, seed, size)
        try:
            return inputs, session.run(inputs)
        except Unsupported:  # the sizes do not suit the model
            continue
    return None
