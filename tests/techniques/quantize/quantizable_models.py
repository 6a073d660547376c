# SPDX-License-Identifier: Apache-2.0
"""Builds small networks in a line for each operator, and a task to calibrate them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from small_models import make

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.canonical import infer_types

FLOAT = TensorProto.FLOAT


def op(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Returns a node that is named after its output; `inputs` are separated by blanks."""
    outputs = output.split()
    return helper.make_node(kind, inputs.split(), outputs, outputs[0], **attributes)


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns normal weights of these shapes, scaled so that activations stay near 1."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
        for name, shape in shapes.items()
    }


def build(
    nodes: list[onnx.NodeProto],
    shape: list[int | str],
    out: str | dict[str, list[int | str]],
    constants: dict[str, Any],
    name: str = "x",
) -> Model:
    """Returns the model with its shapes inferred; outputs not given with a shape are 2-D."""
    outputs = {out: ["batch", "n"]} if isinstance(out, str) else out
    made = make(
        nodes,
        [(name, FLOAT, shape)],
        [(one, FLOAT, sizes) for one, sizes in outputs.items()],
        {key: np.asarray(value) for key, value in constants.items()},
    )
    return inferred(made)


def inferred(model: Model) -> Model:
    """Returns the model with the types and shapes of all its values."""
    graph = model.edit()
    infer_types(graph, "the test's model")
    return Model(graph)


def task(model: Model, n: int = 16, seed: int = 5, **given: np.ndarray) -> Task:
    """Returns a task with n normal samples for each float input."""
    rng = np.random.default_rng(seed)
    arrays = dict(given)
    for spec in model.signature.inputs:
        if spec.name not in arrays:
            sizes = [s if isinstance(s, int) else 6 for s in spec.shape[1:]]
            arrays[spec.name] = rng.standard_normal((n, *sizes)).astype(np.float32)
    return Task("small", calibration=ArraySamples(arrays))


def context(model: Model, n: int = 16, **given: np.ndarray) -> Context:
    return Context(task(model, n, **given), seed=3)


def run(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with OnnxRuntime().open(model, Setting()) as session:
        return session.run(inputs)


def signal_to_noise(expected: np.ndarray, got: np.ndarray) -> float:
    """Returns the power of the signal over that of the error, in dB."""
    expected = expected.astype(np.float64)
    error = np.square(got - expected).sum()
    return float(10 * np.log10(np.square(expected).sum() / max(error, 1e-30)))


def convolutional_classifier(width: int = 8, batch: int | str = "batch") -> Model:
    """Returns conv, ReLU, pool, residual block, pool, classifier."""
    nodes = [
        op("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        op("Relu", "c1", "r1"),
        op("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        op("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1]),
        op("Add", "c2 p1", "s"),
        op("Relu", "s", "r2"),
        op("GlobalAveragePool", "r2", "g"),
        op("Flatten", "g", "f"),
        op("Gemm", "f w3 b3", "y", transB=1),
    ]
    constants = weights(
        w1=(width, 3, 3, 3), b1=(width,), w2=(width, width, 3, 3), w3=(10, width), b3=(10,)
    )
    return build(nodes, [batch, 3, 12, 12], {"y": [batch, 10]}, constants)
