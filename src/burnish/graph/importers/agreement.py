# SPDX-License-Identifier: Apache-2.0
"""How far an imported model's outputs are from those of the network that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Unsupported
from burnish.core.model import Model, Signature

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """The largest differences over all outputs and samples.

    `max_rel` is the difference divided by that output's largest magnitude; `worst` names
    the output with the largest one.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    worst: str = ""

    def with_output(self, name: str, got: NDArray[Any], expected: NDArray[Any]) -> Agreement:
        """Returns the agreement with one more output taken into account.

        A shape that differs, or NaN or infinity on one side only, is an infinite difference.
        """
        if got.shape != expected.shape:
            return Agreement(np.inf, np.inf, name)
        left, right = got.astype(np.float64), expected.astype(np.float64)
        usual = np.isfinite(left) & np.isfinite(right)
        if not np.array_equal(left[~usual], right[~usual], equal_nan=True):
            return Agreement(np.inf, np.inf, name)
        gap = float(np.max(np.abs(left[usual] - right[usual]), initial=0.0))
        scale = float(np.max(np.abs(right[usual]), initial=0.0))
        relative = gap / scale if scale else (np.inf if gap else 0.0)
        worst = name if relative > self.max_rel else self.worst
        return Agreement(max(self.max_abs, gap), max(self.max_rel, relative), worst)


def random_like(
    examples: Arrays, signature: Signature, batch: int | None, seed: int
) -> dict[str, NDArray[Any]]:
    """Returns random inputs on the scale of the examples.

    Floats are normal with the example's mean and deviation, whole numbers lie in its
    range. Inputs whose first dimension is dynamic get `batch` samples (None: as many as
    the example).
    """
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    for spec in signature.inputs:
        example = examples[spec.name]
        shape = example.shape
        if batch is not None and spec.shape and not isinstance(spec.shape[0], int):
            shape = (batch, *shape[1:])
        if example.dtype == np.bool_:
            made[spec.name] = rng.random(shape) < 0.5
        elif np.issubdtype(example.dtype, np.integer):
            low, high = (int(example.min()), int(example.max())) if example.size else (0, 0)
            made[spec.name] = rng.integers(low, high, shape, example.dtype, endpoint=True)
        else:
            spread = float(example.astype(np.float64).std()) if example.size else 0.0
            mean = float(example.astype(np.float64).mean()) if example.size else 0.0
            made[spec.name] = rng.normal(mean, spread or 1.0, shape).astype(example.dtype)
    return made


def compare(
    model: Model, reference: Callable[[Arrays], Arrays], samples: Sequence[Arrays]
) -> Agreement:
    """Returns how the model, run by ONNX Runtime without its optimizer, agrees.

    Raises `Unsupported` when ONNX Runtime cannot load or run the model.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    refusals = (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.NotImplemented,
        state.RuntimeException,
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    payload = model.payload()
    agreement = Agreement()
    try:
        session = onnxruntime.InferenceSession(
            payload if isinstance(payload, bytes) else str(payload),
            options,
            providers=["CPUExecutionProvider"],
        )
        names = [spec.name for spec in model.signature.outputs]
        for sample in samples:
            expected = reference(sample)
            for name, got in zip(names, session.run(names, dict(sample)), strict=True):
                agreement = agreement.with_output(name, got, expected[name])
    except refusals as error:
        reason = str(error).strip().splitlines()[0]
        raise Unsupported(f"ONNX Runtime cannot run the exported model: {reason}") from error
    return agreement
