# SPDX-License-Identifier: Apache-2.0
"""The classification extension: an output's highest values as "value:index:label" strings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.serving.oip.datatypes import BYTES, FLOATS, datatype_of
from burnish.serving.oip.faults import Fault


def classify(
    values: npt.NDArray[Any], count: int, labels: Sequence[str] = (), where: str = "output"
) -> npt.NDArray[Any]:
    """Returns the `count` highest values of each row as bytes, highest first.

    values: (batch, …) gives (batch, count), each row taken flat; (n,) gives (count,).
    labels: by index; an index beyond them has none.
    Values are compared in their own dtype; equal ones by index, NaN last.

    >>> classify(np.array([1, 5, 10, 4]), 2, ["fig", "pickle", "apple"]).tolist()
    [b'10:2:apple', b'5:1:pickle']
    """
    datatype = datatype_of(values.dtype, where)
    if datatype == BYTES:
        raise Fault(f"{where}: expected numbers to classify, got BYTES")
    n_rows = len(values) if values.ndim > 1 else 1
    rows = values.reshape(n_rows, math.prod(values.shape[1:]) if values.ndim > 1 else values.size)
    if count > rows.shape[-1]:
        raise Fault(
            f"{where}: expected a classification of at most {rows.shape[-1]}, "
            f"the values in a row, got {count}"
        )
    classes = np.empty((len(rows), count), object)
    for i, row in enumerate(rows):
        for j, index in enumerate(_highest(row, count)):
            value = int(row[index]) if datatype == "BOOL" else str(row[index])
            label = f":{labels[index]}" if index < len(labels) else ""
            classes[i, j] = f"{value}:{index}{label}".encode()
    return classes if values.ndim > 1 else classes[0]


def _highest(row: npt.NDArray[Any], count: int) -> list[int]:
    if datatype_of(row.dtype) in FLOATS:
        with np.errstate(invalid="ignore"):  # a signalling NaN would warn
            wide = row.astype(np.float64)
            missing = np.isnan(wide)
        order = np.lexsort((np.arange(len(row)), np.where(missing, 0, -wide), missing))
    else:
        # Negating would wrap round: sort the reversed row upwards, and read it from the end.
        order = len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
    first: list[int] = order[:count].tolist()
    return first
