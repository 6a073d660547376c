# SPDX-License-Identifier: Apache-2.0
"""What clients do wrong, by mistake or on purpose: none of it costs others their answers."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import random
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from grpc_running import doubled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import Wire, get, post, tensor, wire
from shelf import Shelf, X, shelf

from burnish.serving.http.app import Policy
from burnish.serving.http.message import BodyLimits
from burnish.serving.http.protocol import TensorProtocol

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/double/infer"
GOOD = json.dumps({"inputs": [tensor(X, "FP32")]}).encode()
LIMIT = 2**20


def one_model(**settings: Any) -> Any:
    return shelf({"double:1": doubled()}, **settings)


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with one_model(policy=Policy(BodyLimits(LIMIT, 5.0))) as one:
        yield one


@pytest.fixture(scope="module")
def hasty() -> Iterator[Shelf]:
    """A server that gives a head and a body 0.3 s each."""
    with one_model(policy=Policy(BodyLimits(64 * LIMIT, 0.3)), keep_alive_s=1) as one:
        yield one


def answers(served: Shelf) -> None:
    """Checks that the server still answers rightly, and that nothing is left over."""
    with wire(served.port) as line:
        answer = line.send(post(INFER, GOOD)).answer()
        assert answer.status == 200
        assert answer.json["outputs"][0]["data"] == (2 * X).ravel().tolist()
    model = served.served("double")
    eventually(lambda: model.in_flight == 0 and model.waiting == 0)


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.005)


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def refused(line: Wire, data: bytes, *statuses: int) -> str:
    """Sends a request and returns the error, whose status must be one of those."""
    answer = line.send(data).answer()
    assert answer.status in (statuses or (400,)), (answer.status, answer.body)
    assert list(answer.json) == ["error"]
    return str(answer.json["error"])


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


# Slow clients.


@pytest.mark.parametrize("head", [b"", b"GET /v2 HTTP/1.1\r\nHost: x\r\n", b"G"])
def test_a_head_that_does_not_come(hasty: Shelf, head: bytes) -> None:
    """A connection on which no whole head comes in time is closed; 408 where one had begun."""
    with wire(hasty.port) as line:
        line.send(head)
        began = time.monotonic()
        if head:
            refused(line, b"", 408)
        assert line.ended()
        assert 0.2 < time.monotonic() - began < 3
    eventually(lambda: hasty.connections() == 0)


def test_a_head_that_drips(hasty: Shelf) -> None:
    """A byte now and then does not put the end off."""
    with wire(hasty.port) as line:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for one in b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 100:
                line.send(bytes([one]))
                time.sleep(0.02)
                if time.monotonic() - began > 1:
                    break
        with contextlib.suppress(ConnectionResetError):
            assert line.answer().status == 408
            assert line.ended()
    eventually(lambda: hasty.connections() == 0)


def test_a_second_head_that_drips(hasty: Shelf) -> None:
    """Nor on a connection that was of use before."""
    with wire(hasty.port) as line:
        assert line.send(post(INFER, GOOD)).answer().status == 200
        line.send(b"POST /v2/mo")
        refused(line, b"dels", 408)
        assert line.ended()
    eventually(lambda: hasty.connections() == 0)


@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come(hasty: Shelf, length: str) -> None:
    """It is 408, and the connection is freed; the client may be half-open."""
    with wire(hasty.port) as line:
        line.send(post(INFER, b"", length), b"5\r\n{")
        refused(line, b"", 408)
        assert line.ended()
        eventually(lambda: hasty.connections() == 0)
    answers(hasty)


def test_a_body_that_nobody_wants_and_does_not_come(hasty: Shelf) -> None:
    """After an early answer the rest of a body has as long as a head."""
    with wire(hasty.port) as line:
        line.send(post("/v2/models/nope/infer", b"", "Content-Length: 100000"))
        assert line.answer().status == 404
        line.send(b"x")
        assert line.ended()
    eventually(lambda: hasty.connections() == 0)


def test_an_idle_connection_ends(hasty: Shelf) -> None:
    with wire(hasty.port) as line:
        assert line.send(get("/v2")).answer().status == 200
        assert line.ended()


def test_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is freed when it has taken nothing for a while; others are served."""
    monkeypatch.setattr("burnish.serving.http.protocol._STALL_S", 0.3)
    array = np.zeros((500_000, 3), np.float32)
    entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
    header = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    request = post(INFER, header + array.tobytes(), f"{HEADER}: {len(header)}")
    with one_model() as served, wire(served.port) as line:
        line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.send(request)
        eventually(lambda: served.served("double").counts.answered == 1)
        answers(served)
        eventually(lambda: served.connections() == 0)


# Connections.


def test_one_connection_too_many() -> None:
    """It is told so at once with 503, and closed; when others go, there is room again."""
    with one_model(max_connections=3) as served:
        lines = [Wire(socket.create_connection(("127.0.0.1", served.port), 10)) for _ in range(3)]
        for line in lines:
            assert line.send(post(INFER, GOOD)).answer().status == 200
        with wire(served.port) as more:
            answer = more.send(post(INFER, GOOD)).answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["retry-after"] == "1"
            assert list(answer.json) == ["error"]
            assert more.ended()
        for line in lines:
            assert line.send(post(INFER, GOOD)).answer().status == 200
            line.close()
        eventually(lambda: served.connections() == 0)
        answers(served)


def test_very_many_connections() -> None:
    """However many come, those that are within the most are served."""
    with one_model(max_connections=8) as served:
        lines = [Wire(socket.create_connection(("127.0.0.1", served.port), 10)) for _ in range(200)]
        seen: Counter[int | str] = Counter()
        for line in lines:
            try:
                seen[line.send(post(INFER, GOOD)).answer().status] += 1
            except (EOFError, OSError):
                seen["closed"] += 1
        for line in lines:
            line.close()
        assert seen[200] == 8
        assert seen[503] + seen["closed"] == 192
        assert seen[503] > 0
        eventually(lambda: served.connections() == 0)
        answers(served)


def test_the_default_is_enforced() -> None:
    """The server uses Configuration.max_connections, not uvicorn's none."""
    assert TensorProtocol.max_connections == 1024


def test_who_leaves_gives_its_place_back(served: Shelf) -> None:
    """A request whose client went away while it waited does not run."""
    gate = served.sessions["double"]
    model = served.served("double")
    gate.hold()
    with wire(served.port) as first:
        first.send(post(INFER, GOOD))
        assert gate.began.wait(5)
        cancelled = model.counts.cancelled
        with wire(served.port) as other:
            other.send(post(INFER, GOOD))
            eventually(lambda: model.in_flight == 2)
        eventually(lambda: model.in_flight == 1)
        assert model.counts.cancelled == cancelled + 1
        runs = gate.runs
        gate.open.set()
        assert first.answer().status == 200
        assert gate.runs == runs
    answers(served)


def test_abrupt_disconnects_under_load(served: Shelf) -> None:
    """Half of the clients reset their connections at any point; the other half is served right."""
    wrong: list[str] = []
    stop = time.monotonic() + 1.5

    def steady(number: int) -> None:
        rng, done = np.random.default_rng(number), 0
        with wire(served.port, 30) as line:
            while time.monotonic() < stop:
                array = rng.random((int(rng.integers(1, 5)), 3), np.float32)
                body = json.dumps({"inputs": [tensor(array, "FP32")]}).encode()
                answer = line.send(post(INFER, body)).answer()
                if answer.status != 200:
                    wrong.append(str(answer))
                elif answer.json["outputs"][0]["data"] != (2 * array).ravel().tolist():
                    wrong.append("another's answer")
                done += 1
        if done < 5:
            wrong.append(f"only {done} answers")

    def abrupt(number: int) -> None:
        rng = random.Random(number)
        request = post(INFER, GOOD)
        while time.monotonic() < stop:
            with socket.create_connection(("127.0.0.1", served.port), 10) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                line.sendall((request * 2)[: rng.randrange(2 * len(request))])
                time.sleep(rng.choice((0, 0, 0.001, 0.01)))

    threads = [
        threading.Thread(target=work, args=(number,))
        for number in range(4)
        for work in (steady, abrupt)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong, wrong[:5]
    answers(served)
    eventually(lambda: served.connections() == 0)


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "shape", "datatype", "data", "parameters", "more"])
LENGTHS = st.none() | st.integers(-2, 400).map(str) | st.text("0123456789x -+", max_size=6)


@st.composite
def requests(draw: Any) -> bytes:
    """Requests that are whole as HTTP, and whose bodies are likely to be wrong."""
    entry: Any = tensor(X, "FP32")
    for key in draw(st.lists(KEYS, max_size=2)):
        entry[key] = draw(JSON)
    document: Any = {"inputs": draw(st.sampled_from([[entry], [entry, entry], entry, []]))}
    for key in draw(
        st.lists(st.sampled_from(["id", "parameters", "outputs", "inputs"]), max_size=1)
    ):
        document[key] = draw(JSON)
    body = json.dumps(draw(st.one_of(st.just(document), JSON))).encode()
    if draw(st.booleans()):
        place = draw(st.integers(0, len(body)))
        body = (
            body[:place] + draw(st.binary(max_size=20)) + body[place + draw(st.integers(0, 20)) :]
        )
    headers = []
    if (length := draw(LENGTHS)) is not None:
        headers.append(f"{HEADER}: {length}")
    coding = draw(st.sampled_from([None] * 8 + ["gzip", "deflate", "br", "x" * 300]))
    if coding is not None:
        headers.append(f"Content-Encoding: {coding}")
        body = gzip.compress(body) if draw(st.booleans()) else body
    if draw(st.integers(0, 4)) == 0:
        parts = [body[start : start + 50] for start in range(0, len(body), 50)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        headers.append("Transfer-Encoding: chunked")
    path = draw(st.sampled_from([INFER] * 8 + ["/v2/repository/index", "/v2/models/x/infer"]))
    return post(path, body, *headers)


def clean(answer: Any) -> bool:
    """Whether an answer is right, or an error of the client's that says what it is."""
    if answer.status == 200:
        return True
    return 400 <= answer.status < 500 and list(answer.json) == ["error"] and answer.json["error"]


def barrage(served: Shelf, lines: list[Wire], data: bytes, turn: int) -> None:
    answer = lines[turn % len(lines)].send(data).answer()
    assert clean(answer), (answer, data)
    if "connection" in answer.headers:
        lines[turn % len(lines)].close()
        lines[turn % len(lines)] = Wire(socket.create_connection(("127.0.0.1", served.port), 10))


def fire(served: Shelf, examples: int) -> None:
    lines = [Wire(socket.create_connection(("127.0.0.1", served.port), 10)) for _ in range(4)]
    turns = iter(range(10**9))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def one(data: bytes) -> None:
        barrage(served, lines, data, next(turns))

    try:
        one()
    finally:
        for line in lines:
            line.close()
    answers(served)


def test_anything_is_4xx(served: Shelf) -> None:
    """Whatever stands in a request, the answer is right or a clean 4xx, and the next is too."""
    fire(served, 300)


@pytest.mark.slow
def test_ten_thousand_are_4xx(served: Shelf) -> None:
    """The same for long; benchmarks/hostile.py sends more, and looks at the server's memory."""
    fire(served, 10_000)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_any_bytes(served: Shelf, data: st.DataObject) -> None:
    """Requests whose bytes were changed anywhere end in an answer or the end of the connection."""
    good = bytearray(post(INFER, GOOD, "Accept-Encoding: gzip"))
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=3)):
        good[place] = data.draw(st.integers(0, 255))
    with wire(served.port) as line:
        line.send(bytes(good), b"\r\n\r\n")
        line.socket.settimeout(0.2)  # it may wait for the rest of what is longer now
        with contextlib.suppress(EOFError, TimeoutError, ConnectionResetError):
            assert 200 <= line.answer().status < 500


def test_after_all_of_it(served: Shelf) -> None:
    answers(served)
    eventually(lambda: served.connections() == 0, 8)
