# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request, whichever way it was answered: its identifier, the reply to what
went wrong, and what is counted, logged and traced of it."""

from __future__ import annotations

import itertools
import logging
import time
import urllib.parse
from typing import NamedTuple

from burnish.core.errors import BurnishError
from burnish.serving.gate import UNAUTHORIZED
from burnish.serving.http.message import Call, Headers, Reply
from burnish.serving.oip.faults import OUR_FAULT, Fault
from burnish.serving.served_model import Answer, ServedModel
from burnish.serving.tracing import Traced, Tracing

_log = logging.getLogger(__name__)
_access = logging.getLogger("burnish.serving.access")

_NOT_ALLOWED = 405
_REQUEST_ID = b"x-request-id"
_MOST_ID_BYTES = 200
CLOSE = (b"connection", b"close")


class NotAllowed(Fault):
    """Another method than the route has; `allow` is the header's value."""

    def __init__(self, allow: str, call: Call) -> None:
        first = allow.split(",")[0]
        super().__init__(f"expected {first} for {call.path[:200]}, got {call.method}", _NOT_ALLOWED)
        self.allow = allow.encode()


class Inferred(NamedTuple):
    """The reply, who gave it, and when the request was in the queue, on perf_counter's clock."""

    reply: Reply
    served: ServedModel
    answer: Answer
    queued_ms: float


class Outcomes:
    """Those of one server."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._tracing = Tracing()
        self._started = f"{time.time_ns():x}"

    def identifier(self, call: Call) -> bytes:
        """Returns the client's own identifier, or a new one."""
        return call.headers.get(_REQUEST_ID) or f"{self._started}-{next(self._ids)}".encode()

    def headers(self, identifier: bytes) -> Headers:
        """Returns what every answer says."""
        return ((_REQUEST_ID, identifier[:_MOST_ID_BYTES]),)

    def failed(self, error: Exception, call: Call, identifier: bytes) -> tuple[Reply, Headers]:
        """Returns the reply to a request that raised, and its headers beside `headers`."""
        if isinstance(error, Fault):
            more: Headers = ()
            if error.status == UNAUTHORIZED:
                more += ((b"www-authenticate", b"Bearer"),)
            if isinstance(error, NotAllowed):
                more += ((b"allow", error.allow),)
            if error.status in (408, 413) or b"expect" in call.headers:
                more += (CLOSE,)  # its body is not read, or may not come
            return Reply.fault(error), more
        told = identifier.decode("latin-1")
        if isinstance(error, BurnishError):
            _log.error("failed id=%s error=%s", told, error)
            return Reply.fault(Fault(str(error), OUR_FAULT)), ()
        _log.error("failed id=%s path=%s", told, _one_line(call.path), exc_info=error)
        return Reply.fault(Fault("the server failed to answer", OUR_FAULT)), ()

    def gone(self, call: Call, identifier: bytes) -> None:
        """Logs a request whose client went away."""
        _access.info("gone id=%s path=%s", identifier.decode("latin-1"), _one_line(call.path))

    def answered(
        self,
        call: Call,
        identifier: bytes,
        status: int,
        inferred: Inferred | None,
        began_ms: float,
        sending_ms: float,
    ) -> None:
        """Counts, traces and logs a request that was just answered; times on perf_counter's
        clock."""
        if inferred is not None:
            done_ms = time.perf_counter() * 1e3
            stages = inferred.served.counts.stages
            stages["respond"].add(done_ms - sending_ms)
            stages["total"].add(done_ms - began_ms)
            if self._tracing.on:
                self._trace(call, inferred, identifier, began_ms, done_ms)
        if _access.isEnabledFor(logging.INFO):
            _access.info(
                "answered id=%s client=%s method=%s path=%s status=%d ms=%.3f",
                identifier.decode("latin-1"),
                call.client,
                call.method,
                _one_line(call.path),
                status,
                time.perf_counter() * 1e3 - began_ms,
            )

    def _trace(
        self, call: Call, inferred: Inferred, identifier: bytes, began_ms: float, done_ms: float
    ) -> None:
        ended_ns = time.time_ns()
        traced = Traced(
            inferred.served,
            inferred.answer,
            identifier.decode("latin-1"),
            inferred.queued_ms - began_ms,
            ended_ns - round((done_ms - began_ms) * 1e6),
            ended_ns,
        )
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in call.headers.items()
        }
        self._tracing.record(headers, traced)


def _one_line(path: str) -> str:
    """Returns a path as it was sent: decoded, it may hold anything."""
    return urllib.parse.quote(path[:1000])
