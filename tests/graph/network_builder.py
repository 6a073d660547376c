# SPDX-License-Identifier: Apache-2.0
"""A graph in the making, for networks that are drawn at random.

They hold tensors of three kinds: maps (batch, channels, height, width), vectors (batch,
width) and sequences (batch, length, width).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from small_models import make

from burnish.core.model import Model
from burnish.graph.canonical import infer_types

Shape = tuple[int, ...]


class Network:
    """A graph in the making; shapes leave the batch out."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs: list[tuple[str, int, list[int | str]]] = []
        self.shapes: dict[str, Shape] = {}
        self.unread: dict[str, None] = {}

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def weight(self, *shape: int, low: float | None = None) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        array = self.rng.normal(0, fan**-0.5, shape)
        if low is not None:
            array = self.rng.uniform(low, low + 1, shape)
        return self.constant(array.astype(np.float32))

    def constant(self, array) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.asarray(numbers, np.int64))

    def node(self, operator: str, inputs: list[str], *shapes: Shape, **attributes) -> list[str]:
        names = [f"v{len(self.nodes)}_{place}" for place in range(len(shapes))]
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, names, name, **attributes))
        for one in inputs:
            self.unread.pop(one, None)
        for one, shape in zip(names, shapes, strict=True):
            self.shapes[one] = shape
            self.unread[one] = None
        return names

    def one(self, operator: str, inputs: list[str], shape: Shape, **attributes) -> str:
        return self.node(operator, inputs, shape, **attributes)[0]

    def hide(self, *names: str) -> None:
        """Keeps later steps from these: other types, or another order of axes."""
        for one in names:
            self.shapes.pop(one)
            self.unread.pop(one, None)

    def input(self, name: str, kind: int, shape: Shape) -> str:
        self.inputs.append((name, kind, ["batch", *shape]))
        self.shapes[name] = shape
        return name

    def model(self, outputs: list[str]) -> Model:
        free = [(one, TensorProto.FLOAT, ["batch", *self.shapes[one]]) for one in outputs]
        graph = make(self.nodes, self.inputs, free, self.weights, ("com.microsoft",)).edit()
        infer_types(graph, "a random network")
        return Model(graph)
