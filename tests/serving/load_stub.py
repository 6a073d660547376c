# SPDX-License-Identifier: Apache-2.0
"""A server that answers as it is told to, on a thread of its own, for tests of load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

METADATA: dict[str, Any] = {
    "name": "m",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
}


@dataclass
class Stub:
    """What a stub answers with, and what it saw.

    answer: (number of the request) → (seconds to wait, status; 0 drops the connection,
        -1 is never answered, -2 is no HTTP); requests wait side by side.
    stalls: (from, to) in seconds since the first request: nothing is answered meanwhile.
    """

    answer: Callable[[int], tuple[float, int]] = lambda _: (0.0, 200)
    stalls: tuple[float, float] | None = None
    models: list[str] = field(default_factory=lambda: ["m"])
    close_each: bool = False
    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    first_s: float | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = 0
                    for line in head.split(b"\r\n"):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    body = await reader.readexactly(length)
                    if not await self.reply(head, body, writer):
                        break
        finally:
            writer.transport.abort()

    async def reply(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        path = head.split(b" ", 2)[1].decode()
        if path == "/v2/repository/index":
            return self.write(writer, 200, [{"name": one, "state": "READY"} for one in self.models])
        if not path.endswith("/infer"):
            known = path.rsplit("/", 1)[-1] in self.models
            said = METADATA if known else {"error": "no such model"}
            return self.write(writer, 200 if known else 404, said)
        self.heads.append(head)
        self.bodies.append(body)
        now_s = time.monotonic()
        if self.first_s is None:
            self.first_s = now_s
        wait_s, status = self.answer(len(self.bodies) - 1)
        if self.stalls and self.stalls[0] <= now_s - self.first_s < self.stalls[1]:
            wait_s += self.stalls[1] - (now_s - self.first_s)
        if wait_s:
            await asyncio.sleep(wait_s)
        if status == 0:
            return False
        if status == -1:
            await asyncio.sleep(60)
        if status == -2:
            writer.write(b"hello\r\n\r\n")
            return True
        return self.write(writer, status, {"outputs": []})

    def write(self, writer: asyncio.StreamWriter, status: int, document: Any) -> bool:
        content = json.dumps(document).encode()
        close = "Connection: close\r\n" if self.close_each else ""
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(content)}\r\n{close}\r\n"
        writer.write(head.encode() + content)
        return not self.close_each


@contextlib.contextmanager
def serving(stub: Stub) -> Iterator[Stub]:
    """Runs the stub on a free port."""
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(stub.handle, "127.0.0.1", 0, limit=2**24)
        stub.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.01)  # until the transports have ended

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
