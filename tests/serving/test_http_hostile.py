# SPDX-License-Identifier: Apache-2.0
"""Requests that are wrong, by mistake or on purpose: none costs others their answers."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hostile_asking import (
    GOOD,
    HEADER,
    INFER,
    LIMIT,
    answers,
    one_model,
    refused,
    resident,
)
from raw_http import Wire, get, post, tensor, wire
from shelf import Shelf, X

from burnish.serving.http.message import BodyLimits
from burnish.serving.http.policy import Policy


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with one_model(policy=Policy(BodyLimits(LIMIT, 5.0))) as one:
        yield one


# Sizes and shapes.


@pytest.mark.parametrize(
    "shape",
    [
        [2**31, 3],
        [2**62, 3],
        [2**63, 3],
        [10**30, 3],
        [0, 2**62],
        [1] * 65,
        [1] * 10_000,
        [-1, 3],
        [1.0, 3],
        ["1", 3],
        [None, 3],
        [[1], 3],
        [True, 3],
        {"a": 1},
        "13",
        3,
        None,
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_shapes(served: Shelf, shape: Any, binary: bool) -> None:
    """A shape that the data does not have is 400, however large; nothing is allocated for it."""
    entry: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": shape}
    entry |= {"parameters": {"binary_data_size": 12}} if binary else {"data": [1, 2, 3]}
    header = json.dumps({"inputs": [entry]}).encode()
    rest, more = (X.tobytes(), [f"{HEADER}: {len(header)}"]) if binary else (b"", [])
    with wire(served.port) as line:
        refused(line, post(INFER, header + rest, *more))
        assert line.send(post(INFER, GOOD)).answer().status == 200


@pytest.mark.parametrize("missing", [1, 4, 11, 12])
def test_truncated_binary_sections(served: Shelf, missing: int) -> None:
    """A body that ends before its tensors do is 400."""
    entry = tensor(X, "FP32", parameters={"binary_data_size": 12})
    header = json.dumps({"inputs": [entry]}).encode()
    with wire(served.port) as line:
        body = header + X.tobytes()[:-missing]
        told = refused(line, post(INFER, body, f"{HEADER}: {len(header)}"))
        assert "bytes are left of the body" in told


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"a":' * 100_000, b'{"inputs":' + b"[" * 9999]
)
def test_deep_json(served: Shelf, content: bytes) -> None:
    """JSON that is nested without end is 400, in this process and in that for large JSON."""
    with wire(served.port) as line:
        refused(line, post(INFER, content))
    answers(served)


def test_many_tensors(served: Shelf) -> None:
    """More tensors than any model has are 413."""
    entries = [{"name": f"x{i}", "shape": [0], "datatype": "FP32", "data": []} for i in range(2000)]
    with wire(served.port) as line:
        refused(line, post(INFER, json.dumps({"inputs": entries}).encode()), 413)


@pytest.mark.parametrize("number", ["1e999", "9" * 5000, "-" + "9" * 400, "1" * 4000 + ".5"])
def test_numbers_beyond_all_bounds(served: Shelf, number: str) -> None:
    body = GOOD.replace(b"5.0", number.encode())
    with wire(served.port) as line:
        refused(line, post(INFER, body))
        assert line.send(post(INFER, GOOD)).answer().status == 200


# Bodies over the limit.


def test_over_the_limit_is_413_before_it_is_read(served: Shelf) -> None:
    """The declared length is enough: not a byte of the body is waited for."""
    with wire(served.port) as line:
        head = post(INFER, b"", f"Content-Length: {LIMIT + 1}")
        answer = line.send(head).answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert line.ended()


def test_a_client_that_sends_it_all_reads_why(served: Shelf) -> None:
    """One that sends first and reads then is not cut off before it could read the answer."""
    with wire(served.port) as line:
        answer = line.send(post(INFER, bytes(20 * LIMIT))).answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert line.ended()


def test_chunks_over_the_limit(served: Shelf) -> None:
    """A body of no declared length ends where the limit is."""
    with wire(served.port) as line:
        line.send(post(INFER, b"", "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        line.send(chunk * (LIMIT // 65536 + 2))
        assert line.answer().status == 413
        assert line.ended()


@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/models/double/load"])
def test_control_bodies_are_small(served: Shelf, path: str) -> None:
    with wire(served.port) as line:
        refused(line, post(path, b"", "Content-Length: 99999999"), 413)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_decompression_bombs(served: Shelf, coding: str) -> None:
    """What becomes more than the limit is 413, and takes no more memory than the limit."""
    body = (
        gzip.compress(bytes(400 * LIMIT), 1)
        if coding == "gzip"
        else zlib.compress(bytes(400 * LIMIT), 1)
    )
    for name in ("warm", "measured"):
        before, most, over = resident(), 0, threading.Event()

        def watch(over: threading.Event = over) -> None:
            nonlocal most
            while not over.wait(0.001):
                most = max(most, psutil.Process().memory_info().rss)

        watching = threading.Thread(target=watch)
        watching.start()
        lines = [Wire(socket.create_connection(("127.0.0.1", served.port), 20)) for _ in range(4)]
        for line in lines:
            line.send(post(INFER, body[: LIMIT - 1], f"Content-Encoding: {coding}"))
        for line in lines:
            assert line.answer().status == 413
            line.close()
        over.set()
        watching.join()
        assert most - before < 100 * LIMIT, name
    answers(served)


# What is no HTTP, or too much of it.


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\0\0\0",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nA\0: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nA: x\0y\r\n\r\n",
        b"GET /v2\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n folded: x\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\nab",
        b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"f" * 20
        + b"\r\n",
    ],
)
def test_what_is_no_http(served: Shelf, data: bytes) -> None:
    """It is refused with an error object or the connection is closed, and others are served."""
    with wire(served.port) as line:
        line.send(data)
        with contextlib.suppress(EOFError, ConnectionResetError):
            answer = line.answer()
            assert 400 <= answer.status < 500
            assert list(answer.json) == ["error"]
        assert line.ended()
    answers(served)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 50) for i in range(20_000)),
        b"GET /v2 HTTP/1.1\r\nX: " + b"y" * LIMIT,
        b"GET /" + b"y" * LIMIT,
    ],
)
def test_large_heads(served: Shelf, head: bytes) -> None:
    """A head without end is 431, well before it has taken much."""
    with wire(served.port) as line:
        refused(line, head, 431)
        assert line.ended()


def test_trailers_without_end(served: Shelf) -> None:
    """So are headers behind a body."""
    with wire(served.port) as line:
        line.send(post(INFER, b"", "Transfer-Encoding: chunked"))
        refused(line, b"0\r\n" + b"X-Y: z\r\n" * 100_000, 431)


def test_requests_ahead_without_end() -> None:
    """Requests are read as they are answered: a client that sends for ever holds no memory."""
    with one_model() as served, wire(served.port) as line:
        answers(served)
        before = resident()
        one = get("/v2") * 1000
        line.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError, OSError):  # nobody reads the answers
            while sent < 20_000_000:
                sent += line.socket.send(one)
        assert resident() - before < 40 * LIMIT
        answers(served)


def test_garbage_behind_a_request_keeps_its_answer(served: Shelf) -> None:
    """A request that came whole is answered, whatever comes behind it; then the end."""
    gate = served.sessions["double"]
    gate.hold()
    with wire(served.port) as line:
        line.send(post(INFER, GOOD), b"\0\0garbage\r\n\r\n")
        assert gate.began.wait(5)
        time.sleep(0.02)
        gate.open.set()
        assert line.answer().status == 200
        assert line.ended()
    answers(served)


def test_garbage_in_the_body_of_a_request_that_waits(served: Shelf) -> None:
    """The first is answered with 200, the second, whose chunks are none, with 400."""
    gate = served.sessions["double"]
    gate.hold()
    with wire(served.port) as line:
        line.send(post(INFER, GOOD), post(INFER, b"", "Transfer-Encoding: chunked"), b"zz\r\n")
        assert gate.began.wait(5)
        gate.open.set()
        assert line.answer().status == 200
        assert line.answer().status == 400
        assert line.ended()


def test_an_early_answer_does_not_mix_up_requests(served: Shelf) -> None:
    """The body of a request that was refused before it came is not taken for a request."""
    with wire(served.port) as line:
        line.send(post("/v2/models/nope/infer", b"", "Content-Length: 40"))
        assert line.answer().status == 404
        line.send(get("/v2").ljust(40)[:40], post(INFER, GOOD))
        assert line.answer().status == 200
