# SPDX-License-Identifier: Apache-2.0
"""A network for scikit-learn's digits as a graph, and as a module with a lifted one's forward."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from onnx import TensorProto, helper
from small_models import make
from torch import Tensor, nn

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.data.losses import loss
from burnish.data.metrics import metric
from burnish.data.samples import ArraySamples
from burnish.engines.engine import by_name

torch.set_num_threads(1)  # for networks this small more threads only wait for each other


class Net(nn.Module):
    """Two convolutions with normalization, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(16 * 16, 10)

    def forward(self, inputs: Mapping[str, Tensor], keep=()) -> dict[str, Tensor]:
        features = self.bn1(self.conv1(inputs["image"])).relu()
        features = self.bn2(self.conv2(features)).relu()
        logits = self.head(self.drop(features.flatten(1)))
        return {"logits": logits, **({"features": features} if "features" in keep else {})}


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns 1797 images (n, 1, 8, 8) in 0..1, and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    return images, data.target.astype(np.int64)


def task(labels: bool = True, training: bool = True) -> Task:
    """Returns 1200 images to train on, 300 of them to calibrate, and 597 to validate."""
    images, classes = digits()
    train = ArraySamples({"image": images[:1200]}, classes[:1200] if labels else None)
    return Task(
        "digits",
        calibration=ArraySamples({"image": images[:300]}),
        training=train if training else None,
        validation=ArraySamples({"image": images[1200:]}, classes[1200:]),
        metric=metric("top1"),
        loss=loss("cross_entropy"),
    )


def untrained(seed: int = 0, batch: int | str = "batch", width: int = 16) -> Model:
    """Returns Conv-BatchNormalization-Relu twice and a classifier, with random weights."""
    rng = np.random.default_rng(seed)

    def normal(c: int, name: str) -> dict[str, np.ndarray]:
        parts = {"scale": np.ones(c), "bias": np.zeros(c), "mean": np.zeros(c), "var": np.ones(c)}
        return {f"{name}.{key}": array for key, array in parts.items()}

    weights = {
        "w1": rng.normal(0, 0.5, (width, 1, 3, 3)),
        **normal(width, "n1"),
        "w2": rng.normal(0, 0.15, (2 * width, width, 3, 3)),
        **normal(2 * width, "n2"),
        "w3": rng.normal(0, 0.05, (10, 2 * width * 16)),
        "b3": np.zeros(10),
    }
    node = helper.make_node

    def norm(x: str, y: str, name: str):
        parts = [f"{name}.{key}" for key in ("scale", "bias", "mean", "var")]
        return node("BatchNormalization", [x, *parts], [y], name)

    nodes = [
        node("Conv", ["image", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        norm("c1", "b1", "n1"),
        node("Relu", ["b1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        norm("c2", "b2", "n2"),
        node("Relu", ["b2"], ["r2"], "relu2"),
        node("Flatten", ["r2"], ["f"], "flatten"),
        node("Gemm", ["f", "w3", "b3"], ["logits"], "head", transB=1),
    ]
    return make(
        nodes,
        [("image", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [("logits", TensorProto.FLOAT, [batch, 10])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )


def answers(model: Model) -> np.ndarray:
    """Returns the class that the model gives each validation image."""
    images, _ = digits()
    with by_name("onnxruntime").open(model, Setting()) as session:
        outputs = session.run({"image": images[1200:]})
    return next(iter(outputs.values())).argmax(axis=1)


def accuracy(model: Model) -> float:
    """Returns the percentage of validation images that the model gives their class."""
    return 100 * float((answers(model) == digits()[1][1200:]).mean())


def damaged(model: Model, share: float, seed: int = 0) -> Model:
    """Returns the model with this share of each convolution's channels zeroed."""
    import onnx_ir as ir

    graph, rng = model.edit(), np.random.default_rng(seed)
    for name in ("w1", "w2"):
        value = graph.graph.initializers[name]
        weight = value.const_value.numpy().copy()
        weight[rng.permutation(len(weight))[: round(share * len(weight))]] = 0
        value.const_value = ir.tensor(weight, name=name)
    return Model(graph)
