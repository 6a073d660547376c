# SPDX-License-Identifier: Apache-2.0
"""Finds the class of each image from its path, and the order in which images are read.

Images are taken from the classes in turns: the first of each class, then the second of
each. So any first part of them covers the classes as evenly as it can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from burnish.core.errors import Misuse, unknown
from burnish.data.toml_table import Table

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})


@dataclass(frozen=True)
class ClassNaming:
    """How a path tells the class: by its folder, or by its file name up to the first "_".

    `names` are the folders (or beginnings) in class order; () takes them sorted.
    `labelled` false reads images without labels, wherever they lie.
    """

    names: tuple[str, ...] = ()
    by_prefix: bool = False
    labelled: bool = True

    @staticmethod
    def from_table(table: Table, classes: Mapping[str, int]) -> ClassNaming:
        """Returns the naming in a split's table: `class_from`, `class_folders`, `labels`."""
        by = table.text("class_from", one_of=["folder", "prefix"])
        labelled = table.flag("labels")
        value = table.value("class_folders")
        names: tuple[str, ...] = ()
        if isinstance(value, str):
            path = table.path("class_folders")
            names = () if path is None else first_words(path)
        elif value is not None:
            names = table.texts("class_folders") or ()
        return ClassNaming(names or tuple(classes), by == "prefix", labelled is not False)

    def arrange(self, files: Iterable[str], where: str) -> list[tuple[str, int | None]]:
        """Returns (file, class number) in reading order.

        Raises `Misuse` when there is no image or a file's class is not known.
        """
        found: dict[str, list[str]] = {}
        for file in sorted(files):
            found.setdefault(self._class(file, where) if self.labelled else "", []).append(file)
        if not found:
            raise Misuse(f"{where} holds no image: expected files like {sorted(SUFFIXES)[:4]}")
        if not self.labelled:
            return [(file, None) for file in found[""]]
        names = self.names or tuple(sorted(found))
        numbers = {name: number for number, name in enumerate(names)}
        for name, members in found.items():
            if name not in numbers:
                near = str(unknown("class", name, names[:1000])).split(" Known:")[0].rstrip(":")
                raise Misuse(
                    f"{where}: {members[0]}: {near}; list the folders in class order, as "
                    'class_folders = ["cat", "dog"] or the path of a file with one a line, or '
                    "set labels = false"
                )
        ordered = [
            (turn, numbers[name], file)
            for name, members in found.items()
            for turn, file in enumerate(members)
        ]
        return [(file, number) for _, number, file in sorted(ordered)]

    def _class(self, file: str, where: str) -> str:
        path = PurePosixPath(file)
        if self.by_prefix:
            return path.stem.split("_", 1)[0]
        if not path.parent.name:
            raise Misuse(
                f"{where}: {file} lies in no class folder: use a sub-folder for each class, "
                'class_from = "prefix" (cat_001.jpg), or labels = false'
            )
        return path.parent.name


def is_image(name: str) -> bool:
    """Returns whether a file counts as an image: by its suffix, and not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def first_words(path: Path) -> tuple[str, ...]:
    """Returns the first word of each line of a file. Raises `Misuse` when two are alike."""
    words = [line.split()[0] for line in lines(path)]
    return _different(words, path)


def lines(path: Path) -> Sequence[str]:
    """Returns the lines of a text file that are not empty, stripped."""
    try:
        if path.stat().st_size > 1 << 24:
            raise Misuse(f"{path} is over 16 MiB: no list of classes")
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"cannot read the classes in {path}: {error}") from error
    return _different([line for line in found if line], path)


def _different(names: list[str], path: Path) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names):
        raise Misuse(f"{path} must have a different class on each line, got {len(names)} lines")
    return tuple(names)
