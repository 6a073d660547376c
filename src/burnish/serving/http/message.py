# SPDX-License-Identifier: Apache-2.0
"""A request's body, bounded before it is read, and a reply."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from burnish.serving.oip.faults import BAD_REQUEST, TOO_LARGE, Fault, error_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
ReplyWhole = Callable[[int, Headers, bytes | memoryview], Awaitable[None]]

WHOLE_BODY = "burnish.whole_body"
"""In the scope's extensions: `await take(place, seconds, ahead=0)` returns the first `ahead`
bytes of a body and fills `place` with the others, of which there are as many, or raises
`TimeoutError`, or `Gone`."""

WHEN_GONE = "burnish.when_gone"
"""In the scope's extensions: `when_gone(tell)` calls `tell` when the client goes away."""

WHOLE_REPLY = "burnish.whole_reply"
"""In the scope's extensions: `await reply(status, headers, body)` answers, once and whole."""

_ALIGN = 64
_PIECE = 16 * 1024
"""Compressed bytes that are read at once: they are at most a thousand times as many."""
_COMPRESS_OFF_LOOP = 32 * 1024
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_TOO_SLOW = 408
MOST_DIGITS = 15
"""Of a length in a header: Python refuses to read thousands of them."""


class Gone(Exception):
    """The client went away before it was answered."""


@dataclass(frozen=True)
class BodyLimits:
    """What a body may hold, and how long it may take to come."""

    size_bytes: int = 64 * 2**20
    seconds: float = 30.0


class Call(NamedTuple):
    """A request as it came: its headers by lower-case name, and how to read and answer."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    query: bytes
    receive: Receive
    send: Send
    client: str = ""
    take: Callable[[memoryview, float, int], Awaitable[bytes]] | None = None
    """What the server has for `WHOLE_BODY`."""
    when_gone: Callable[[Callable[[], None] | None], None] | None = None
    """What the server has for `WHEN_GONE`."""
    reply: ReplyWhole | None = None
    """What the server has for `WHOLE_REPLY`."""

    def header(self, name: bytes) -> str:
        """Returns a header's value, or ""."""
        return self.headers.get(name, b"").decode("latin-1")


class Reply(NamedTuple):
    """A status, a body in pieces, and headers besides Content-Length."""

    status: int
    buffers: tuple[bytes | memoryview, ...] = ()
    content_type: str = "application/json"
    headers: Headers = ()

    @staticmethod
    def json(document: Any, status: int = 200) -> Reply:
        """Returns a document as JSON."""
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return Reply(status, (text.encode(),))

    @staticmethod
    def fault(error: Fault) -> Reply:
        """Returns the error object, with Retry-After where asking again is of use."""
        headers: Headers = ()
        retry_ms = getattr(error, "retry_after_ms", None)
        if retry_ms is not None:
            seconds = max(1, math.ceil(retry_ms / 1e3))
            headers = (
                (b"retry-after", str(seconds).encode()),
                (b"retry-after-ms", f"{max(retry_ms, 1.0):.0f}".encode()),
            )
        return Reply(error.status, (error_body(error),), headers=headers)

    def whole(self, extra: Headers = ()) -> tuple[Headers, bytes | memoryview]:
        """Returns all headers, and the body in one piece."""
        body = self.buffers[0] if len(self.buffers) == 1 else b"".join(self.buffers)
        content_type = (b"content-type", self.content_type.encode())
        content_length = (b"content-length", b"%d" % len(body))
        return (content_type, content_length, *self.headers, *extra), body

    async def send(self, call: Call, extra: Headers = ()) -> None:
        """Writes the reply."""
        headers, body = self.whole(extra)
        if call.reply is not None:
            await call.reply(self.status, headers, body)
            return
        head = {"type": "http.response.start", "status": self.status, "headers": list(headers)}
        await call.send(head)
        await call.send({"type": "http.response.body", "body": body})


def declared_bytes(call: Call, limits: BodyLimits) -> int:
    """Returns the length of the body as the head has it; 0 without one that may be read."""
    declared = call.headers.get(b"content-length", b"")
    size = int(declared) if declared.isdigit() and len(declared) <= MOST_DIGITS else 0
    return size if size <= limits.size_bytes else 0


async def read_body(call: Call, limits: BodyLimits, header_length: int = 0) -> memoryview:
    """Returns the whole body, decompressed; byte `header_length` of it lies on a boundary.

    So the tensor behind a JSON document of that length can be read where it is. Raises
    `Fault`: 413 over the limit, 408 when it takes too long; and `Gone`.
    """
    declared = call.headers.get(b"content-length")
    coding = call.header(b"content-encoding").strip().lower()
    if declared is not None:
        if not declared.isdigit() or len(declared) > MOST_DIGITS:
            raise Fault(f"expected a Content-Length that is a whole number, got {declared!r:.60}")
        if int(declared) > limits.size_bytes:
            raise _too_large(limits, int(declared))
    if coding not in ("", "identity", *_WINDOW_BITS):
        raise Fault(f"expected Content-Encoding gzip, deflate or none, got {coding[:40]!r}", 415)
    size = int(declared) if declared is not None else None
    try:
        if size is not None and call.take is not None:
            body = aligned(size, header_length)
            await call.take(body, limits.seconds, 0)
        else:
            async with asyncio.timeout(limits.seconds):
                body = await _collected(call.receive, size, limits, header_length)
    except TimeoutError:
        raise too_slow(limits) from None
    if coding in _WINDOW_BITS:
        return await asyncio.to_thread(_decompressed, body, coding, limits)
    return body


async def land(call: Call, limits: BodyLimits, ahead: int, place: memoryview) -> memoryview:
    """Returns the first `ahead` bytes of a body, and receives the others into `place`.

    For a body of `declared_bytes`, that many in all, that `lands`. Raises what `read_body` does.
    """
    assert call.take is not None
    try:
        return memoryview(await call.take(place, limits.seconds, ahead))
    except TimeoutError:
        raise too_slow(limits) from None


def lands(call: Call) -> bool:
    """Says whether `land` can be asked for: the server can do it, and the body is as it is."""
    return call.take is not None and b"content-encoding" not in call.headers


async def _collected(
    receive: Receive, size: int | None, limits: BodyLimits, header_length: int
) -> memoryview:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    first = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > limits.size_bytes:
            raise _too_large(limits, len(first))
        size = len(first)
    place = aligned(size if size is not None else max(4 * len(first), 4096), header_length)
    filled = 0
    while True:
        chunk = message.get("body", b"")
        end = filled + len(chunk)
        if end > limits.size_bytes:
            raise _too_large(limits, end)
        if end > len(place):  # chunked, of no declared size
            larger = aligned(min(2 * end, limits.size_bytes), header_length)
            larger[:filled] = place[:filled]
            place = larger
        place[filled:end] = chunk
        filled = end
        if not message.get("more_body", False):
            return place[:filled]
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone


def aligned(size: int, header_length: int) -> memoryview:
    """Returns `size` bytes, not set, of which byte `header_length` lies on a boundary of 64.

    >>> view = aligned(100, 37)
    >>> np.frombuffer(view, np.uint8).ctypes.data % 64 == (-37) % 64
    True
    """
    whole = np.empty(size + _ALIGN, np.uint8)
    start = -(whole.ctypes.data + header_length) % _ALIGN
    return memoryview(whole.data)[start : start + size]


def _decompressed(body: memoryview, coding: str, limits: BodyLimits) -> memoryview:
    """Returns what a body holds: never more than the limit, whatever it promises."""
    for bits in (_WINDOW_BITS[coding], -15) if coding == "deflate" else (_WINDOW_BITS[coding],):
        reader = zlib.decompressobj(bits)
        whole = bytearray()
        try:
            for start in range(0, len(body), _PIECE):
                room = limits.size_bytes + 1 - len(whole)
                whole += reader.decompress(body[start : start + _PIECE], room)
                if len(whole) > limits.size_bytes:
                    raise _too_large(limits, None)
                if reader.eof:
                    break
        except zlib.error:
            continue
        if not reader.eof or reader.unused_data or start + _PIECE < len(body):
            raise Fault(f"the body is not whole {coding} data")
        return memoryview(whole)
    raise Fault(f"the body is no {coding} data")


def coding_wanted(call: Call) -> str | None:
    """Returns the first coding that the client takes and we write, or None."""
    accepted = call.headers.get(b"accept-encoding")
    if accepted is None:
        return None
    wanted = {_wanted(part) for part in accepted.decode("latin-1").lower().split(",")}
    return next((one for one in _WINDOW_BITS if one in wanted), None)


async def compressed(reply: Reply, coding: str) -> Reply:
    """Returns the reply in a coding; it is made in a thread when it is large."""
    body = b"".join(reply.buffers)

    def pack() -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[coding])
        return packer.compress(body) + packer.flush()

    packed = await asyncio.to_thread(pack) if len(body) > _COMPRESS_OFF_LOOP else pack()
    headers = (*reply.headers, (b"content-encoding", coding.encode()))
    return Reply(reply.status, (packed,), reply.content_type, headers)


def _wanted(part: str) -> str:
    """Returns the coding of a part of Accept-Encoding, or "" for one of weight 0."""
    coding, _, weight = part.replace(" ", "").partition(";q=")
    return "" if weight and not weight.strip("0.") else coding


def too_slow(limits: BodyLimits) -> Fault:
    return Fault(f"the body did not come within {limits.seconds:g} s: send it faster", _TOO_SLOW)


def _too_large(limits: BodyLimits, got: int | None) -> Fault:
    what = "more when it is decompressed" if got is None else str(got)
    return Fault(f"expected a body of at most {limits.size_bytes} bytes, got {what}", TOO_LARGE)


def whole_header(value: str, name: str) -> int | None:
    """Returns a header's whole number, or None without it."""
    if not value:
        return None
    if not value.isdigit() or len(value) > MOST_DIGITS:
        raise Fault(
            f"{name}: expected a whole number of 0 or more, got {value[:40]!r}", BAD_REQUEST
        )
    return int(value)
