# SPDX-License-Identifier: Apache-2.0
"""The contract of every reader: raw samples by row, in one order, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse

MOST_SAMPLE_BYTES = 1 << 28
"""The largest raw sample that is read, so that a hostile file cannot fill the memory."""


@dataclass(frozen=True)
class Sample:
    """One raw sample: an image's bytes, an array, or a dict of these by input name.

    `label` is None when there is none; `place` names it in messages: a file, a row.
    """

    raw: Any
    label: Any
    place: str


class Source(Protocol):
    """Raw samples. Making one checks what can be checked without reading them all."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the samples of these rows, which ascend; memory does not grow with them."""
        ...

    def digest(self) -> str:
        """Returns a hash of the content that does not depend on where the files lie."""
        ...


def class_number(label: Any, classes: Mapping[str, int], place: str) -> Any:
    """Returns a label read from text as a number: a class's position, or the number it is.

    Raises `Misuse` naming the place when it is neither.
    """
    if isinstance(label, str):
        if label in classes:
            return classes[label]
        try:
            return int(label)
        except ValueError:
            pass
        try:
            return float(label)
        except ValueError:
            known = ", ".join(list(classes)[:8]) or "none: add classes = […] to the task"
            raise Misuse(
                f"{place}: the label {label!r} is no number and none of the classes ({known})"
            ) from None
    return label
