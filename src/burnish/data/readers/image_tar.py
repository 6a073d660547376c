# SPDX-License-Identifier: Apache-2.0
"""Images in a tar of class folders, read in place: nothing is ever extracted."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.file_digest import file_digest
from burnish.data.readers.class_folders import ClassNaming, is_image
from burnish.data.readers.source import MOST_SAMPLE_BYTES, Sample
from burnish.data.toml_table import Table

_MOST_MEMBERS = 10_000_000


@dataclass(frozen=True)
class ImageTar:
    """The images of an uncompressed tar, as bytes.

    `images` holds (member, class number, first byte, size in bytes): about 200 bytes of
    memory for each image.
    """

    path: Path
    images: tuple[tuple[str, int | None, int, int], ...]

    @staticmethod
    def open(path: Path, naming: ClassNaming = ClassNaming()) -> ImageTar:  # noqa: B008
        """Returns the images of a tar. Links, devices and other members are passed over.

        Raises `Misuse` for a damaged or compressed tar: images are compressed already, and
        only a plain tar can be read from any place.
        """
        size_bytes = path.stat().st_size
        places: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for count, member in enumerate(archive):
                    if count >= _MOST_MEMBERS:
                        raise Misuse(f"{path} has more than {_MOST_MEMBERS} members")
                    # The archive would keep every member it has passed.
                    archive.members = []  # type: ignore[attr-defined]
                    if not member.isreg() or member.issparse() or not is_image(member.name):
                        continue
                    if member.size > MOST_SAMPLE_BYTES:
                        raise Misuse(
                            f"{path}: {member.name} is over {MOST_SAMPLE_BYTES} bytes: no image"
                        )
                    if member.offset_data + member.size > size_bytes:
                        raise Misuse(f"{path} is cut off: {member.name} ends after it")
                    if member.name in places:
                        raise Misuse(f"{path} has {member.name} twice")
                    places[member.name] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise Misuse(f"{path} is no readable, uncompressed tar: {error}") from error
        arranged = naming.arrange(places, str(path))
        return ImageTar(path, tuple((name, label, *places[name]) for name, label in arranged))

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: NDArray[np.int64]) -> Iterator[Sample]:
        """Yields the bytes of each member."""
        with self.path.open("rb") as file:
            for row in rows:
                name, label, offset, size_bytes = self.images[row]
                file.seek(offset)
                raw = file.read(size_bytes)
                if len(raw) < size_bytes:
                    raise Misuse(f"{self.path} is cut off in {name}")
                yield Sample(raw, label, f"{self.path.name}:{name}")

    def digest(self) -> str:
        """Returns a hash of the tar, and of which image has which class."""
        images = ",".join(f"{offset}:{label}" for _, label, offset, _ in self.images)
        text = f"{images};{file_digest(self.path)}"
        return hashlib.sha256(text.encode()).hexdigest()


def image_tar_source(table: Table, classes: Mapping[str, int]) -> ImageTar | None:
    """Returns the source "image_tar": `path` and how classes are named."""
    table.need("path", 'the tar, as in path = "images.tar"')
    path = table.path("path")
    naming = ClassNaming.from_table(table, classes)
    return None if path is None else ImageTar.open(path, naming)
