# SPDX-License-Identifier: Apache-2.0
"""When a request is sent again: no clock runs and nobody sleeps here."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from client_asking import Asker, Clock, X, answer, in_turn, ok
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import BurnishError
from burnish.serving.client.answer import Answer
from burnish.serving.client.ask import Ask
from burnish.serving.client.errors import DeadlineExceeded, ServerRefused, ServerUnreachable
from burnish.serving.client.exchange import Failed, Late, Result, Terms, exchange
from burnish.serving.client.retrying import Retrying, retry_after_s

SECONDS = st.floats(0, 1e6)
DATE = "Fri, 27 Nov 2026 12:00:00 GMT"
DRAWN = st.floats(0, 1, exclude_max=True)
BUSY = {"error": "busy"}


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def ask(request: Any) -> Asker:
    return Asker(request.param)


@given(
    st.integers(0, 10_000), st.floats(0, exclude_min=True), st.none() | SECONDS, DRAWN,
    st.integers(0, 10_000),
)  # fmt: skip
def test_a_wait_ends_in_time_and_keeps_what_was_asked(
    failures: int, room_s: float, asked_s: float | None, drawn: float, retries: int
) -> None:
    policy = Retrying(retries)
    wait_s = policy.wait_s(failures, room_s, asked_s, drawn)
    if wait_s is None:
        assert failures >= retries or (asked_s or 0.0) >= room_s
        return
    assert failures < retries
    assert (asked_s or 0.0) <= wait_s < room_s
    most_s = min(policy.cap_s, policy.base_s * 2.0 ** min(failures, 100))
    assert wait_s - (asked_s or 0.0) <= most_s * (1 + 1e-9) + 1e-9


def test_the_jitter_is_full() -> None:
    """Source: Brooker 2015: uniform from 0 to the backoff, which doubles up to the cap."""
    policy = Retrying(100, base_s=0.5, cap_s=4.0)
    waits = [policy.wait_s(n, math.inf, None, 0.5) for n in range(6)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert policy.wait_s(3, math.inf, None, 0.0) == 0.0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "2", "retry-after-ms": "12.5"}, 0.0125),
        ({"retry-after": "2", "retry-after-ms": "soon"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


@given(st.datetimes(), st.integers(-(10**6), 10**6))
def test_a_date_counts_from_that_of_the_answer(now: datetime, seconds: int) -> None:
    now = now.replace(microsecond=0, year=max(1001, min(now.year, 9000)))
    due, said = (
        format_datetime(one.replace(tzinfo=UTC), usegmt=True)
        for one in (now + timedelta(seconds=seconds), now)
    )
    assert retry_after_s({"retry-after": due, "date": said}) == max(0, seconds)
    assert retry_after_s({"retry-after": due}) is None


@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,25} [\d:.+-]{0,12} \w*"))
def test_what_is_no_date_is_passed_over(text: str) -> None:
    for headers in ({"retry-after": text, "date": DATE}, {"retry-after": DATE, "date": text}):
        said = retry_after_s(headers)
        assert said is None or 0 <= said < math.inf


@st.composite
def results(draw: Any) -> tuple[Result, float]:
    """What comes of an attempt, and how long it takes."""
    takes_s = draw(st.floats(0, 2))
    kind = draw(st.sampled_from(["busy", "busy", "gone", "broken", "late", "ok", "wrong"]))
    if kind == "late":
        return Late(), math.inf
    if kind in ("gone", "broken"):
        return Failed(ServerUnreachable("none"), again=kind == "gone"), takes_s
    status = {"busy": draw(st.sampled_from([429, 503])), "ok": 200, "wrong": 400}[kind]
    after = draw(st.none() | st.floats(0, 3))
    headers = {} if after is None else {"retry-after-ms": f"{after * 1e3:.3f}"}
    return Answer(status, headers, memoryview(b'{"error": "no"}')), takes_s


@given(
    st.lists(results(), min_size=1, max_size=8), st.none() | st.floats(0.01, 5), DRAWN,
    st.integers(0, 6),
)  # fmt: skip
def test_no_call_outlives_its_deadline(
    coming: list[tuple[Result, float]], deadline_s: float | None, drawn: float, retries: int
) -> None:
    """Whatever the server does: in time, no more attempts than allowed, never too early."""
    clock = Clock()
    terms = Terms(1.0, Retrying(retries), clock, lambda: drawn)
    due = terms.due(deadline_s)
    left = [*coming, (Answer(200, {}, memoryview(b"{}")), 0.0)]
    call = exchange(lambda _: Ask("GET", "/"), terms, due)
    attempts, asked_s, began_s = 0, 0.0, clock.now_s
    try:
        attempt = next(call)
        while True:
            attempts += 1
            assert attempt.after_s >= asked_s - 1e-9
            clock.now_s += attempt.after_s
            assert clock.now_s <= attempt.until_s <= due.until_s
            assert attempt.until_s <= clock.now_s + 1.0 + 1e-9
            result, takes_s = left.pop(0)
            if clock.now_s + takes_s >= attempt.until_s:
                result, takes_s = Late(), attempt.until_s - clock.now_s
            clock.now_s += takes_s
            asked_s = (retry_after_s(result.headers) or 0.0) if isinstance(result, Answer) else 0.0
            attempt = call.send(result)
    except StopIteration as done:
        ended: Any = done.value
    except (DeadlineExceeded, ServerRefused, ServerUnreachable) as error:
        ended = error
    if isinstance(ended, Answer):
        assert ended.status == 200
    elif isinstance(ended, ServerRefused):
        assert ended.status == 400 or attempts == retries + 1 or deadline_s is None
    assert attempts <= retries + 1
    if deadline_s is not None:
        assert clock.now_s - began_s <= deadline_s + 1e-9


@pytest.mark.parametrize("status", [429, 503])
def test_busy_servers_are_asked_again(ask: Asker, status: int) -> None:
    clock = Clock()
    asked = {"Retry-After": "1", "Retry-After-Ms": "40"}
    handler, seen = in_turn([answer(status, BUSY, asked), answer(status, BUSY), ok()])
    assert ask(handler, "infer", X, clock=clock)["y"].tolist() == [1, 2]
    assert len(seen) == 3
    assert clock.slept_s == pytest.approx([0.04 + 0.05, 0.1])


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
    ],
)
def test_lost_connections_are_made_again(ask: Asker, error: Exception) -> None:
    handler, seen = in_turn([error, error, ok()])
    assert ask(handler, "infer", X)["y"].tolist() == [1, 2]
    assert len(seen) == 3


def test_retries_end(ask: Asker) -> None:
    handler, seen = in_turn([answer(503, BUSY)] + [answer(503, BUSY) for _ in range(9)])
    with pytest.raises(ServerRefused, match="503: busy") as caught:
        ask(handler, "infer", X, retries=2)
    assert len(seen) == 3
    assert caught.value.__notes__ == ["attempts: 3"]
    handler, seen = in_turn([httpx.ConnectError("refused")])
    with pytest.raises(ServerUnreachable, match=r"http://server\.test:8000.*refused"):
        ask(handler, "infer", X, retries=0)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 504])
def test_other_errors_are_not_asked_again(ask: Asker, status: int) -> None:
    handler, seen = in_turn([answer(status, BUSY, {"Retry-After": "1"})])
    with pytest.raises(BurnishError, match="busy"):
        ask(handler, "infer", X)
    assert len(seen) == 1


def test_nobody_waits_past_the_deadline(ask: Asker) -> None:
    clock = Clock()
    handler, seen = in_turn([answer(429, BUSY, {"Retry-After": "2"})])
    with pytest.raises(DeadlineExceeded, match=r"deadline_s=1.*1 attempt.*busy") as caught:
        ask(handler, "infer", X, deadline_s=1.0, clock=clock)
    assert isinstance(caught.value.__cause__, ServerRefused)
    assert caught.value.__cause__.retry_after_s == 2.0
    assert not clock.slept_s
    assert len(seen) == 1


def test_without_a_deadline_no_wait_is_longer_than_the_timeout(ask: Asker) -> None:
    clock = Clock()
    handler, _ = in_turn([answer(503, BUSY, {"Retry-After": "3600"})])
    with pytest.raises(ServerRefused) as caught:
        ask(handler, "infer", X, clock=clock)
    assert caught.value.retry_after_s == 3600.0
    assert not clock.slept_s


def test_finding_the_model_is_part_of_the_call(ask: Asker) -> None:
    clock = Clock()

    def handler(request: httpx.Request) -> httpx.Response:
        clock.now_s += 0.7
        return answer(200, [{"name": "m"}]) if "index" in request.url.path else answer(503, BUSY)

    with pytest.raises(DeadlineExceeded):
        ask(handler, "infer", X, default_model=None, deadline_s=1.0, clock=clock)
    assert clock.now_s == pytest.approx(1001.4)


def test_a_late_answer(ask: Asker) -> None:
    handler, seen = in_turn([httpx.ReadTimeout("slow")])
    with pytest.raises(DeadlineExceeded, match="timeout_s=7"):
        ask(handler, "infer", X, timeout_s=7)
    handler, seen = in_turn([httpx.ReadTimeout("slow")])
    with pytest.raises(DeadlineExceeded, match="deadline_s=2"):
        ask(handler, "infer", X, timeout_s=7, deadline_s=2)
    assert len(seen) == 1
