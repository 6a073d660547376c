# SPDX-License-Identifier: Apache-2.0
"""A request that cannot be answered in time hears so before it has sent its body."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from grpc_running import doubled
from raw_http import Wire, get, post, wire
from shelf import Shelf, shelf

INFER = "/v2/models/double/infer"
RAW = "Inference-Header-Content-Length: 0"
LARGE = 1 << 20
SLOW = [(1, 4_000.0)]
ONE = np.array([[1.0, 2.0, 3.0]], np.float32).tobytes()


@pytest.fixture
def busy() -> Iterator[Shelf]:
    """A model that takes nearly half the time that a request has, and has two requests to do."""
    with shelf({"double:1": doubled()}, SLOW, slo_ms=10_000, max_batch_size=1) as one:
        gate = one.sessions["double"]
        gate.hold()
        with wire(one.port) as first, wire(one.port) as second:
            first.send(post(INFER, ONE, RAW))
            assert gate.began.wait(5)
            second.send(post(INFER, ONE, RAW))
            wait_for(one, waiting=1)
            yield one
            gate.open.set()


def wait_for(one: Shelf, waiting: int) -> None:
    pause = threading.Event()
    for _ in range(500):
        if one.served("double").waiting == waiting:
            return
        pause.wait(0.01)
    raise AssertionError(f"never {waiting} waited")


def head(size: int, *more: str) -> bytes:
    return post(INFER, b"", RAW, f"Content-Length: {size}", *more)


def refused(line: Wire) -> bool:
    answer = line.answer()
    return answer.status == 429 and "would be late" in answer.json["error"]


def test_it_is_told_so_for_its_head(busy: Shelf) -> None:
    with wire(busy.port) as line:
        line.send(head(LARGE))
        assert refused(line)
    assert busy.served("double").counts.rejections == {"deadline": 1}


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("at_once", [0, 10, 300_000])
def test_what_still_comes_of_its_body_is_passed_over(
    busy: Shelf, pieces: int, at_once: int
) -> None:
    """And the connection goes on: a body of requests is not taken for requests."""
    body = (get("/v2/health/live") * (LARGE // 40 + 1))[:LARGE]
    with wire(busy.port) as line:
        for _ in range(2):
            line.send(head(LARGE), body[:at_once])
            assert refused(line)
            rest = body[at_once:]
            step = -(-len(rest) // pieces)
            for start in range(0, len(rest), step):
                line.send(rest[start : start + step])
        line.send(get("/v2/health/live"))
        assert line.answer().json["live"] is True


def test_who_asks_before_sending_is_told_not_to(busy: Shelf) -> None:
    with wire(busy.port) as line:
        line.send(head(LARGE, "Expect: 100-continue"))
        answer = line.answer()
        assert answer.status == 429
        assert answer.headers["connection"] == "close"
        assert line.ended()


def test_a_small_body_is_read_first(busy: Shelf) -> None:
    """It has come already: what it holds decides."""
    with wire(busy.port) as line:
        line.send(post(INFER, ONE[:-1], RAW))
        assert line.answer().status == 400


def test_a_body_that_is_too_large_is_told_that(busy: Shelf) -> None:
    with wire(busy.port) as line:
        line.send(head(10**12))
        assert line.answer().status == 413


def test_who_goes_on_hears_of_it_while_others_are_served() -> None:
    """A body under way counts as one that waits; when it has come or is given up, it is free."""
    with shelf({"double:1": doubled()}, SLOW, slo_ms=10_000, max_batch_size=1) as one:
        gate = one.sessions["double"]
        gate.hold()
        with wire(one.port) as running, wire(one.port) as slow, wire(one.port) as late:
            running.send(post(INFER, ONE, RAW))
            assert gate.began.wait(5)
            slow.send(head(LARGE), b"x" * 1000)
            wait_for_coming(one, 1)
            late.send(head(LARGE))
            assert refused(late)
            slow.close()
            wait_for_coming(one, 0)
            gate.open.set()
            assert running.answer().status == 200


def wait_for_coming(one: Shelf, n: int) -> None:
    pause = threading.Event()
    for _ in range(500):
        if one.served("double")._coming == n:
            return
        pause.wait(0.01)
    raise AssertionError(f"never {n} were on their way")
