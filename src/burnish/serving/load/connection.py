# SPDX-License-Identifier: Apache-2.0
"""One keep-alive HTTP/1.1 connection, one request at a time, at little cost for each.

A request is bytes that are written as they are. Of an answer only the status is looked at;
its headers and body are parsed, to find their end, and dropped.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, Protocol, cast

from burnish.core.errors import Missing


class Owner(Protocol):
    """Whom a connection tells what became of its request, or of itself."""

    def answered(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Belongs to an owner, which sends only when it is not `busy`."""

    __slots__ = (
        "busy", "due_s", "garbled", "heard", "keep", "owner", "parser", "resent", "rests_from_s",
        "sent_s", "status", "transport",
    )  # fmt: skip

    def __init__(self, owner: Owner, parser: Any) -> None:
        self.owner = owner
        self.parser = parser(self)
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.keep = True
        self.garbled = False
        self.heard = False
        self.resent = False
        self.status = 0
        self.due_s = self.sent_s = 0.0
        self.rests_from_s = math.inf
        """When it was opened, or last answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.rests_from_s = time.monotonic()

    def send(self, wire: bytes, due_s: float, now_s: float, resent: bool = False) -> None:
        """Writes a request that was due at `due_s`."""
        self.due_s, self.sent_s, self.resent = due_s, now_s, resent
        self.heard, self.busy = False, True
        self.transport.write(wire)  # type: ignore[union-attr]  # it is connected

    def close(self) -> None:
        """Ends the connection at once; what was in flight is not told of any more."""
        self.busy = False
        self.keep = False
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self.parser.feed_data(data)
        except _errors():
            self.garbled = True
            if self.transport is not None:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.keep = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        if self.status < 200:  # "continue", or an early hint
            return
        if not self.busy:
            self.close()  # an answer that nobody asked for
            return
        self.busy = False
        self.owner.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.owner.lost(self)


def response_parser() -> Any:
    """Returns the class that parses answers."""
    try:
        import httptools
    except ImportError as error:
        raise Missing("load", "httptools", "serve") from error
    return httptools.HttpResponseParser


def _errors() -> Any:
    import httptools

    return httptools.HttpParserError, httptools.HttpParserUpgrade
