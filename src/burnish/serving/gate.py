# SPDX-License-Identifier: Apache-2.0
"""Who may ask: bearer tokens, and how many requests a second each client has."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from burnish.serving.oip.faults import Fault
from burnish.serving.refusals import TOO_MANY, Refused

UNAUTHORIZED = 401
_MOST_CLIENTS = 10_000


class Tokens:
    """The tokens that open the server; none of them: it is open."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # Digests, so that every comparison takes as long as any other.
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    def check(self, authorization: str) -> None:
        """Raises `Fault` (401) unless the header's value is "Bearer" and one of the tokens."""
        if not self._digests:
            return
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip(" \t").encode("latin-1", "replace")).digest()
        known = [hmac.compare_digest(given, one) for one in self._digests]
        if scheme.lower() != "bearer" or not any(known):
            raise Fault(
                "expected the header 'Authorization: Bearer TOKEN' with a valid token", UNAUTHORIZED
            )


class Rate:
    """A token bucket for each client: `per_s` requests a second, and as many at once."""

    def __init__(self, per_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Raises `Refused` (429) when the client has asked for more than its share."""
        if self._per_s is None:
            return
        now_s, most = self._clock(), max(1.0, self._per_s)
        left, before_s = self._left.pop(client, (most, now_s))
        left = min(most, left + (now_s - before_s) * self._per_s)
        taken = left >= 1.0
        self._left[client] = (left - 1.0 if taken else left, now_s)
        while len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        if not taken:
            wait_ms = (1.0 - left) / self._per_s * 1e3
            raise Refused(f"more than {self._per_s:g} requests a second", TOO_MANY, wait_ms)
