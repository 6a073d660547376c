# SPDX-License-Identifier: Apache-2.0
"""The body of an answer as it comes: bounded, and decompressed within the same bound."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from burnish.serving.client.errors import BadAnswer
from burnish.serving.http.message import aligned
from burnish.serving.oip.framing import HEADER

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class Body:
    """Takes the pieces of a body; `headers` are the answer's, by lower-case name.

    Raises `BadAnswer` as soon as there is more than `most_bytes`, declared, sent or held.
    """

    def __init__(self, headers: Mapping[str, str], most_bytes: int) -> None:
        self._most, self._size = most_bytes, 0
        self._pieces: list[bytes] = []
        ahead = headers.get(HEADER.lower(), "")
        self._header_length = int(ahead) if ahead.isdecimal() and len(ahead) < 16 else 0
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most_bytes:
            raise self._too_large(f"{declared}")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity", *_WINDOW_BITS):
            raise BadAnswer(f"expected an answer in gzip, deflate or no coding, got {coding[:40]}")
        self._reader = zlib.decompressobj(_WINDOW_BITS[coding]) if coding in _WINDOW_BITS else None

    def add(self, piece: bytes) -> None:
        """Takes the next bytes."""
        if self._reader is not None:
            try:
                piece = self._reader.decompress(piece, self._most - self._size + 1)
            except zlib.error as error:
                raise BadAnswer(f"the answer is not compressed as it says: {error}") from error
        self._size += len(piece)
        if self._size > self._most:
            raise self._too_large("more")
        self._pieces.append(piece)

    def whole(self) -> memoryview:
        """Returns all of it; the first tensor lies on a boundary."""
        if self._reader is not None and not self._reader.eof:
            raise BadAnswer("the answer's compressed data ends too soon")
        place = aligned(self._size, min(self._header_length, self._size))
        start = 0
        for piece in self._pieces:
            place[start : start + len(piece)] = piece
            start += len(piece)
        return place

    def _too_large(self, got: str) -> BadAnswer:
        return BadAnswer(
            f"expected an answer of at most {self._most} bytes, got {got}: give "
            "Client(max_response_bytes=...), or ask for fewer rows or outputs"
        )
