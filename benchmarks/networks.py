# SPDX-License-Identifier: Apache-2.0
"""The example networks with their tasks, for the benchmarks."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import burnish as bn
from burnish.core.task import Batch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TRAINED = {
    "resnet56": ("cifar10/resnet.py", "cifar10/task.toml"),
    "googlenet": ("imagenet/networks.py", "imagenet/googlenet.toml"),
    "squeezenet": ("imagenet/networks.py", "imagenet/squeezenet.toml"),
}
RANDOM = ("resnet50", "mobilenet_v2")


def module(file: str, function: str) -> Any:
    """Returns the PyTorch network that a function in an example's file makes."""
    path = EXAMPLES / file
    name = f"burnish_example_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return getattr(found, function)()


def trained(name: str) -> tuple[bn.Model, bn.Task]:
    """Returns a trained network and its task; BURNISH_DATA must be set."""
    file, task_file = TRAINED[name]
    task = bn.Task.load(EXAMPLES / task_file)
    example = next(iter(task.split("validation").batches(2))).inputs
    return bn.Model.from_torch(module(file, name), dict(example), source=name), task


def random(name: str, n: int = 16, side: int = 224) -> tuple[bn.Model, bn.Task, Any]:
    """Returns a network with random weights, a task that calibrates on noise, and the module."""
    noise = Noise(n, side)
    network = module("speed/networks.py", name)
    example = next(iter(noise.batches(2))).inputs
    model = bn.Model.from_torch(network, dict(example), source=f"{name}, random weights")
    return model, bn.Task("noise", calibration=noise), network


@dataclass(frozen=True)
class Noise:
    """Images of noise, made as they are read: any number of them takes no memory."""

    n: int
    side: int = 224

    def __len__(self) -> int:
        return self.n

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields batches of the first `limit` images; image i depends on i alone."""
        end = self.n if limit is None else min(limit, self.n)
        for start in range(0, end, batch_size):
            rows = range(start, min(start + batch_size, end))
            yield Batch({"image": np.stack([self.image(row) for row in rows])}, None)

    def image(self, row: int) -> np.ndarray:
        """Returns one image: (3, side, side), float32."""
        shape = (3, self.side, self.side)
        return np.random.default_rng(row).standard_normal(shape, np.float32)

    def fingerprint(self) -> str:
        """Returns what the images depend on."""
        return f"noise-{self.n}-{self.side}"
