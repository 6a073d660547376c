# SPDX-License-Identifier: Apache-2.0
"""Encoded images end to end in one `.npz`: arrays `blob`, `offsets` (n + 1) and `labels`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.file_digest import file_digest
from burnish.data.readers.npy_stream import NpyStream, array_names
from burnish.data.readers.source import MOST_SAMPLE_BYTES, Sample
from burnish.data.toml_table import Table


@dataclass(frozen=True)
class ImagePack:
    """Image i is the bytes offsets[i]..offsets[i + 1] of the blob; nothing is held whole."""

    blob: NpyStream
    offsets: NpyStream
    labels: NpyStream | None

    def __post_init__(self) -> None:
        faults = []
        if self.blob.dtype != np.uint8 or len(self.blob.shape) != 1:
            faults.append(f"blob must be a line of uint8, got {self.blob.shape} {self.blob.dtype}")
        if self.offsets.dtype.kind not in "iu" or len(self.offsets.shape) != 1:
            faults.append(
                "offsets must be a line of whole numbers, got "
                f"{self.offsets.shape} {self.offsets.dtype}"
            )
        if len(self.offsets) < 2:
            faults.append("offsets must have n + 1 numbers for n images, at least 2")
        elif self.labels is not None and len(self.labels) != len(self):
            faults.append(f"{len(self)} images need as many labels, got {len(self.labels)}")
        if faults:
            raise Misuse(f"{self.blob.path}: " + "; ".join(faults))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the bytes of each image."""
        labels: Iterator[Any] = (
            iter([None] * len(rows)) if self.labels is None else self.labels.rows(rows)
        )
        starts, stops = self._bounds(rows)
        images = self.blob.spans(starts, stops)
        for row, image, label in zip(rows, images, labels, strict=True):
            yield Sample(image.tobytes(), label, f"{self.blob.path.name} image {row}")

    def _bounds(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # One pass over the blob needs the bounds ahead of it: 16 bytes for each image.
        needed = np.union1d(rows, rows + 1)
        offsets = np.fromiter(self.offsets.rows(needed), np.int64, len(needed))
        starts = offsets[np.searchsorted(needed, rows)]
        stops = offsets[np.searchsorted(needed, rows + 1)]
        before = np.concatenate([[0], stops[:-1]])
        wrong = (starts < before) | (stops <= starts) | (stops > len(self.blob))
        wrong |= stops - starts > MOST_SAMPLE_BYTES
        if wrong.any():
            i = int(wrong.argmax())
            raise Misuse(
                f"{self.blob.path}: image {rows[i]} must lie in bytes {before[i]}.."
                f"{len(self.blob)} of the blob, got {starts[i]}..{stops[i]}"
            )
        return starts, stops

    def digest(self) -> str:
        """Returns a hash of the file, and of whether labels are read."""
        return f"pack:{self.labels is not None}:{file_digest(self.blob.path)}"


def image_pack_source(table: Table) -> ImagePack | None:
    """Returns the source "image_pack": `path`, and `labels = false` to read none."""
    table.need("path", 'the file, as in path = "images.npz"')
    path, labelled = table.path("path"), table.flag("labels")
    if path is None:
        return None
    known = array_names(path)
    has_labels = labelled is not False and ("labels" in known or labelled is True)
    return ImagePack(
        NpyStream.open(path, "blob"),
        NpyStream.open(path, "offsets"),
        NpyStream.open(path, "labels") if has_labels else None,
    )
