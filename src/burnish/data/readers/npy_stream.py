# SPDX-License-Identifier: Apache-2.0
"""Reads the rows of a `.npy` array, in a file or inside a zip, without loading the array."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.readers.source import MOST_SAMPLE_BYTES

_BLOCK_BYTES = 1 << 20
_BROKEN = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True)
class NpyStream:
    """One array of a `.npy` file, or of the member `member` of a `.npz`; its shape and dtype.

    The whole array is never held: rows are read in blocks of about 1 MiB.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    """Where the first row begins, in bytes from the start of the file or member."""

    @staticmethod
    def open(path: Path, key: str | None = None) -> NpyStream:
        """Returns the array in a `.npy`, or the array `key` of a `.npz`.

        Raises `Misuse` when it is damaged, shorter than its header says, holds objects,
        or has rows too large to read.
        """
        member = None if key is None else f"{key}.npy"
        name = str(path) if key is None else f"{path}, array {key!r}"
        try:
            with ExitStack() as stack:
                file, size_bytes = _enter(stack, path, member)
                shape, fortran, dtype = _header(file, name)
                offset = file.tell()
        except _BROKEN as error:
            raise Misuse(f"{name} is no readable array: {error}") from error
        if dtype.hasobject or dtype.names or dtype.kind not in "biufc":
            raise Misuse(f"{name} must hold numbers, got dtype {dtype}: objects are never loaded")
        if not shape:
            raise Misuse(f"{name} holds one number; its first axis must be the sample")
        if fortran and len(shape) > 1:
            raise Misuse(
                f"{name} is stored column by column, so its rows cannot be streamed: save it "
                "again with numpy.ascontiguousarray"
            )
        if math.prod(shape[1:]) * dtype.itemsize > MOST_SAMPLE_BYTES:
            raise Misuse(f"{name}: one sample of shape {shape[1:]} is over {MOST_SAMPLE_BYTES} B")
        expected = offset + math.prod(shape) * dtype.itemsize
        if size_bytes != expected:
            raise Misuse(
                f"{name} is cut off or damaged: shape {shape} of {dtype} takes {expected} bytes, "
                f"got {size_bytes}"
            )
        return NpyStream(path, member, shape, dtype, offset)

    @property
    def name(self) -> str:
        """The file, and the array in it."""
        return str(self.path) if self.member is None else f"{self.path}, array {self.member[:-4]!r}"

    def __len__(self) -> int:
        return self.shape[0]

    def spans(self, starts: Any, stops: Any) -> Iterator[NDArray[Any]]:
        """Yields the rows start..stop of each pair, copied; the pairs ascend."""
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        with ExitStack() as stack:
            try:
                file, _ = _enter(stack, self.path, self.member)
                seekable = self.member is None
                position = 0
                for start, stop in zip(starts, stops, strict=True):
                    wanted = self.offset + int(start) * row_bytes
                    if seekable:
                        file.seek(wanted)
                    else:
                        _discard(file, wanted - position)
                    count = int(stop) - int(start)
                    raw = _read(file, count * row_bytes)
                    position = wanted + len(raw)
                    yield np.frombuffer(raw, self.dtype).reshape(count, *self.shape[1:])
            except _BROKEN as error:
                raise Misuse(f"{self.name} is cut off or damaged: {error}") from error

    def rows(self, rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Yields each of these rows, which ascend, as an array of its own."""
        if not len(rows):
            return
        # Rows that follow one another are read together, in blocks of about 1 MiB.
        row_bytes = max(1, math.prod(self.shape[1:]) * self.dtype.itemsize)
        most = max(1, _BLOCK_BYTES // row_bytes)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        first = np.concatenate([[0], breaks])
        last = np.concatenate([breaks, [len(rows)]])
        starts = [
            int(rows[a]) + k
            for a, b in zip(first, last, strict=True)
            for k in range(0, int(b - a), most)
        ]
        stops = [
            min(int(rows[a]) + k + most, int(rows[b - 1]) + 1)
            for a, b in zip(first, last, strict=True)
            for k in range(0, int(b - a), most)
        ]
        for block in self.spans(starts, stops):
            for row in block:
                yield row.copy()


def array_names(path: Path) -> list[str]:
    """Returns the names of the arrays in a `.npz`. Raises `Misuse` when it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    except _BROKEN as error:
        raise Misuse(f"{path} is no readable .npz: {error}") from error


def _enter(stack: ExitStack, path: Path, member: str | None) -> tuple[IO[bytes], int]:
    """Returns the opened file or member, and its size in bytes."""
    if member is None:
        return stack.enter_context(path.open("rb")), path.stat().st_size
    archive = stack.enter_context(zipfile.ZipFile(path))
    try:
        info = archive.getinfo(member)
    except KeyError:
        known = ", ".join(repr(name) for name in array_names(path))
        raise Misuse(f"{path} has no array {member[:-4]!r}; it has {known}") from None
    if info.flag_bits & 1:
        raise Misuse(f"{path}: the array {member[:-4]!r} is encrypted")
    return stack.enter_context(archive.open(info)), info.file_size


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version == (1, 0):
        return npy_format.read_array_header_1_0(file)
    # Later versions have headers of up to 4 GiB, for arrays with very many named fields.
    raise Misuse(f"{name}: npy version {version} is for named fields; save a plain array")


def _read(file: IO[bytes], n_bytes: int) -> bytes:
    raw = file.read(n_bytes)
    while len(raw) < n_bytes:
        more = file.read(n_bytes - len(raw))
        if not more:
            raise EOFError(f"{n_bytes - len(raw)} bytes are missing")
        raw += more
    return raw


def _discard(file: IO[bytes], n_bytes: int) -> None:
    while n_bytes > 0:
        n_bytes -= len(_read(file, min(n_bytes, _BLOCK_BYTES)))
