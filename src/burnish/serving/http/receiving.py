# SPDX-License-Identifier: Apache-2.0
"""A connection, read and written as seldom as can be: a tensor is copied once on its way in.

uvicorn hands a body on in pieces of 64 KiB, each copied three times on its way, and stops
reading from the socket until each was taken. Here the application may say where a body of
a declared length goes (`WHOLE_BODY` in the scope's extensions): what came with the head is
moved there, the rest is received into that place by the operating system, and the
application wakes when all is there. Until it says so, nothing more is read: it may refuse a
request for its head alone, and what then still comes of the body is passed over unread.

The application may also ask to be told when its client goes away (`WHEN_GONE`), which
costs nothing while it does not, and give its answer whole (`WHOLE_REPLY`): head and body are
then written at once, and the client wakes once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import httptools
import numpy as np
from uvicorn.protocols.http.httptools_impl import (
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
)

from burnish.serving.http.message import WHEN_GONE, WHOLE_BODY, WHOLE_REPLY, Gone, Headers

SCRATCH_BYTES = 256 * 1024
_HEAD_BYTES = 16 * 1024
"""What is read at once of a message: its head, and a body that is small."""
_NEVER_WRITTEN = np.empty(1 << 24, np.uint8).data
"""Takes address space, and no memory."""
_JOINED_BYTES = 64 * 1024
"""A larger body is written on its own, rather than copied behind its head."""


class ReceivingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with `WHOLE_BODY`, `WHEN_GONE` and `WHOLE_REPLY`."""

    scratch: ClassVar[memoryview] = memoryview(bytearray(SCRATCH_BYTES))
    """Where heads are received, and bodies in pieces: read at once, so that all connections
    of a loop share it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._direct = False
        """Whether what comes is the rest of the body, and goes to its place."""
        self._unread = 0
        """Bytes of a body that nobody wants, still to come."""
        self._lost = False
        self._tell_gone: Callable[[], object] | None = None
        self._own: socket.socket | None = None
        """The transport's socket, to drop with."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        transport.set_protocol(_Received(self))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection, and tells who waits for that."""
        self._lost = True
        super().connection_lost(exc)
        if self._own is not None:
            self._own.detach()  # the transport's: not ours to close
        if self._tell_gone is not None:
            self._tell_gone()

    def when_gone(self, tell: Callable[[], object] | None) -> None:
        """Calls `tell` when the connection is lost, once; None: nobody wants to know."""
        self._tell_gone = tell
        if tell is not None and self._lost:
            self.loop.call_soon(tell)

    def place(self) -> memoryview:
        """Returns where the next bytes go."""
        cycle: Any = self.cycle
        if self._direct:
            return cycle.whole[cycle.filled - cycle.ahead :]  # type: ignore[no-any-return]
        if self._unread and self._drop():
            return self.scratch[: self._unread]
        if cycle is None or not cycle.more_body:
            return self.scratch[:_HEAD_BYTES]
        return self.scratch

    def _drop(self) -> int:
        """Drops what has come of a body that nobody wants; returns how much is still to come.

        The system need not copy it for that (Linux, tcp(7): MSG_TRUNC), unless it is encrypted.
        """
        if sys.platform == "linux" and self.scheme == "http":
            if self._own is None:
                where = self.transport.get_extra_info("socket")
                self._own = socket.socket(where.family, where.type, where.proto, where.fileno())
            try:
                while self._unread:
                    n = min(self._unread, len(_NEVER_WRITTEN))
                    dropped = self._own.recv_into(_NEVER_WRITTEN, n, socket.MSG_TRUNC)
                    self._unread -= dropped
                    if dropped < n:
                        break
            except OSError:
                pass  # nothing is there, or the connection has ended: the transport finds out
            if not self._unread:
                self._body_ends()
        return self._unread

    def placed(self, n: int) -> None:
        """Reads the `n` bytes that came there."""
        if self._direct:
            cycle: Any = self.cycle
            cycle.filled += n
            if cycle.filled == cycle.ahead + len(cycle.whole):
                self._direct = False
                self._body_ends()
        elif self._unread:
            self._unread -= n
            if not self._unread:
                self._body_ends()
        else:
            self.data_received(self.scratch[:n])  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Reads what came; no more of a body is read until somebody wants it."""
        super().data_received(data)
        cycle: Any = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return
        if not self.transport.is_closing():
            self.flow.pause_reading()

    def _body_ends(self) -> None:
        """Ends a message whose body the parser did not see, and still waits for."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.on_message_complete()

    def on_headers_complete(self) -> None:
        """Offers the application what the module says."""
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.whole, cycle.filled, cycle.ahead = None, 0, 0
        """Where the body goes, how much of it has come, and how much goes elsewhere first."""

        async def take(place: memoryview, seconds: float, ahead: int = 0) -> bytes:
            return await self._take(cycle, place, seconds, ahead)

        async def reply(status: int, headers: Headers, body: bytes | memoryview) -> None:
            if cycle.flow.write_paused and not cycle.disconnected:
                await cycle.flow.drain()
            self._answer(cycle, status, headers, body)
            scope.pop("extensions", None)  # they hold the cycle, which holds the scope

        scope: Any = self.scope
        scope["extensions"] = {WHOLE_BODY: take, WHEN_GONE: self.when_gone, WHOLE_REPLY: reply}

    def on_body(self, body: bytes) -> None:
        """Copies a piece of the body to its place, when the application has said where."""
        cycle: Any = self.cycle
        end = cycle.filled + len(body)
        if cycle.whole is None:
            super().on_body(body)
        else:
            cycle.whole[cycle.filled - cycle.ahead : end - cycle.ahead] = body
        cycle.filled = end

    def _answer(self, cycle: Any, status: int, headers: Headers, body: bytes | memoryview) -> None:
        """Writes a whole answer; what still comes of its request's body is passed over."""
        unread = _declared(cycle) - cycle.filled if cycle.more_body else 0
        _write(cycle, status, headers, body)
        if unread > 0 and cycle.keep_alive and cycle is self.cycle and not self._lost:
            self._unread = unread

    async def _take(self, cycle: Any, place: memoryview, seconds: float, ahead: int) -> bytes:
        """Returns the first `ahead` bytes of the body when the rest is in `place`, which it fills.

        Raises `Gone`, and `TimeoutError` after so many seconds.
        """
        if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
            cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        if cycle.more_body and not cycle.disconnected:
            first = await self._awaited(cycle, place, seconds, ahead)
        else:
            first = _moved(cycle, place, ahead)
        cycle.message_event.clear()
        if cycle.disconnected:
            raise Gone
        return first

    async def _awaited(self, cycle: Any, place: memoryview, seconds: float, ahead: int) -> bytes:
        late = False

        def ring() -> None:
            nonlocal late
            late = True
            cycle.message_event.set()

        async def while_waiting(missing: Callable[[], bool]) -> None:
            while missing() and not cycle.disconnected:
                cycle.message_event.clear()
                cycle.flow.resume_reading()
                await cycle.message_event.wait()
                if late:
                    raise TimeoutError

        alarm = self.loop.call_later(seconds, ring)
        try:
            await while_waiting(lambda: cycle.filled < ahead)
            first = _moved(cycle, place, ahead)
            cycle.whole, cycle.ahead = place, ahead
            self._direct = cycle.filled < ahead + len(place)
            await while_waiting(lambda: cycle.more_body)
        finally:  # the place is the application's: an idle connection must not keep it
            alarm.cancel()
            cycle.whole = None
            self._direct = False
        return first


def _moved(cycle: Any, place: memoryview, ahead: int) -> bytes:
    """Moves what has come of the body to its place; returns the bytes that go before it."""
    came, cycle.body = cycle.body, bytearray()
    if len(came) > ahead:
        place[: len(came) - ahead] = came[ahead:]
    return bytes(came[:ahead])


def _declared(cycle: Any) -> int:
    """Returns the body's length as the head has it, 0 where it has none."""
    for name, value in cycle.scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _write(cycle: Any, status: int, headers: Headers, body: bytes | memoryview) -> None:
    """Writes a whole answer. `headers` hold Content-Length, and may hold Connection: close."""
    if cycle.disconnected:
        return
    if HEADER_VALUE_RE.search(b" ".join(value for _, value in headers)):
        raise ValueError("a header of the answer holds what no header may hold")
    parts: list[bytes | memoryview] = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
        if name == b"connection" and value == b"close":
            cycle.keep_alive = False
    if not cycle.keep_alive and (b"connection", b"close") not in headers:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    if cycle.scope["method"] == "HEAD":
        body = b""
    if len(body) <= _JOINED_BYTES:
        cycle.transport.write(b"".join([*parts, body]))
    else:
        cycle.transport.write(b"".join(parts))
        cycle.transport.write(body)
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


class _Received(asyncio.BufferedProtocol):
    """What the transport talks to: the same, received into a buffer of the protocol's."""

    def __init__(self, protocol: ReceivingProtocol) -> None:
        self._protocol = protocol
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns where the next bytes go."""
        return self._protocol.place()

    def buffer_updated(self, nbytes: int) -> None:
        """Reads them."""
        self._protocol.placed(nbytes)
