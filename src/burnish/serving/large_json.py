# SPDX-License-Identifier: Apache-2.0
"""Large JSON bodies, read and written in a process of their own.

Python reads a megabyte of numbers in some 20 ms, and holds its lock for all of them: neither
the event loop nor a stream would get on. So another process turns JSON into the protocol's
binary form, which is read in place, and back. It is started by the first body that needs
it. Between the two go bytes only.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import struct
from multiprocessing.connection import Connection
from threading import Lock, Timer

from burnish.core.errors import Broken
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import Encoded, Limits
from burnish.serving.oip.request import InferRequest, decode_request, encode_request
from burnish.serving.oip.response import (
    InferResponse,
    decode_response,
    encode_response,
)
from burnish.serving.oip.tensors import Tensor

LARGE_BYTES = 64 * 1024
"""JSON of more bytes is read here; it takes about a millisecond."""
LARGE_ELEMENTS = 8 * 1024
"""Outputs of more elements are written here."""

_MOST_S = 60.0
"""How long one body may take; a process that takes longer is ended, and started anew."""

_HEAD = struct.Struct("<BQ")  # what is wanted, or came; the length of the JSON before the bytes
_READ, _WRITE, _DONE, _FAULT = range(4)


class LargeJson:
    """The other process; one body at a time."""

    def __init__(self, limits: Limits, most_s: float = _MOST_S) -> None:
        self._limits, self._most_s = limits, most_s
        self._lock = Lock()
        self._connection: Connection | None = None

    async def read(self, body: memoryview) -> InferRequest:
        """Returns the request in a JSON body. Raises the `Fault` that reading it raises."""
        header_length, answer = await asyncio.to_thread(self._ask, _READ, 0, [body])
        request = decode_request(answer, header_length)
        return request._replace(inputs=tuple(one._replace(binary=False) for one in request.inputs))

    async def write(self, response: InferResponse) -> Encoded:
        """Returns the body of a response whose outputs are JSON. Raises `Fault`."""
        encoded = encode_response(_as(response, True))
        length = encoded.header_length or 0
        _, answer = await asyncio.to_thread(self._ask, _WRITE, length, encoded.buffers)
        return Encoded((answer,), None)

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._process.join()
                self._connection = None

    def _ask(
        self,
        what: int,
        header_length: int,
        buffers: list[memoryview] | tuple[bytes | memoryview, ...],
    ) -> tuple[int, bytes]:
        with self._lock:
            for _ in range(2):  # a process that died, of want of memory say, is started again
                connection = self._connection or self._start()
                ending = Timer(self._most_s, self._process.kill)
                ending.daemon = True
                ending.start()
                try:
                    connection.send_bytes(b"".join([_HEAD.pack(what, header_length), *buffers]))
                    answer = connection.recv_bytes()
                    break
                except (EOFError, OSError):
                    connection.close()
                    self._connection = None
                finally:
                    ending.cancel()
            else:
                raise Broken(
                    "the process that reads large JSON ended twice, or took longer than "
                    f"{self._most_s:g} s: send large tensors as binary data"
                )
        kind, length = _HEAD.unpack_from(answer)
        rest = answer[_HEAD.size :]
        if kind == _FAULT:
            raise Fault(*json.loads(rest))
        return length, rest

    def _start(self) -> Connection:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(
            target=_work,
            args=(theirs, self._limits.json_bytes, self._limits.tensors),
            name="burnish-json",
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._connection = ours
        return ours


def _work(connection: Connection, json_bytes: int, tensors: int) -> None:
    """Answers until the other end closes."""
    limits = Limits(json_bytes, tensors)
    while True:
        try:
            message = memoryview(connection.recv_bytes())
        except EOFError:
            return
        what, length = _HEAD.unpack_from(message)
        try:
            encoded = _turned(what, length, message[_HEAD.size :], limits)
            head = _HEAD.pack(_DONE, encoded.header_length or 0)
            answer = b"".join([head, *encoded.buffers])
        except Fault as fault:
            told = json.dumps([str(fault), fault.status]).encode()
            answer = _HEAD.pack(_FAULT, 0) + told
        connection.send_bytes(answer)


def _turned(what: int, length: int, body: memoryview, limits: Limits) -> Encoded:
    if what == _READ:
        request = decode_request(body, None, limits)
        inputs = tuple(one._replace(binary=True) for one in request.inputs)
        return encode_request(request._replace(inputs=inputs))
    return encode_response(_as(decode_response(body, length), False))


def _as(response: InferResponse, binary: bool) -> InferResponse:
    outputs = tuple(Tensor(one.name, one.array, binary) for one in response.outputs)
    return response._replace(outputs=outputs)
