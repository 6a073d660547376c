# SPDX-License-Identifier: Apache-2.0
"""Samples that are the rows of arrays, in one `.npz` or in `.npy` files side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.file_digest import file_digest
from burnish.data.readers.npy_stream import NpyStream
from burnish.data.readers.source import Sample
from burnish.data.toml_table import Table


@dataclass(frozen=True)
class ArrayFiles:
    """Row i of every array is sample i; `inputs` holds one array under "" or several by name."""

    inputs: Mapping[str, NpyStream]
    labels: NpyStream | None
    source: str
    """What messages call it."""

    def __post_init__(self) -> None:
        lengths = {stream.name: len(stream) for stream in self._streams().values()}
        if len(set(lengths.values())) > 1:
            raise Misuse(f"inputs and labels must have as many rows each, got {lengths}")
        if not len(self):
            raise Misuse(f"{self.source} holds no sample")

    def _streams(self) -> dict[str, NpyStream]:
        labels = {} if self.labels is None else {"label": self.labels}
        return {**{f"input {name}": stream for name, stream in self.inputs.items()}, **labels}

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the rows, read block by block."""
        labels: Iterator[Any] = (
            iter([None] * len(rows)) if self.labels is None else self.labels.rows(rows)
        )
        names = list(self.inputs)
        streams = [stream.rows(rows) for stream in self.inputs.values()]
        for row, label, *values in zip(rows, labels, *streams, strict=True):
            raw = values[0] if names == [""] else dict(zip(names, values, strict=True))
            yield Sample(raw, label, f"{self.source} row {row}")

    def digest(self) -> str:
        """Returns a hash of the files and of which array is which."""
        parts = [
            f"{role}={stream.member}:{file_digest(stream.path)}"
            for role, stream in self._streams().items()
        ]
        return hashlib.sha256(";".join(parts).encode()).hexdigest()


def npz_source(table: Table) -> ArrayFiles | None:
    """Returns the source "npz": `path`, `inputs` and `labels` name arrays inside the file."""
    table.need("path", 'the file, as in path = "train.npz"')
    path = table.path("path")
    names = input_names(table, "the array's name", default="x")
    labels = table.text("labels")
    if path is None or not names:
        return None
    return ArrayFiles(
        {name: NpyStream.open(path, key) for name, key in names.items()},
        None if labels is None else NpyStream.open(path, labels),
        path.name,
    )


def npy_source(table: Table) -> ArrayFiles | None:
    """Returns the source "npy": `inputs` and `labels` are files."""
    table.need("inputs", 'a file, as in inputs = "x.npy"')
    names = input_names(table, "a file", default=None)
    paths = {name: table.expand("inputs", file) for name, file in names.items()}
    labels = table.path("labels")
    found = {name: path for name, path in paths.items() if path is not None}
    if not found or len(found) < len(paths) or (labels is None and "labels" in table):
        return None
    return ArrayFiles(
        {name: NpyStream.open(path) for name, path in found.items()},
        None if labels is None else NpyStream.open(labels),
        next(iter(found.values())).name,
    )


def input_names(table: Table, what: str, default: str | None) -> dict[str, str]:
    """Returns `inputs` as a dict: one text is under "", a table gives several by input name."""
    value = table.value("inputs")
    if value is None:
        return {} if default is None else {"": default}
    if isinstance(value, str) and value:
        return {"": value}
    if isinstance(value, dict) and value and all(isinstance(one, str) for one in value.values()):
        return dict(value)
    table.fault(f"inputs must be {what}, or a table of input name = {what}, got {value!r}")
    return {}
