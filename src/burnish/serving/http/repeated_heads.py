# SPDX-License-Identifier: Apache-2.0
"""A connection on which the same head comes again is not asked to parse it again.

The bytes of the last head are kept, with what the application says of them (`Repeat`), and
the next request that begins with just those goes to it directly. Only a head that came alone,
to an idle connection, is known: what is sent ahead, or in pieces, or is no HTTP, the parser
sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from burnish.serving.http.message import Headers
from burnish.serving.http.protocol import TensorProtocol
from burnish.serving.http.receiving import SCRATCH_BYTES
from burnish.serving.http.repeat import Repeat

_MOST_HEAD_BYTES = 1024
_END = b"\r\n\r\n"

Known = Callable[[Mapping[str, Any]], Repeat | None]


class RepeatedHeads(TensorProtocol):
    """The protocol, with a memory of one head; and the `Line` of `Repeat`."""

    repeated: ClassVar[Known]
    """What the application says of a head by the scope that it was answered for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = b""
        """The last one that came alone."""
        self._head_scope: Any = None
        self._repeat: Repeat | Literal[False] | None = None
        """What it says; False: it is not for `Repeat`; None: nobody has asked yet."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the head as well."""
        self._head, self._head_scope, self._repeat = b"", None, None
        super().connection_lost(exc)

    def placed(self, n: int) -> None:
        """Reads the `n` bytes that came."""
        before: Any = self.cycle
        if self._direct or self._unread or self._in_message or self._busy:
            super().placed(n)
            return
        came = self.scratch[:n]
        size = len(self._head)
        if size and came[:size] == self._head and self._again(came[size:]):
            return
        super().placed(n)
        if self.cycle is not before:
            self._remember(came)

    def _again(self, body: memoryview) -> bool:
        if self._deaf or self._head_due is not None or self.transport.is_closing():
            return False
        if self.flow.write_paused:  # the client takes no more of the answer before
            return False
        if self._repeat is None:
            self._repeat = type(self).repeated(self._head_scope) or False
        return self._repeat is not False and self._repeat.begin(self, body)

    def _remember(self, came: memoryview) -> None:
        """Remembers a head that has come with a part of its body, and nothing else."""
        cycle: Any = self.cycle
        start = bytes(came[:_MOST_HEAD_BYTES])
        size = start.find(_END) + len(_END)
        alone = size >= len(_END) and cycle.filled == len(came) - size
        self._head = start[:size] if alone and cycle.keep_alive else b""
        self._head_scope, self._repeat = self.scope, None

    def _body_ends(self) -> None:
        """Ends a message whose body the parser did not see."""
        if not isinstance(self.cycle, _Cycle):
            super()._body_ends()
            return
        self.cycle.more_body = False
        tell, self.cycle.tell = self.cycle.tell, None
        if tell is not None:
            self.cycle.whole = None
            tell()

    # What `Repeat` asks of a connection.

    def begin(self, came_bytes: int, body_bytes: int) -> None:
        """Takes the connection for a request, of whose body the first bytes have come."""
        self.cycle = _Cycle(self, self._head_scope)
        self.cycle.filled = came_bytes
        self.cycle.more_body = came_bytes < body_bytes

    def receive(self, place: memoryview, whole: Callable[[], None]) -> None:
        """Receives the rest of the body into `place`, and calls `whole` when it is full."""
        cycle: Any = self.cycle
        cycle.whole, cycle.ahead, cycle.tell = place, cycle.filled, whole
        self._direct = True

    def stop_receiving(self) -> None:
        """Lets go of the place, and of who waits for it."""
        cycle: Any = self.cycle
        cycle.whole = cycle.tell = None
        self._direct = False

    def answer(self, status: int, headers: Headers, body: bytes | memoryview) -> None:
        """Answers, and gives the connection free; one that was lost meanwhile is left."""
        if not self._lost:
            self._answer(self.cycle, status, headers, body)


class _NobodyWaits:
    """What uvicorn rings when something has come; who repeats is called instead."""

    def set(self) -> None:
        """Does nothing."""


_NOBODY_WAITS: Any = _NobodyWaits()


class _Cycle(RequestResponseCycle):
    """A request that the parser did not see; what `ReceivingProtocol` keeps of each is here."""

    def __init__(self, protocol: RepeatedHeads, scope: Any) -> None:
        super().__init__(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=_NOBODY_WAITS,
            expect_100_continue=False,
            keep_alive=not protocol._last,
            on_response=protocol.on_response_complete,
        )
        self.whole: memoryview | None = None
        self.filled = self.ahead = 0
        self.tell: Callable[[], None] | None = None
        """Whoever waits for the rest of the body."""


def protocol_of(max_connections: int, head_s: float, repeated: Known) -> type[RepeatedHeads]:
    """Returns the protocol of one server; `repeated` is its application's."""
    return type(
        "BoundedProtocol",
        (RepeatedHeads,),
        {
            "max_connections": max_connections,
            "head_s": head_s,
            "repeated": staticmethod(repeated),
            "refused": set(),
            "scratch": memoryview(bytearray(SCRATCH_BYTES)),  # of this server's loop
        },
    )
