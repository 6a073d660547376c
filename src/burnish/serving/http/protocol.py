# SPDX-License-Identifier: Apache-2.0
"""What a client may do, bounded.

uvicorn bounds neither connections nor heads, nor how long either may take. Here

- one connection too many is told so (503) and closed;
- a head that is too large (431) or does not come in time (408) ends its connection, and so
  does a body that nobody reads, or a client that takes no more of its answer;
- requests that a client sends ahead are read no faster than they are answered;
- what is wrong behind a request that is on its way does not take its answer;
- a connection that ends before all was read is closed for writing first, so that its
  client, which may still send, gets to read why;
- at the end of the server a connection that is new or idle has a moment to send what is
  on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any, ClassVar

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from burnish.serving.http.receiving import ReceivingProtocol
from burnish.serving.oip.faults import BAD_REQUEST, error_body

_MOST_HEAD_BYTES = 64 * 1024
_FRAMING = 16
"""Bytes of chunk headers that a client may send for each byte of a body."""
_MOST_AHEAD = 128
_MOST_REFUSED = 64
_LINGER_S = 1.0
_STALL_S = 30.0
_NEW_S, _IDLE_S = 1.0, 0.05
_TIMEOUT, _HEAD_TOO_LARGE, _TOO_MANY = 408, 431, 503


class TensorProtocol(ReceivingProtocol):
    """The protocol, with bounds."""

    max_connections: ClassVar[int] = 1024
    head_s: ClassVar[float] = 10.0
    """How long a request's head may take."""
    refused: ClassVar[set[TensorProtocol]] = set()
    """Connections beyond the most, until they have read that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = self._in_message = False
        self._came = self._used = 0
        """Bytes of this message, and those of them that are its body."""
        self._deaf = False
        """Whether what comes is passed over."""
        self._last = False
        """Whether the next request is the last."""
        self._head_due: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._idle_since_s = 0.0
        """By the loop's clock."""

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, or says that there are too many."""
        super().connection_made(transport)
        ending: Any = _Ending(transport, self)
        self.transport = ending
        self.flow = _Flow(ending, self.pipeline)
        if len(self.connections) <= self.max_connections:
            self._await_head()
            return
        self.connections.discard(self)
        if len(self.refused) < _MOST_REFUSED:
            self.refused.add(self)
            self._refuse(_TOO_MANY, "the server has as many connections as it takes: ask again")
        else:
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection, and what refers back to it: nothing is left to be searched
        for by the collector, which has little else to do and comes seldom."""
        self.refused.discard(self)
        self._head_came()
        self._moving()
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()
        self.cycle = None  # type: ignore[assignment]  # as it was before the first request
        self.pipeline.clear()
        ending: Any = self.transport
        ending.forget()

    def data_received(self, data: bytes) -> None:
        """Reads what came, within bounds."""
        if self._deaf:
            return
        self._came += len(data)
        super().data_received(data)
        if self._deaf or self.transport.is_closing():
            return
        if self._in_message and self._came - (1 + _FRAMING) * self._used > _MOST_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE, f"expected a head of at most {_MOST_HEAD_BYTES} bytes")
        elif self._head_due is None and not self._busy:
            self._await_head()

    @property
    def _busy(self) -> bool:
        """Whether a request is on its way: its head has come, and its answer not gone."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        """Goes on with the next request, if it came already; as uvicorn does, but for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._end_idle_after(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """Leaves the timer, which looks when it rings: to set it anew costs every request."""

    def _end_idle_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Ends a connection that was idle for long enough."""
        self.timeout_keep_alive_task = None
        if self._busy or self._head_due is not None:
            return  # the answer sets the next one
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._end_idle_after(left_s)
        elif not self.transport.is_closing():
            self.transport.close()

    def _await_head(self) -> None:
        self._head_due = self.loop.call_later(self.head_s, self._head_late)

    def _head_came(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _head_late(self) -> None:
        self._head_due = None
        if self._in_head:
            what = f"the head of the request did not come within {self.head_s:g} s"
            self._refuse(_TIMEOUT, f"{what}: send it faster")
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Waits for the client to take what it was sent, but not for ever."""
        super().pause_writing()
        if self._stalled is None:
            self.watch()

    def resume_writing(self) -> None:
        """Goes on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._moving()

    def watch(self, before: int | None = None) -> None:
        """Ends the connection when its client takes nothing of what it was sent."""
        left = self.transport.get_write_buffer_size()
        if before is not None and (left == 0 or left >= before):
            self.transport.abort()
        else:
            self._moving()
            self._stalled = self.loop.call_later(_STALL_S, self.watch, left or 1)

    def _moving(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def shutdown(self) -> None:
        """Ends the connection after the request that is on its way, or may be."""
        self._last = True
        if self._busy:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(_NEW_S if self.cycle is None else _IDLE_S, self._still_idle)

    def _still_idle(self) -> None:
        if not (self._busy or self._in_head):
            self.transport.close()

    # What is wrong.

    def _refuse(self, status: int, message: str) -> None:
        """Answers whatever came, and ends the connection."""
        if self.cycle is not None:  # the application may still wait for its body
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._deaf = True
        body = error_body(message)
        again = b"retry-after: 1\r\n" if status == _TOO_MANY else b""
        head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.transport.write(
            b"".join((STATUS_LINE[status], head, again, b"connection: close\r\n\r\n", body))
        )
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, once all is answered that came before it."""
        text = "expected an HTTP/1.1 request, got what is none"
        if not self._busy:
            self._refuse(BAD_REQUEST, text)
        elif not self.cycle.more_body:  # it came behind a whole request
            self._deaf = True
            self.cycle.keep_alive = False
        elif self.pipeline:  # it is in the body of a request that waits for others
            self._deaf = True
            self.cycle.keep_alive = False
            self.pipeline[0] = (self.cycle, _answer_with(BAD_REQUEST, text))
        elif self.cycle.response_started:
            self.cycle.disconnected = True
            self.transport.close()
        else:
            self._refuse(BAD_REQUEST, text)

    # What the parser found.

    def on_message_begin(self) -> None:
        """Begins to count."""
        self._in_head = self._in_message = True
        self._came = self._used = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a header; what comes behind a body is passed over."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Ends the time that the head may take."""
        self._in_head = False
        self._head_came()
        if len(self.pipeline) >= _MOST_AHEAD:
            raise ValueError(f"more than {_MOST_AHEAD} requests ahead")  # ends in send_400_response
        super().on_headers_complete()
        if self._last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Counts what is a body's."""
        self._used += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends the count."""
        self._in_message = False
        self._came = self._used = 0
        super().on_message_complete()
        self.cycle.more_body = False  # also when it was answered before


class _Ending:
    """A transport whose `close` lets the client read why, and does not wait for it for ever."""

    def __init__(self, transport: Any, protocol: TensorProtocol) -> None:
        self._transport = transport
        self._protocol: TensorProtocol | None = protocol
        self._closed = False
        self.write = transport.write
        self.abort = transport.abort
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.get_extra_info = transport.get_extra_info
        self.get_write_buffer_size = transport.get_write_buffer_size

    def forget(self) -> None:
        """Lets go of the protocol, whose connection has ended."""
        self._closed, self._protocol = True, None

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closed or bool(self._transport.is_closing())

    def close(self) -> None:
        """Closes when all is written; what the client still sends is read and passed over."""
        protocol = self._protocol
        if protocol is None or self.is_closing():
            return
        self._closed = True
        unread = protocol._deaf or (protocol.cycle is not None and protocol.cycle.more_body)
        protocol._deaf = True
        if unread and self._transport.can_write_eof():
            self._transport.write_eof()
            self.resume_reading()
            protocol.loop.call_later(_LINGER_S, self._transport.close)
        else:
            self._transport.close()
        protocol.watch()


class _Flow(FlowControl):
    """Reading goes on only when no request waits that came ahead."""

    def __init__(self, transport: Any, ahead: Sized) -> None:
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        """Goes on with reading, unless there is enough to do."""
        if not self._ahead:
            super().resume_reading()


def _answer_with(status: int, message: str) -> Any:
    """Returns an application that answers so."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        body = error_body(message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
