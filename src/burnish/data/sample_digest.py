# SPDX-License-Identifier: Apache-2.0
"""What a raw sample holds, as a short hash."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def sample_digest(raw: Any) -> bytes:
    """Returns 16 bytes that are equal for equal samples.

    >>> sample_digest(b"image") == sample_digest(b"image") != sample_digest(b"another")
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    update_digest(digest, raw)
    return digest.digest()


def update_digest(digest: _Hash, raw: Any) -> None:
    """Adds a raw sample or label to a hash: bytes, text, an array, or a dict of these."""
    if isinstance(raw, dict):
        for name in sorted(raw):
            digest.update(f"key:{name};".encode())
            update_digest(digest, raw[name])
    elif isinstance(raw, bytes):
        digest.update(f"bytes:{len(raw)};".encode())
        digest.update(raw)
    elif isinstance(raw, str) or raw is None:
        digest.update(f"text:{raw!r};".encode())
    else:
        array = np.ascontiguousarray(raw)
        digest.update(f"array:{array.dtype.str}{np.shape(raw)};".encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
