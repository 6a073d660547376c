# SPDX-License-Identifier: Apache-2.0
"""Samples that a Python function yields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.functions import find_function
from burnish.data.readers.source import Sample
from burnish.data.sample_digest import update_digest
from burnish.data.toml_table import Table

_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class FunctionSource:
    """What `function(**arguments)` yields: (raw, label), a dict with "label" among the inputs,
    or a raw sample alone.

    It is called anew for each pass and must yield the same each time. The first pass counts
    and hashes the samples, so it must end, or `most` must say after how many.
    """

    function: Callable[..., Any]
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    most: int | None = None

    def __len__(self) -> int:
        return self._pass[0]

    @cached_property
    def _pass(self) -> tuple[int, str]:
        digest, count = hashlib.sha256(), 0
        for sample in self._samples():
            update_digest(digest, sample.raw)
            update_digest(digest, sample.label)
            count += 1
            if count >= _MOST_SAMPLES:
                raise Misuse(
                    f"{self.name} has yielded {count} samples and not ended: add "
                    "limit, or rows = [start, stop]"
                )
        if not count:
            raise Misuse(f"{self.name} yields no sample")
        return count, digest.hexdigest()

    def _samples(self) -> Iterator[Sample]:
        made = self.function(**self.arguments)
        if not hasattr(made, "__iter__"):
            raise Misuse(f"{self.name} must yield samples, got {type(made).__name__}")
        for number, item in enumerate(islice(made, self.most)):
            place = f"{self.name} sample {number}"
            if isinstance(item, tuple):
                if len(item) != 2:
                    raise Misuse(f"{place} must be (raw, label), got {len(item)} items")
                yield Sample(item[0], item[1], place)
            elif isinstance(item, dict):
                inputs = {key: value for key, value in item.items() if key != "label"}
                yield Sample(inputs, item.get("label"), place)
            else:
                yield Sample(item, None, place)

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the samples of these rows, calling the function anew."""
        wanted = iter(rows.tolist())
        row = next(wanted, None)
        for number, sample in enumerate(self._samples()):
            if number == row:
                yield sample
                row = next(wanted, None)
            if row is None:
                return
        if row is not None:
            raise Misuse(f"{self.name} yielded fewer samples than at first: sample {row} is gone")

    def digest(self) -> str:
        """Returns a hash of all samples."""
        return f"function:{self._pass[1]}"


def function_source(table: Table) -> FunctionSource | None:
    """Returns the source "function": `function` and its `arguments`."""
    table.need("function", 'as in function = "my_data:samples"')
    name = table.text("function")
    arguments = table.value("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        table.fault(f"arguments must be a table, got {arguments!r}")
        return None
    if name is None:
        return None
    bounds, limit = table.data.get("rows"), table.data.get("limit")
    most: int | None = None
    if isinstance(bounds, list) and len(bounds) == 2 and isinstance(bounds[1], int):
        most = bounds[1]
    elif isinstance(limit, int) and not {"sample", "every"} & set(table.data):
        skip = table.data.get("skip", 0)
        most = limit + skip if isinstance(skip, int) else None
    return FunctionSource(find_function(name, table.folder), name, arguments or {}, most)
