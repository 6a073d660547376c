# SPDX-License-Identifier: Apache-2.0
"""Anything at all is refused cleanly, and costs others nothing."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_asking import (
    GOOD,
    HEADER,
    INFER,
    LIMIT,
    answers,
    eventually,
    one_model,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import Wire, post, tensor, wire
from shelf import Shelf, X

from burnish.serving.http.message import BodyLimits
from burnish.serving.http.policy import Policy


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with one_model(policy=Policy(BodyLimits(LIMIT, 5.0))) as one:
        yield one


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
