# SPDX-License-Identifier: Apache-2.0
"""The one error of the protocol: an HTTP status and a sentence for whoever sent the message."""

from __future__ import annotations

import json
import reprlib
from functools import lru_cache

from burnish.core.errors import Misuse

BAD_REQUEST = 400
TOO_LARGE = 413
OUR_FAULT = 500

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlist = _SHORT.maxtuple = 8


class Fault(Misuse):
    """A message that cannot be taken or given; the text names the tensor, expected and got."""

    def __init__(self, message: str, status: int = BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def shown(value: object) -> str:
    """Returns a value for use in a message: its repr, never long.

    >>> shown(list(range(1000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, ...]'
    """
    return _SHORT.repr(value)


def error_document(error: str | Exception) -> dict[str, str]:
    """Returns the error object, which every failed request has for a body."""
    return {"error": str(error)}


def error_body(error: str | Exception) -> bytes:
    """Returns the error object as JSON bytes.

    >>> error_body(Fault("input 'x': expected 3 elements, got 2"))
    b'{"error": "input \\'x\\': expected 3 elements, got 2"}'
    """
    return _error_body(str(error))


@lru_cache(256)  # those of a server that refuses many are the same few
def _error_body(error: str) -> bytes:
    return json.dumps(error_document(error)).encode("ascii")
