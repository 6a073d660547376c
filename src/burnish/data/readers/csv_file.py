# SPDX-License-Identifier: Apache-2.0
"""Rows of a CSV file, plain or `.gz`, each a vector of numbers."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.data.file_digest import file_digest
from burnish.data.readers.source import Sample, class_number
from burnish.data.toml_table import Table

_MOST_LINE_CHARS = 1 << 20


@dataclass(frozen=True)
class CsvFile:
    """The columns `columns`, in that order, as float64; () takes all but the label.

    The first line names the columns. Text in the label column is looked up in `classes`.
    """

    path: Path
    columns: tuple[str, ...] = ()
    label: str | None = None
    delimiter: str = ","
    classes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self._places

    @cached_property
    def header(self) -> tuple[str, ...]:
        """The names in the first line."""
        for row in self._lines():
            names = tuple(name.strip() for name in row)
            if len(set(names)) != len(names):
                raise Misuse(f"{self.path}: the first line must name different columns: {names}")
            return names
        raise Misuse(f"{self.path} is empty: expected a first line that names the columns")

    @cached_property
    def _places(self) -> tuple[list[int], int | None]:
        wanted = self.columns or tuple(name for name in self.header if name != self.label)
        for name in [*wanted, *([] if self.label is None else [self.label])]:
            if name not in self.header:
                raise Misuse(f"{self.path}: {unknown('column', name, self.header)}")
        if not wanted:
            raise Misuse(f"{self.path} has no column besides the label {self.label!r}")
        label = None if self.label is None else self.header.index(self.label)
        return [self.header.index(name) for name in wanted], label

    @cached_property
    def _n_rows(self) -> int:
        count = sum(1 for _ in self._lines()) - 1
        if count < 1:
            raise Misuse(f"{self.path} holds no row below its header")
        return count

    def __len__(self) -> int:
        return self._n_rows

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields a vector for each row, float64: (columns,)."""
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        places, label_place = self._places
        for number, cells in enumerate(self._lines(), start=-1):
            if row is None:
                return
            if number != row:
                continue
            place = f"{self.path.name} row {row}"
            if len(cells) != len(self.header):
                raise Misuse(f"{place} must have {len(self.header)} cells, got {len(cells)}")
            values = np.array([self._number(cells, at, place) for at in places])
            label = None
            if label_place is not None:
                label = class_number(cells[label_place].strip(), self.classes, place)
            yield Sample(values, label, place)
            row = next(wanted, None)
        if row is not None:
            raise Misuse(f"{self.path} has changed: row {row} is gone")

    def _number(self, cells: list[str], at: int, place: str) -> float:
        try:
            return float(cells[at])
        except ValueError:
            raise Misuse(
                f"{place}, column {self.header[at]!r}: expected a number, got {cells[at]!r}; "
                "leave the column out of columns, or fill it in"
            ) from None

    def _lines(self) -> Iterator[list[str]]:
        opened = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opened(self.path, "rt", encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(_bounded(file), delimiter=self.delimiter, strict=True)
                for cells in reader:
                    if cells:
                        yield cells
        except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise Misuse(f"{self.path} is no readable CSV file: {error}") from error

    def digest(self) -> str:
        """Returns a hash of the file and of what is read of it."""
        what = [self.columns, self.label, self.delimiter, list(self.classes.items())]
        return f"csv:{what}:{file_digest(self.path)}"


def _bounded(file: IO[str]) -> Iterator[str]:
    while line := file.readline(_MOST_LINE_CHARS):
        if len(line) == _MOST_LINE_CHARS and not line.endswith("\n"):
            raise csv.Error(f"a line is longer than {_MOST_LINE_CHARS} characters")
        yield line


def csv_source(table: Table, classes: Mapping[str, int]) -> CsvFile | None:
    """Returns the source "csv": `path`, `columns`, `label`, `delimiter`."""
    table.need("path", 'the file, as in path = "rows.csv"')
    path = table.path("path")
    columns, label = table.texts("columns"), table.text("label")
    delimiter = table.text("delimiter") or ","
    if len(delimiter) != 1:
        table.fault(f"delimiter must be one character, got {delimiter!r}")
        return None
    return None if path is None else CsvFile(path, columns or (), label, delimiter, dict(classes))
