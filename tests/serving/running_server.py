# SPDX-License-Identifier: Apache-2.0
"""A real server in a thread of the test's process, and raw HTTP to ask it with."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from burnish.serving.configuration import Configuration
from burnish.serving.model_options import ModelOptions
from burnish.serving.server import Listening, Server


@dataclass
class Running:
    """Where it listens, and the server itself (to be touched through `call` only)."""

    where: Listening
    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        """127.0.0.1:port."""
        return f"127.0.0.1:{self.where.port}"

    def call(self, work: Any) -> Any:
        """Runs a coroutine on the server's loop, and returns what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Returns status, headers by lower-case name, and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.where.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()

    def json(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Returns status and document of a request in JSON."""
        body = None if document is None else json.dumps(document).encode()
        status, _, answer = self.ask(method, path, body)
        return status, json.loads(answer) if answer else None

    def raw(self, data: bytes, seconds: float = 10.0) -> bytes:
        """Sends bytes as they are, and returns all that comes until the server closes."""
        with socket.create_connection(("127.0.0.1", self.where.port), seconds) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            parts = []
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := connection.recv(65536):
                    parts.append(part)
            return b"".join(parts)


@contextlib.contextmanager
def running(
    *models: ModelOptions, loop: Callable[[Any], Any] = asyncio.run, **settings: Any
) -> Iterator[Running]:
    """Serves the models on free ports while the block runs; `loop` is what runs the server."""
    given = {"port": 0, "grpc_port": None, "health_port": None, "drain_s": 0.0, **settings}
    configuration = Configuration(models, **given)
    ready: threading.Event = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        stop = asyncio.Event()
        server = Server(configuration)
        found.update(loop=asyncio.get_running_loop(), server=server, stop=stop)
        async with server.serving() as where:
            found["where"] = where
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            loop(serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the test
            found["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="test-server")
    thread.start()
    assert ready.wait(60)
    if "error" in found:
        raise found["error"]
    try:
        yield Running(found["where"], found["server"], found["loop"])
    finally:
        with contextlib.suppress(RuntimeError):
            found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(60)
        assert not thread.is_alive()
        if "error" in found:
            raise found["error"]
