# SPDX-License-Identifier: Apache-2.0
"""Images in a folder, a sub-folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.file_digest import files_digest
from burnish.data.readers.class_folders import ClassNaming, is_image
from burnish.data.readers.source import MOST_SAMPLE_BYTES, Sample
from burnish.data.toml_table import Table


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, as bytes; `images` holds (path in the folder, class number)."""

    folder: Path
    images: tuple[tuple[str, int | None], ...]

    @staticmethod
    def open(folder: Path, naming: ClassNaming = ClassNaming()) -> ImageFolder:  # noqa: B008
        """Returns the images below a folder. Links to folders are not followed."""
        if not folder.is_dir():
            raise Misuse(f"{folder} must be a folder with a sub-folder for each class")
        files = [
            (Path(parent) / name).relative_to(folder).as_posix()
            for parent, _, names in os.walk(folder)
            for name in names
            if is_image(name)
        ]
        return ImageFolder(folder, tuple(naming.arrange(files, str(folder))))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the bytes of each file."""
        for row in rows:
            name, label = self.images[row]
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    raw = file.read(MOST_SAMPLE_BYTES + 1)
            except OSError as error:
                raise Misuse(f"cannot read the image {path}: {error}") from error
            if len(raw) > MOST_SAMPLE_BYTES:
                raise Misuse(f"the image {path} is over {MOST_SAMPLE_BYTES} bytes")
            yield Sample(raw, label, str(path))

    def digest(self) -> str:
        """Returns a hash of names, classes and contents; see `file_digest.files_digest`."""
        labels = ",".join(str(label) for _, label in self.images)
        text = f"{labels};{files_digest(self.folder, [name for name, _ in self.images])}"
        return hashlib.sha256(text.encode()).hexdigest()


def image_folder_source(table: Table, classes: Mapping[str, int]) -> ImageFolder | None:
    """Returns the source "image_folder": `path` and how classes are named."""
    table.need("path", 'the folder, as in path = "images/train"')
    path = table.path("path")
    naming = ClassNaming.from_table(table, classes)
    return None if path is None else ImageFolder.open(path, naming)
