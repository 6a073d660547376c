# SPDX-License-Identifier: Apache-2.0
"""A small network for scikit-learn's digits, and its task, made in well under a second."""

from __future__ import annotations

from functools import cache

import numpy as np
from onnx import TensorProto, helper
from small_models import make

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.data.metrics import metric
from burnish.data.samples import ArraySamples
from burnish.engines.engine import by_name

CHANNELS = 16


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns 1797 images (n, 1, 8, 8) in 0..1, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    return images, data.target.astype(np.int64)


@cache
def network(batch: int | str = "batch") -> Model:
    """Returns Conv, BatchNormalization, ReLU twice, random, and a head fitted by least squares."""
    rng = np.random.default_rng(5)
    c = CHANNELS
    weights = {
        "w1": rng.normal(0, 0.4, (c, 1, 3, 3)),
        "w2": rng.normal(0, 0.15, (2 * c, c, 3, 3)),
        "one": np.ones(c),
        "zero": np.zeros(c),
        "variance": np.full(c, 0.5),
    }
    head = {"w3": np.zeros((10, 2 * c * 16)), "b3": np.zeros(10)}
    features = _run(_graph(batch, weights | head, "features"), "features")
    _, classes = digits()
    fitted = features[:700].astype(np.float64)
    fitted = np.hstack([fitted, np.ones((len(fitted), 1))])
    target = np.eye(10)[classes[:700]] * 10
    solved = np.linalg.solve(fitted.T @ fitted + 0.1 * np.eye(fitted.shape[1]), fitted.T @ target).T
    return _graph(batch, weights | {"w3": solved[:, :-1], "b3": solved[:, -1]}, "logits")


def task(n_validation: int = 400, batch: int | str = "batch") -> Task:
    """Returns the task: 64 images to calibrate on, and top-1 on others than were fitted."""
    images, classes = digits()
    end = 800 + n_validation
    return Task(
        "digits",
        calibration=ArraySamples({"image": images[700:764]}),
        validation=ArraySamples({"image": images[800:end]}, classes[800:end]),
        metric=metric("top1"),
        classes=tuple("0123456789"),
    )


def _run(model: Model, output: str) -> np.ndarray:
    images, _ = digits()
    batch = model.signature.inputs[0].shape[0]
    size = batch if isinstance(batch, int) else len(images)
    with by_name("onnxruntime").open(model, Setting()) as session:
        parts = [
            session.run({"image": images[at : at + size]})[output]
            for at in range(0, len(images) - len(images) % size, size)
        ]
    return np.concatenate(parts)


def _graph(batch: int | str, weights: dict[str, np.ndarray], output: str) -> Model:
    node = helper.make_node
    normal = ["one", "zero", "zero", "variance"]
    nodes = [
        node("Conv", ["image", "w1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", *normal], ["b"], "norm1"),
        node("Relu", ["b"], ["c"], "relu1"),
        node("Conv", ["c", "w2"], ["d"], "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["d"], ["e"], "relu2"),
        node("Flatten", ["e"], ["features"], "flatten"),
        node("Gemm", ["features", "w3", "b3"], ["logits"], "head", transB=1),
    ]
    size = weights["w3"].shape[1 if output == "features" else 0]
    return make(
        nodes if output == "logits" else nodes[:-1],
        [("image", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [(output, TensorProto.FLOAT, [batch, size])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )
