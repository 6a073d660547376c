# SPDX-License-Identifier: Apache-2.0
"""How uvicorn reads a request: a large body goes straight to where its tensors are read.

uvicorn hands a body on in pieces of 64 KiB, and stops reading from the socket until each
was taken: a body of 600 kB costs ten wake-ups and several copies of itself. Here the
application may say where a body of a declared length goes (`WHOLE_BODY` in the scope's
extensions); each piece is then copied there once, and the application wakes when all is
there. Until it says so, no more than uvicorn's own 64 KiB are kept.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from burnish.serving.http.message import WHOLE_BODY, Gone


class TensorProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with `WHOLE_BODY`."""

    def on_headers_complete(self) -> None:
        """Offers the application to take the body whole."""
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.whole, cycle.filled = None, 0

        async def take(place: memoryview) -> None:
            await _take(cycle, place)

        scope: Any = self.scope
        scope["extensions"] = {WHOLE_BODY: take}

    def on_body(self, body: bytes) -> None:
        """Copies a piece of the body to its place, when the application has said where."""
        cycle: Any = self.cycle
        if cycle.whole is None:
            super().on_body(body)
            return
        end = cycle.filled + len(body)
        cycle.whole[cycle.filled : end] = body
        cycle.filled = end


async def _take(cycle: Any, place: memoryview) -> None:
    """Returns when the whole body is in `place`, which has its length; raises `Gone`."""
    if cycle.waiting_for_100_continue and not cycle.transport.is_closing():
        cycle.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        cycle.waiting_for_100_continue = False
    cycle.filled = len(cycle.body)
    place[: cycle.filled] = cycle.body
    cycle.body = bytearray()
    cycle.whole = place
    cycle.flow.resume_reading()
    while cycle.more_body and not cycle.disconnected:
        cycle.message_event.clear()
        await cycle.message_event.wait()
    cycle.message_event.clear()
    if cycle.disconnected:
        raise Gone
