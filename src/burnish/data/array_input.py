# SPDX-License-Identifier: Apache-2.0
"""Turns arrays and table rows into a model input: shape, scale, mean and std, axes, type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.normalization import Normalization
from burnish.data.toml_table import Table


@dataclass(frozen=True)
class ArrayInput:
    """One input that takes arrays as they are.

    `shape`: what each sample is reshaped to; () keeps it. `mean` and `std` have one number,
    or one for each place on the last axis. `transpose`: the order of the axes afterwards,
    so (2, 0, 1) makes channels first. A `dtype` of "" keeps the array's own.
    """

    input: str
    shape: tuple[int, ...] = ()
    normalization: Normalization = field(default_factory=Normalization)
    transpose: tuple[int, ...] = ()
    kind: ClassVar[str] = "array"

    @staticmethod
    def from_table(table: Table, name: str) -> ArrayInput:
        """Returns what a preprocessing table says; faults are noted in it."""
        transpose = table.wholes("transpose") or ()
        if sorted(transpose) != list(range(len(transpose))):
            table.fault(f"transpose must order the axes 0, 1, …, got {list(transpose)}")
        keep = not {"scale", "mean", "std", "dtype"} & set(table.data)
        normalization = Normalization.from_table(table, dtype="" if keep else "float32")
        return ArrayInput(name, table.wholes("shape", least=1) or (), normalization, transpose)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, which `from_table` reads."""
        data: dict[str, Any] = {"input": self.input, "kind": self.kind}
        if self.shape:
            data["shape"] = list(self.shape)
        if self.normalization.dtype:
            data |= self.normalization.to_dict()
        if self.transpose:
            data["transpose"] = list(self.transpose)
        return data

    def prepare(self, raw: Any) -> NDArray[Any]:
        """Returns one sample as an array. Raises `Misuse` when it is no array of numbers."""
        if isinstance(raw, bytes | str | dict):
            raise Misuse(f"the input {self.input!r} takes an array, got {type(raw).__name__}")
        array = np.asarray(raw)
        if array.dtype.kind not in "biuf":
            raise Misuse(f"the input {self.input!r} takes numbers, got dtype {array.dtype}")
        if self.shape:
            if array.size != math.prod(self.shape):
                raise Misuse(
                    f"the input {self.input!r}: {array.shape} cannot be reshaped to {self.shape}"
                )
            array = array.reshape(self.shape)
        if self.transpose and len(self.transpose) != array.ndim:
            raise Misuse(
                f"the input {self.input!r}: transpose has {len(self.transpose)} axes, the "
                f"sample {array.ndim}"
            )
        return array

    def finish(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Returns the batch: normalized, its axes in order, and of the input's type."""
        batch = np.stack(arrays)
        if self.normalization.dtype:
            batch = self.normalization.apply(batch)
        if self.transpose:
            batch = batch.transpose(0, *(axis + 1 for axis in self.transpose))
        return np.ascontiguousarray(batch)


@dataclass(frozen=True)
class TableInput:
    """One input that takes rows of a table; `mean` and `std` have one number a column."""

    input: str
    normalization: Normalization = field(default_factory=Normalization)
    kind: ClassVar[str] = "table"

    @staticmethod
    def from_table(table: Table, name: str) -> TableInput:
        """Returns what a preprocessing table says; faults are noted in it."""
        return TableInput(name, Normalization.from_table(table))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, which `from_table` reads."""
        return {"input": self.input, "kind": self.kind, **self.normalization.to_dict()}

    def prepare(self, raw: Any) -> NDArray[Any]:
        """Returns one row as an array: (columns,). Raises `Misuse` for a NaN or another shape."""
        row = ArrayInput(self.input).prepare(raw)
        if row.ndim != 1:
            raise Misuse(f"the input {self.input!r} takes rows of a table, got shape {row.shape}")
        if row.dtype.kind == "f" and not np.isfinite(row).all():
            at = int(np.flatnonzero(~np.isfinite(row))[0])
            raise Misuse(f"the input {self.input!r}: the value in column {at} is {row[at]}")
        return row

    def finish(self, rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Returns the batch, normalized: (batch, columns)."""
        return self.normalization.apply(np.stack(rows))
