# SPDX-License-Identifier: Apache-2.0
"""Batches of preprocessed samples, from a source or from arrays in memory.

>>> split = ArraySamples({"x": np.zeros((5, 2), np.float32)}, labels=np.arange(5))
>>> [len(batch) for batch in split.batches(2)]
[2, 2, 1]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.task import Batch
from burnish.data.preprocessing import InputPreprocessing
from burnish.data.readers.source import Sample, Source
from burnish.data.selection import Selection


class RawSamples(Protocol):
    """Samples that can be read before preprocessing, to compare splits."""

    def raw(self) -> Iterator[Sample]: ...


@dataclass(frozen=True)
class SourceSamples:
    """The chosen rows of a source, preprocessed batch by batch as they are read.

    `n_classes`, when given, bounds the labels that are single whole numbers.
    """

    source: Source
    preprocessing: InputPreprocessing
    selection: Selection = field(default_factory=Selection)
    n_classes: int | None = None

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The source's rows that are read, ascending."""
        return self.selection.rows(len(self.source))

    def __len__(self) -> int:
        return len(self.rows)

    def raw(self) -> Iterator[Sample]:
        """Yields the samples before preprocessing."""
        return self.source.read(self.rows)

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields preprocessed batches of the first `limit` samples; one batch is held."""
        _check_sizes(batch_size, limit)
        prepared: list[tuple[NDArray[Any], ...]] = []
        labels: list[Any] = []
        place = ""
        for sample in self.source.read(self.rows[:limit]):
            place = sample.place
            try:
                prepared.append(self.preprocessing.prepare(sample.raw))
                labels.append(_label(sample.label, self.n_classes))
            except Misuse as error:
                raise Misuse(f"{place}: {error}") from error
            if len(prepared) == batch_size:
                yield self._batch(prepared, labels, place)
                prepared, labels = [], []
        if prepared:
            yield self._batch(prepared, labels, place)

    def _batch(self, prepared: list[Any], labels: list[Any], place: str) -> Batch:
        try:
            return Batch(self.preprocessing.finish(prepared), _stack_labels(labels))
        except Misuse as error:
            raise Misuse(f"the {len(prepared)} samples up to {place}: {error}") from error

    def fingerprint(self) -> str:
        """Returns a digest of the source's content, the chosen rows and the preprocessing."""
        rows = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        parts = [self.source.digest(), rows, self.preprocessing.to_dict()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """Samples that are rows of arrays in memory, or memory-mapped, for tasks made in Python.

    `inputs` are by the model's input names, first axis the sample. Without `preprocessing`
    they go to the model as they are.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None = None
    preprocessing: InputPreprocessing | None = None

    def __post_init__(self) -> None:
        named = dict(self.inputs)
        if not named:
            raise Misuse("ArraySamples needs an array for at least one input")
        if self.labels is not None:
            named["the labels"] = self.labels
        for name, array in named.items():
            if not isinstance(array, np.ndarray) or not array.ndim:
                raise Misuse(f"{name} must be an array whose first axis is the sample")
        lengths = {name: len(array) for name, array in named.items()}
        if len(set(lengths.values())) > 1 or not len(self):
            raise Misuse(f"inputs and labels must have as many samples, over 0; got {lengths}")
        if self.labels is not None and self.labels.dtype.kind not in "biuf":
            raise Misuse(f"labels must be numbers, got dtype {self.labels.dtype}")
        if self.labels is not None and not np.isfinite(self.labels).all():
            raise Misuse("the labels hold NaN or infinity")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def raw(self) -> Iterator[Sample]:
        """Yields the samples before preprocessing."""
        for row in range(len(self)):
            label = None if self.labels is None else self.labels[row]
            raw = {name: array[row] for name, array in self.inputs.items()}
            yield Sample(raw, label, f"row {row}")

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields batches of the first `limit` samples."""
        _check_sizes(batch_size, limit)
        n = len(self) if limit is None else min(limit, len(self))
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            inputs = {name: array[part] for name, array in self.inputs.items()}
            if self.preprocessing is not None:
                names = list(inputs)
                rows = zip(*inputs.values(), strict=True)
                inputs = self.preprocessing.finish(
                    [self.preprocessing.prepare(dict(zip(names, row, strict=True))) for row in rows]
                )
            yield Batch(inputs, None if self.labels is None else self.labels[part])

    def fingerprint(self) -> str:
        """Returns a digest of the arrays and the preprocessing."""
        digest = hashlib.sha256()
        named = {**self.inputs, **({} if self.labels is None else {"": self.labels})}
        for name in sorted(named):
            array = named[name]
            digest.update(f"{name}:{array.dtype.str}{array.shape};".encode())
            for start in range(0, len(array), 1024):
                digest.update(np.ascontiguousarray(array[start : start + 1024]).tobytes())
        if self.preprocessing is not None:
            digest.update(json.dumps(self.preprocessing.to_dict(), sort_keys=True).encode())
        return digest.hexdigest()


def _check_sizes(batch_size: int, limit: int | None) -> None:
    if batch_size < 1 or (limit is not None and limit < 1):
        raise Misuse(f"batch_size and limit must be at least 1, got {batch_size} and {limit}")


def _label(label: Any, n_classes: int | None) -> NDArray[Any] | None:
    if label is None:
        return None
    array = np.asarray(label)
    if array.dtype.kind not in "biuf":
        raise Misuse(f"the label must be a number or an array of numbers, got {label!r:.60}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Misuse(f"the label is {label}" if not array.ndim else "the label holds NaN")
    if n_classes is not None and not array.ndim and not 0 <= array < n_classes:
        raise Misuse(f"the label {label} must be a class from 0 to {n_classes - 1}")
    return array.astype(np.int64 if array.dtype.kind in "biu" else np.float64, copy=False)


def _stack_labels(labels: list[Any]) -> NDArray[Any] | None:
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return None
    shapes = {label.shape for label in labels if label is not None}
    if missing or len(shapes) > 1:
        raise Misuse(
            f"{missing} of {len(labels)} samples have no label"
            if missing
            else f"the labels differ in shape: {sorted(shapes)[:4]}"
        )
    return np.stack(labels)
