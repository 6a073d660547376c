# SPDX-License-Identifier: Apache-2.0
"""What a model is for: its data, its preprocessing and how it is judged.

Nothing but a Task reaches data. The readers, metrics and preprocessing live in `data`;
these are their contracts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from burnish.core import catalogue
from burnish.core.errors import Misuse

Split = Literal["calibration", "training", "validation"]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """Preprocessed model inputs by name, first axis the sample, and labels where there are any."""

    inputs: Arrays
    labels: NDArray[Any] | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Samples(Protocol):
    """A finite stream of samples that can be read again, in the same order each time."""

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields preprocessed batches (the last may be smaller) of the first `limit` samples.

        Memory does not grow with the number of samples.
        """
        ...

    def fingerprint(self) -> str:
        """Returns a digest that changes when the samples or their preprocessing do."""
        ...


class Metric(Protocol):
    """How outputs are judged: a row of numbers for each sample, and a value of many rows.

    Any metric of paired models can so be compared on the same samples, by resampling rows.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    binary: bool
    """Whether each row is one 0 or 1 and the value is 100 × their mean (exact tests apply)."""

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Returns one row for each sample: (batch, k)."""
        ...

    def value(self, rows: NDArray[np.float64]) -> float:
        """Returns the metric, in `unit`, of these rows: (n, k)."""
        ...


class Loss(Protocol):
    """What training minimizes: one number for each sample."""

    name: str

    def __call__(self, outputs: Arrays, labels: NDArray[Any]) -> NDArray[np.float64]: ...


class Preprocessing(Protocol):
    """Turns a raw sample (an image's bytes, a row) into model inputs; plain data in a bundle."""

    def to_dict(self) -> dict[str, Any]: ...

    def __call__(self, raw: Any) -> dict[str, NDArray[Any]]:
        """Returns the inputs for one raw sample, without a batch axis."""
        ...


@dataclass(frozen=True)
class Task:
    """The splits (each may be absent), metric, loss, preprocessing and class names."""

    name: str
    calibration: Samples | None = None
    training: Samples | None = None
    validation: Samples | None = None
    metric: Metric | None = None
    loss: Loss | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @staticmethod
    def load(path: str | Path) -> Task:
        """Returns the task in a TOML file; `docs/tasks.md` lists its keys."""
        loaded: Task = catalogue.find("importers", "task")(path)
        return loaded

    def split(self, name: Split) -> Samples:
        """Returns a split, or raises `Misuse` naming what the task lacks."""
        samples: Samples | None = getattr(self, name)
        if samples is None:
            raise Misuse(f"the task {self.name!r} has no {name} data: add a [{name}] table to it")
        return samples

    def judge(self) -> Metric:
        """Returns the metric, or raises `Misuse` when the task has none."""
        if self.metric is None:
            raise Misuse(f'the task {self.name!r} has no metric: add metric = "top1" (or another)')
        return self.metric

    def fingerprint(self, split: Split) -> str:
        """Returns a digest of a split and of how it is judged, for caching."""
        parts = [self.split(split).fingerprint(), self.metric.name if self.metric else ""]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
