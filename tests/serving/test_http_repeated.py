# SPDX-License-Identifier: Apache-2.0
"""A request whose head is known is answered as one whose head is not, and by the short way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import uvloop
from grpc_running import doubled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import Answered, Wire, get, post, tensor, wire
from shelf import Shelf, shelf

from burnish.serving.http import repeat
from burnish.serving.http.message import BodyLimits
from burnish.serving.http.policy import Policy

INFER = "/v2/models/double/infer"
HEADER = "Inference-Header-Content-Length"
RAW = f"{HEADER}: 0"
LARGE = 100_000
LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def double(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    with shelf({"double:1": doubled()}, loop=LOOPS[request.param]) as one:
        yield one


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns what grows by one with each request that takes the short way."""
    went: list[int] = []
    begin = repeat._Exchange.begin

    def counted(self: Any, served: Any, came: memoryview) -> None:
        went.append(len(came))
        begin(self, served, came)

    monkeypatch.setattr(repeat._Exchange, "begin", counted)
    return went


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


def raw(x: np.ndarray, *headers: str) -> bytes:
    return post(INFER, x.tobytes(), RAW, *headers)


def mixed(x: np.ndarray, outputs: list[dict[str, Any]], *headers: str, **more: Any) -> bytes:
    entry = tensor(x, "FP32", parameters={"binary_data_size": x.nbytes})
    document = json.dumps({"inputs": [entry], "outputs": outputs, **more}).encode()
    return post(INFER, document + x.tobytes(), f"{HEADER}: {len(document)}", *headers)


BINARY = {"name": "scores", "parameters": {"binary_data": True}}
KINDS: dict[str, Callable[[int], bytes]] = {
    "raw": lambda seed: raw(rows(1, seed)),
    "binary": lambda seed: mixed(rows(2, seed), [BINARY]),
    "large": lambda seed: mixed(rows(LARGE, seed), [BINARY]),
    "json out": lambda seed: mixed(rows(2, seed), [{"name": "scores"}, {"name": "most"}]),
    "both out": lambda seed: mixed(rows(2, seed), [{"name": "most"}, BINARY]),
    "large json out": lambda seed: mixed(rows(9_000, seed), [{"name": "scores"}]),
    "classes": lambda seed: mixed(
        rows(2, seed), [{"name": "scores", "parameters": {"classification": 2}}]
    ),
    "id": lambda seed: mixed(rows(2, seed), [BINARY], id="a-b"),
    "own id": lambda seed: raw(rows(1, seed), "X-Request-Id: mine"),
    "identity": lambda seed: raw(rows(1, seed), "Accept-Encoding: identity"),
    "unknown output": lambda seed: mixed(rows(2, seed), [{"name": "nothing"}]),
    "bad timeout": lambda seed: mixed(rows(2, seed), [BINARY], parameters={"timeout": -1}),
}


def alone(one: Shelf, request: bytes) -> Answered:
    with wire(one.port) as line:
        return line.send(request).answer()


def same(got: Answered, expected: Answered) -> bool:
    ours = {name: value for name, value in got.headers.items() if name != "x-request-id"}
    theirs = {name: value for name, value in expected.headers.items() if name != "x-request-id"}
    return (got.status, ours, got.body) == (expected.status, theirs, expected.body)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_answered_as_if_it_came_first(double: Shelf, short: list[int], kind: str) -> None:
    with wire(double.port) as line:
        for seed in range(4):
            request = KINDS[kind](seed)
            assert same(line.send(request).answer(), alone(double, request))
    assert len(short) == 3


@pytest.mark.parametrize(
    "headers",
    [
        ("Accept-Encoding: gzip",),
        ("Expect: 100-continue",),
        ("Connection: close",),
        ("Transfer-Encoding: chunked",),
        ("Content-Encoding: gzip",),
    ],
)
def test_what_is_out_of_the_ordinary_takes_the_usual_way(
    double: Shelf, short: list[int], headers: tuple[str, ...]
) -> None:
    body = rows(1).tobytes()
    if "chunked" in headers[0]:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    request = post(INFER, body, RAW, *headers)
    statuses = []
    with wire(double.port) as line:
        for _ in range(3):
            line.send(request)
            while (answer := line.answer()).status == 100:
                pass
            statuses.append(answer.status)
            if answer.headers.get("connection") == "close":
                break
    assert set(statuses) == {400 if "Content-Encoding" in headers[0] else 200}
    assert not short


@pytest.mark.parametrize("request_", [post(INFER, b'{"inputs": []}'), get("/v2/health/live")])
def test_so_does_what_is_no_tensor_in_bytes(
    double: Shelf, short: list[int], request_: bytes
) -> None:
    with wire(double.port) as line:
        answers = [line.send(request_).answer() for _ in range(3)]
    assert {one.status for one in answers} <= {200, 400}
    assert not short


def test_every_request_has_an_identifier_of_its_own(double: Shelf) -> None:
    with wire(double.port) as line:
        ids = [line.send(raw(rows(1))).answer().headers["x-request-id"] for _ in range(4)]
    assert len(set(ids)) == 4


def test_it_is_counted(double: Shelf) -> None:
    counts = double.served("double").counts

    def counted(line: Wire) -> list[int]:
        line.send(get("/v2/health/live")).answer()  # what was answered before is counted by then
        return [counts.answered, counts.stages["total"].n, counts.stages["respond"].n]

    with wire(double.port) as line:
        before = counted(line)
        for _ in range(5):
            line.send(raw(rows(1))).answer()
        after = counted(line)
    assert [late - early for late, early in zip(after, before, strict=True)] == [5, 5, 5]


# What comes together, and in pieces.


def test_what_is_sent_ahead_is_answered_in_order(double: Shelf) -> None:
    arrays = [rows(1, seed) for seed in range(20)]
    with wire(double.port) as line:
        line.send(raw(arrays[0])).answer()
        line.send(*[raw(x) for x in arrays], get("/v2/health/live"))
        for x in arrays:
            assert np.array_equal(scores(line.answer()), 2 * x.ravel())
        assert line.answer().json["live"] is True


def scores(answer: Answered) -> np.ndarray:
    assert answer.status == 200
    header = json.loads(answer.body[: int(answer.headers[HEADER.lower()])])
    (size,) = [
        one["parameters"]["binary_data_size"]
        for one in header["outputs"]
        if one["name"] == "scores"
    ]
    start = int(answer.headers[HEADER.lower()])
    return np.frombuffer(answer.body[start : start + size], np.float32)


@pytest.mark.parametrize("kind", ["raw", "binary", "large", "json out"])
@pytest.mark.parametrize("more", [0, 1, 30])
def test_a_body_that_comes_behind_its_head(
    double: Shelf, short: list[int], kind: str, more: int
) -> None:
    with wire(double.port) as line:
        for seed in range(4):
            request = KINDS[kind](seed)
            end = request.index(b"\r\n\r\n") + 4 + more
            line.send(request[:end])
            time.sleep(0.02)
            answer = line.send(request[end:]).answer()
            assert same(answer, alone(double, request))
    assert len(short) == 3


@given(
    kinds=st.lists(st.sampled_from(["raw", "binary", "id", "large", "live"]), max_size=8),
    cuts=st.lists(st.floats(0, 1), max_size=12),
    data=st.data(),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_requests_in_any_pieces(
    double: Shelf, kinds: list[str], cuts: list[float], data: st.DataObject
) -> None:
    sent = b""
    expected: list[np.ndarray | None] = []
    for kind in kinds:
        seed = data.draw(st.integers(0, 3))
        if kind == "live":
            sent += get("/v2/health/live")
            expected.append(None)
        else:
            n = {"raw": 1, "large": 40_000}.get(kind, 2)
            sent += raw(rows(n, seed)) if kind == "raw" else mixed(rows(n, seed), [BINARY])
            expected.append(2 * rows(n, seed).ravel())
    places = sorted({0, len(sent), *(int(cut * len(sent)) for cut in cuts)})
    with wire(double.port) as line:
        for start, end in itertools.pairwise(places):
            line.send(sent[start:end])
            time.sleep(0.001)
        for one in expected:
            answer = line.answer()
            if one is None:
                assert answer.json["live"] is True
            else:
                assert np.array_equal(scores(answer), one)


@pytest.mark.parametrize("ending", ["\n\n", "\r\n\n", "\n\r\n"])
def test_where_a_head_ends_is_for_the_parser_to_say(
    double: Shelf, short: list[int], ending: str
) -> None:
    """A body that looks like the end of a head, behind a head that ends in another way."""
    body = b"\r\n\r\n" + rows(1).tobytes()[4:]
    lines = [f"POST {INFER} HTTP/1.1", "Host: test", RAW, f"Content-Length: {len(body)}"]
    request = "\r\n".join(lines).encode() + ending.encode() + body
    with wire(double.port) as line:
        line.send(request)
        first = line.answer()
        if first.status == 200:
            assert np.array_equal(scores(first), 2 * np.frombuffer(body, np.float32))
            for _ in range(2):
                assert same(line.send(request).answer(), first)
    assert not short


# What goes wrong.


def test_a_document_that_is_wrong_this_time(double: Shelf, short: list[int]) -> None:
    good = mixed(rows(2), [BINARY])
    bad = good.replace(b'"inputs"', b'"inputz"')
    with wire(double.port) as line:
        assert line.send(good).answer().status == 200
        for _ in range(2):
            answer = line.send(bad).answer()
            assert answer.status == 400
            assert "no inputs" in answer.json["error"]
            assert line.send(good).answer().status == 200
    assert len(short) == 4


def test_a_body_that_comes_too_slowly(short: list[int]) -> None:
    policy = Policy(body=BodyLimits(seconds=0.3))
    with shelf({"double:1": doubled()}, policy=policy) as one, wire(one.port) as line:
        request = mixed(rows(LARGE), [BINARY])
        assert line.send(request).answer().status == 200
        line.send(request[:50_000])
        answer = line.answer()
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert line.ended()
        assert len(short) == 1
        assert one.served("double")._coming == 0


def test_a_client_that_leaves_within_its_body(double: Shelf, short: list[int]) -> None:
    request = mixed(rows(LARGE), [BINARY])
    with wire(double.port) as line:
        assert line.send(request).answer().status == 200
        line.send(request[:50_000])
        until(lambda: len(short) == 1)
    until(lambda: double.served("double")._coming == 0)
    with wire(double.port) as line:
        assert np.array_equal(scores(line.send(request).answer()), 2 * rows(LARGE).ravel())


def test_a_client_that_leaves_before_it_is_answered(short: list[int]) -> None:
    with shelf({"double:1": doubled()}) as one, wire(one.port) as other:
        other.send(raw(rows(1))).answer()
        gate = one.sessions["double"]
        with wire(one.port) as line:
            line.send(raw(rows(1))).answer()
            gate.hold()
            other.send(raw(rows(1)))
            assert gate.began.wait(5)
            line.send(raw(rows(1)))
            until(lambda: one.served("double").waiting == 1)
        until(lambda: one.served("double").counts.cancelled == 1)
        gate.open.set()
        assert other.answer().status == 200
        assert len(short) == 2


def test_who_would_be_late_is_told_so_for_the_same_head(short: list[int]) -> None:
    with shelf({"double:1": doubled()}, [(1, 4_000.0)], slo_ms=10_000, max_batch_size=1) as one:
        large = mixed(rows(LARGE), [BINARY])
        with wire(one.port) as first, wire(one.port) as second, wire(one.port) as late:
            assert late.send(large).answer().status == 504  # so many rows, one by one
            gate = one.sessions["double"]
            gate.hold()
            first.send(raw(rows(1)))
            assert gate.began.wait(5)
            second.send(raw(rows(1)))
            until(lambda: one.served("double").waiting == 1)
            for _ in range(3):
                answer = late.send(large).answer()
                assert answer.status == 429
                assert int(answer.headers["retry-after-ms"]) > 0
            assert one.served("double").counts.rejections["deadline"] == 3
            gate.open.set()
            assert len(short) == 3


# What changes between two requests.


def test_a_model_that_was_swapped_answers(double: Shelf, short: list[int]) -> None:
    with wire(double.port) as line:
        line.send(raw(rows(1))).answer()
        before = double.served("double")
        double.server.call(double.server.server._repository.load("double"))
        assert double.served("double") is not before
        assert np.array_equal(scores(line.send(raw(rows(1))).answer()), 2 * rows(1).ravel())
        assert double.served("double").counts.answered == 1
    assert len(short) == 1


def test_a_model_that_was_unloaded_does_not(short: list[int]) -> None:
    with shelf({"double:1": doubled()}) as one, wire(one.port) as line:
        line.send(raw(rows(1))).answer()
        one.server.call(one.server.server._repository.unload("double"))
        assert line.send(raw(rows(1))).answer().status == 503
        assert not short


def test_a_server_that_drains_says_so(short: list[int]) -> None:
    with shelf({"double:1": doubled()}) as one, wire(one.port) as line:
        line.send(raw(rows(1))).answer()
        one.server.server._app.draining = True
        answer = line.send(raw(rows(1))).answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert line.ended()
        assert not short


def test_a_token_is_asked_for_each_time(short: list[int]) -> None:
    policy = Policy(tokens=("secret",))
    good, bad = (raw(rows(1), f"Authorization: Bearer {one}") for one in ("secret", "secreT"))
    with shelf({"double:1": doubled()}, policy=policy) as one, wire(one.port) as line:
        statuses = [line.send(each).answer().status for each in (bad, bad, good, good, bad, good)]
    assert statuses == [401, 401, 200, 200, 401, 200]
    assert len(short) == 1


def test_a_rate_is_kept(short: list[int]) -> None:
    policy = Policy(rate_per_s=3)
    with shelf({"double:1": doubled()}, policy=policy) as one, wire(one.port) as line:
        statuses = [line.send(raw(rows(1))).answer().status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert len(short) == 4


def test_it_is_logged_with_its_client(short: list[int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "burnish.serving.access")
    request = raw(rows(1), "X-Forwarded-For: 192.0.2.7", "X-Request-Id: mine")
    with shelf({"double:1": doubled()}) as one, wire(one.port) as line:
        for _ in range(3):
            line.send(request).answer()
    said = [one.getMessage() for one in caplog.records if one.name == "burnish.serving.access"]
    assert len(said) == 3
    for one in said:
        assert one.startswith(
            f"answered id=mine client=192.0.2.7 method=POST path={INFER} status=200 ms="
        )
    assert len(short) == 2


def test_a_stop_ends_the_connection_after_the_answer(short: list[int]) -> None:
    with contextlib.ExitStack() as serving:
        one = serving.enter_context(shelf({"double:1": doubled()}))
        with wire(one.port) as line:
            line.send(raw(rows(1))).answer()
            gate = one.sessions["double"]
            gate.hold()
            line.send(raw(rows(1)))
            assert gate.began.wait(5)
            opening = threading.Timer(0.5, gate.open.set)
            opening.start()
            serving.close()  # which waits for the answer
            opening.join()
            answer = line.answer()
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
            assert line.ended()
    assert len(short) == 1


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it never was")
