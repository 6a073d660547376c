# SPDX-License-Identifier: Apache-2.0
"""Slow clients, too many, and those that leave: none costs others their answers."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hostile_asking import (
    GOOD,
    HEADER,
    INFER,
    LIMIT,
    answers,
    eventually,
    one_model,
    refused,
)
from raw_http import Wire, get, post, tensor, wire
from shelf import Shelf, X

from burnish.serving.http.message import BodyLimits
from burnish.serving.http.policy import Policy
from burnish.serving.http.protocol import TensorProtocol


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with one_model(policy=Policy(BodyLimits(LIMIT, 5.0))) as one:
        yield one


@pytest.fixture(scope="module")
def hasty() -> Iterator[Shelf]:
    """A server that gives a head and a body 0.3 s each."""
    with one_model(policy=Policy(BodyLimits(64 * LIMIT, 0.3)), keep_alive_s=1) as one:
        yield one


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


def test_a_head_begun_behind_a_request_does_not_hold_the_connection(hasty: Shelf) -> None:
    with wire(hasty.port) as line:
        line.send(get("/v2/health/live"), b"GET /v2 HT")
        assert line.answer().status == 200
        assert line.ended()


def test_a_connection_that_is_used_stays(hasty: Shelf) -> None:
    with wire(hasty.port) as line:
        for _ in range(4):
            line.send(post(INFER, X.tobytes(), f"{HEADER}: 0"))
            assert line.answer().status == 200
            time.sleep(0.6)  # of the 1 s that it may be idle
        began = time.monotonic()
        assert line.ended()
        assert time.monotonic() - began < 3


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
