# SPDX-License-Identifier: Apache-2.0
"""What a file or folder holds, as one hash that does not depend on where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

WHOLE_BYTES = 1 << 30
"""Up to this size everything is hashed; beyond, a sample is."""
_BLOCK_BYTES = 1 << 20
_N_BLOCKS = 64


def file_digest(path: Path) -> str:
    """Returns a SHA-256 of a file's content.

    Of a file over 1 GiB, its size and 64 evenly spaced blocks of 1 MiB are hashed, so a
    change between the blocks that keeps the size goes unseen. Kept in memory until the
    file's size or time of change differs.
    """
    stat = path.stat()
    return _digest(path.absolute(), stat.st_size, stat.st_mtime_ns)


def files_digest(folder: Path, files: Sequence[str]) -> str:
    """Returns a SHA-256 of the names and contents of files in a folder.

    Of more than 1 GiB in all, every name and size and the contents of 256 evenly spaced
    files are hashed.
    """
    sizes = [(folder / name).stat().st_size for name in files]
    step = 1 if sum(sizes) <= WHOLE_BYTES else max(1, len(files) // 256)
    digest = hashlib.sha256()
    for position, (name, size) in enumerate(zip(files, sizes, strict=True)):
        content = file_digest(folder / name) if position % step == 0 else ""
        digest.update(f"{len(name)}:{name}:{size}:{content};".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@lru_cache(maxsize=100_000)
def _digest(path: Path, size_bytes: int, mtime_ns: int) -> str:
    digest = hashlib.sha256(str(size_bytes).encode())
    with path.open("rb") as file:
        if size_bytes <= WHOLE_BYTES:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        else:
            for number in range(_N_BLOCKS):
                file.seek((size_bytes - _BLOCK_BYTES) * number // (_N_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()
