# SPDX-License-Identifier: Apache-2.0
"""How asking a server can fail, besides `Misuse` for what cannot be asked at all.

BurnishError
├── ServerRefused      it answered, with an error
├── ServerUnreachable  it did not answer
├── DeadlineExceeded   it did not answer in time, or said that it will not
└── BadAnswer          what it answered is too large, or not what the protocol says
"""

from __future__ import annotations

from typing import Any

from burnish.core.errors import BurnishError

_ADVICE = {
    401: "give Client(token=...) one of the server's tokens",
    429: "ask later, or give more retries or a longer deadline",
    503: "ask later, or give more retries or a longer deadline",
}


class ServerRefused(BurnishError):
    """The server answered with an error.

    status: HTTP's; message: the server's own words; retry_after_s: when the server says that
    asking again is of use, None where it does not.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        again = "" if retry_after_s is None else f" (again in {retry_after_s:g} s)"
        advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
        super().__init__(f"the server refused with status {status}: {message}{again}{advice}")
        self.status, self.message, self.retry_after_s = status, message, retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.message, self.retry_after_s)


class ServerUnreachable(BurnishError):
    """No connection, or one that broke before the answer was whole."""


class DeadlineExceeded(BurnishError):
    """No answer came in time, or the server said that none will."""


class BadAnswer(BurnishError):
    """The answer is larger than allowed, or not what the protocol says."""
