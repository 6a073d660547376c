# SPDX-License-Identifier: Apache-2.0
"""Both clients behind one face, a server that echoes, and time that only passes when told."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from burnish.serving.client.awaiting import AsyncClient
from burnish.serving.client.blocking import Client
from burnish.serving.oip.framing import HEADER
from burnish.serving.oip.request import decode_request
from burnish.serving.oip.response import encode_response, respond

URL = "http://server.test:8000"
Handler = Callable[[httpx.Request], httpx.Response]


def answer(
    status: int = 200, content: bytes | Any = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    """A response that is read as those from a socket are."""
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


def echo(request: httpx.Request) -> httpx.Response:
    """Answers infer with its inputs, as the server would."""
    body = request.content
    if request.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    asked = decode_request(body, request.headers.get(HEADER))
    encoded = encode_response(respond(asked, {t.name: t.array for t in asked.inputs}, "m", "1"))
    content, headers = b"".join(encoded.buffers), encoded.headers
    if "gzip" in request.headers["accept-encoding"]:
        content = gzip.compress(content)
        headers |= {"Content-Encoding": "gzip", "Content-Length": str(len(content))}
    return answer(200, content, headers)


@dataclass
class Clock:
    """Seconds that pass when someone sleeps, or when `takes_s` are spent on a request."""

    now_s: float = 1000.0
    slept_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept_s.append(seconds)
        self.now_s += seconds

    async def nap(self, seconds: float) -> None:
        self.sleep(seconds)


@dataclass
class Asker:
    """Calls one method of a fresh client, of one kind or the other."""

    asynchronous: bool

    def __call__(self, handler: Handler, verb: str, *args: Any, **given: Any) -> Any:
        clock = given.pop("clock", None) or Clock()
        of_client = {
            key: given.pop(key)
            for key in ("token", "timeout_s", "retries", "max_response_bytes")
            if key in given
        }
        options = {"clock": clock, "random": given.pop("random", lambda: 0.5), **of_client}
        transport = httpx.MockTransport(handler)
        name = given.pop("default_model", "m")
        if not self.asynchronous:
            with Client(URL, name, transport=transport, sleep=clock.sleep, **options) as client:
                return getattr(client, verb)(*args, **given)

        async def ask() -> Any:
            async with AsyncClient(
                URL, name, transport=transport, sleep=clock.nap, **options
            ) as client:
                return await getattr(client, verb)(*args, **given)

        return asyncio.run(ask())


def in_turn(replies: Iterable[httpx.Response | Exception]) -> tuple[Handler, list[httpx.Request]]:
    """A handler that gives the replies one after the other, and the list of what it was asked."""
    left, seen = iter(replies), list[httpx.Request]()

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        reply = next(left)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return handler, seen


def ok() -> httpx.Response:
    """An answer to infer: y = [1, 2]."""
    document = {"outputs": [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
    return answer(200, document)


X = {"x": np.zeros((1, 2), np.float32)}
