# SPDX-License-Identifier: Apache-2.0
"""Rows of a Parquet file: columns as a vector, or one column as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Missing, Misuse, unknown
from burnish.data.file_digest import file_digest
from burnish.data.readers.source import MOST_SAMPLE_BYTES, Sample, class_number
from burnish.data.toml_table import Table

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class ParquetFile:
    """`columns` as a float64 vector (() takes all but the label), or `column` as it is.

    `column` is one column of bytes (an encoded image), of {"bytes": …} records, or of
    lists of numbers. Read batch by batch; a row group is the most that is held.
    """

    path: Path
    columns: tuple[str, ...] = ()
    column: str | None = None
    label: str | None = None
    classes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.columns and self.column is not None:
            raise Misuse(f"{self.path}: give columns or column, not both")
        for name in [*self._wanted, *([] if self.label is None else [self.label])]:
            if name not in self._names:
                raise Misuse(f"{self.path}: {unknown('column', name, self._names)}")
        if not len(self):
            raise Misuse(f"{self.path} holds no row")

    def _open(self) -> Any:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise Missing("reading Parquet files", "pyarrow", "parquet") from error
        try:
            return parquet.ParquetFile(self.path)
        except (ArrowException, OSError) as error:
            raise Misuse(f"{self.path} is no readable Parquet file: {error}") from error

    @cached_property
    def _meta(self) -> tuple[tuple[str, ...], int]:
        with self._open() as file:
            return tuple(file.schema_arrow.names), int(file.metadata.num_rows)

    @property
    def _names(self) -> tuple[str, ...]:
        return self._meta[0]

    @property
    def _wanted(self) -> tuple[str, ...]:
        if self.column is not None:
            return (self.column,)
        return self.columns or tuple(name for name in self._names if name != self.label)

    def __len__(self) -> int:
        return self._meta[1]

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the rows, passing over those before them batch by batch."""
        wanted = list(self._wanted)
        names = [*wanted, *([] if self.label is None else [self.label])]
        start, at = 0, 0
        with self._open() as file:
            for batch in _batches(file, names, self.path):
                stop = start + len(batch)
                end = int(np.searchsorted(rows, stop))
                if end > at:
                    part = batch.take(rows[at:end] - start).to_pydict()
                    for k, row in enumerate(rows[at:end]):
                        yield self._sample({name: part[name][k] for name in names}, int(row))
                start, at = stop, end
                if at == len(rows):
                    return
        raise Misuse(f"{self.path} is cut off: row {rows[at]} is missing")

    def _sample(self, cells: dict[str, Any], row: int) -> Sample:
        place = f"{self.path.name} row {row}"
        label = None
        if self.label is not None:
            label = class_number(cells[self.label], self.classes, place)
            if label is None:
                raise Misuse(f"{place}: the label {self.label!r} is empty")
        if self.column is not None:
            return Sample(_as_is(cells[self.column], place, self.column), label, place)
        values = [cells[name] for name in self._wanted]
        for name, value in zip(self._wanted, values, strict=True):
            if not isinstance(value, int | float):
                raise Misuse(f"{place}, column {name!r}: expected a number, got {value!r:.60}")
        return Sample(np.array(values, np.float64), label, place)

    def digest(self) -> str:
        """Returns a hash of the file and of what is read of it."""
        what = [self.columns, self.column, self.label, list(self.classes.items())]
        return f"parquet:{what}:{file_digest(self.path)}"


def _batches(file: Any, names: list[str], path: Path) -> Iterator[Any]:
    from pyarrow import ArrowException

    try:
        yield from file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names, use_threads=False)
    except (ArrowException, OSError) as error:
        raise Misuse(f"{path} is damaged: {error}") from error


def _as_is(cell: Any, place: str, column: str) -> Any:
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    if isinstance(cell, bytes) and len(cell) <= MOST_SAMPLE_BYTES:
        return cell
    if isinstance(cell, int | float | list):
        try:
            array = np.array(cell)
        except ValueError as error:  # lists of different lengths
            raise Misuse(f"{place}, column {column!r}: {error}") from error
        if array.dtype.kind in "biuf":
            return array
    raise Misuse(
        f"{place}, column {column!r}: expected bytes or numbers, got {type(cell).__name__}"
    )


def parquet_source(table: Table, classes: Mapping[str, int]) -> ParquetFile | None:
    """Returns the source "parquet": `path`, `columns` or `column`, `label`."""
    table.need("path", 'the file, as in path = "rows.parquet"')
    path = table.path("path")
    columns, column, label = table.texts("columns"), table.text("column"), table.text("label")
    if path is None:
        return None
    return ParquetFile(path, columns or (), column, label, dict(classes))
