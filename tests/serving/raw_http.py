# SPDX-License-Identifier: Apache-2.0
"""HTTP by hand for the tests of the server: what is sent is just what was given."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Answered:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._file: BinaryIO = connection.makefile("rb")

    def send(self, *parts: bytes) -> Wire:
        self.socket.sendall(b"".join(parts))
        return self

    def line(self) -> bytes:
        return self._file.readline()

    def answer(self, method: str = "GET") -> Answered:
        """Returns the next response; raises `EOFError` when there is none."""
        first = self.line()
        if not first:
            raise EOFError
        assert first.startswith(b"HTTP/1.1 ")
        assert first.endswith(b"\r\n")
        headers = {}
        while (line := self.line()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        body = self._file.read(size)
        assert len(body) == size
        return Answered(int(first.split()[1]), headers, body)

    def ended(self) -> bool:
        """Whether the server closes, or has, with nothing more to say."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextmanager
def wire(port: int, seconds: float = 10.0) -> Iterator[Wire]:
    """A connection to the port of 127.0.0.1 that is given up after so many seconds' silence."""
    one = Wire(socket.create_connection(("127.0.0.1", port), seconds))
    try:
        yield one
    finally:
        one.close()


def post(path: str, body: bytes = b"", *headers: str, version: str = "1.1") -> bytes:
    """Returns a POST, with Content-Length unless it is among the headers."""
    lines = [f"POST {path} HTTP/{version}", "Host: test", *headers]
    if not any(one.lower().startswith(("content-length", "transfer-enc")) for one in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()


def tensor(array: Any, datatype: str, name: str = "x", **others: Any) -> dict[str, Any]:
    """Returns an input in JSON, its data flat."""
    data = {} if "parameters" in others else {"data": array.ravel().tolist()}
    return {"name": name, "shape": list(array.shape), "datatype": datatype, **data, **others}
