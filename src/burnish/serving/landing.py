# SPDX-License-Identifier: Apache-2.0
"""Where the bodies of requests are received, so that a batch of them need not be copied.

For a model of one input, of which only the batch is free, rows lie one behind another in
one piece of memory, and a body is received into the next ones. When the rows of a batch
turn out to be neighbours, as they mostly are, the engine gets that part of the memory as
it is; their order in the batch is then the order in memory. Else they are gathered.

A row is free again when nothing holds a view of it any more: neither the request, nor a
batch that still runs for a client that went away.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.serving.rows import TEXT, Piece, Rows

_MOST_BYTES = 32 * 2**20
_MOST_ROWS = 256
_ALIGN = 64


class Landing:
    """The memory of one model; places are given out on one thread, spans found on any."""

    def __init__(self, rows: Rows) -> None:
        self.input, self._dims, self._dtype, self._row_bytes = _layout(rows)
        self._n = min(_MOST_ROWS, _MOST_BYTES // self._row_bytes) if self._row_bytes else 0
        self._held: list[weakref.ref[NDArray[Any]] | None] = [None] * self._n
        """By row: the view that was given out."""
        self._next = 0
        self._memory: NDArray[np.uint8] | None = None
        self._rows: NDArray[Any] | None = None
        self._address = 0

    def place(self, size_bytes: int) -> memoryview | None:
        """Returns where a body of this size goes, or None where it is whole rows of no model's,
        or no place is free."""
        if not self._n or size_bytes % self._row_bytes:
            return None
        n = size_bytes // self._row_bytes
        if not 0 < n <= self._n // 2:
            return None
        if self._memory is None:
            self._allot()
        assert self._memory is not None
        first = self._next if self._next + n <= self._n else 0
        for held in self._held[first : first + n]:
            if held is not None and held() is not None:
                return None
        self._next = first + n
        size = self._row_bytes
        view = self._memory[first * size : (first + n) * size]
        self._held[first : first + n] = [weakref.ref(view)] * n
        return view.data

    def span(self, pieces: Sequence[Piece]) -> tuple[NDArray[Any], list[Piece]] | None:
        """Returns the batch where it lies, and the pieces with where they stand in it.

        None where they are no neighbours, or did not land here.
        """
        if self._rows is None:
            return None
        starts: list[tuple[int, int]] = []
        for number, piece in enumerate(pieces):
            array = piece.inputs[self.input]
            if array.shape[1:] != self._dims or not array.flags.c_contiguous:
                return None
            offset = array.__array_interface__["data"][0] - self._address
            start, within = divmod(offset, self._row_bytes)
            if within or not 0 <= start < self._n:
                return None
            starts.append((start + piece.first_row, number))
        ordered = sorted(starts)
        first = end = ordered[0][0]
        for start, number in ordered:
            if start != end:
                return None
            end += pieces[number].rows
        placed = [
            piece._replace(batch_row=start - first)
            for (start, _), piece in zip(starts, pieces, strict=True)
        ]
        return self._rows[first:end], placed

    def _allot(self) -> None:
        size = self._n * self._row_bytes
        whole = np.empty(size + _ALIGN, np.uint8)
        start = -whole.ctypes.data % _ALIGN
        self._memory = whole[start : start + size]
        self._address = self._memory.ctypes.data
        self._rows = self._memory.view(self._dtype).reshape(self._n, *self._dims)


def _layout(rows: Rows) -> tuple[str, tuple[int, ...], np.dtype[Any], int]:
    """Returns the input's name, the sizes, dtype and bytes of a row; 0 bytes: not for it."""
    spec, *others = rows.signature.inputs
    dims = tuple(size for size in spec.shape[1:] if isinstance(size, int))
    whole = not others and rows.batched and len(dims) == len(spec.shape) - 1
    if not whole or spec.dtype == TEXT:
        return spec.name, (), np.dtype(np.uint8), 0
    dtype = np.dtype(spec.dtype)
    return spec.name, dims, dtype, int(np.prod(dims, dtype=np.int64)) * dtype.itemsize
