# SPDX-License-Identifier: Apache-2.0
"""What goes wrong is told as it is: by whom, what was expected, what to do."""

from __future__ import annotations

import copy
import gzip
import pickle
import subprocess
import sys
from typing import Any

import httpx
import numpy as np
import pytest
from client_asking import URL, Asker, X, answer, echo, in_turn

from burnish.core.errors import BurnishError, Misuse
from burnish.serving.client.blocking import Client
from burnish.serving.client.errors import (
    BadAnswer,
    DeadlineExceeded,
    ServerRefused,
    ServerUnreachable,
)


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def ask(request: Any) -> Asker:
    return Asker(request.param)


def fails(ask: Asker, reply: Any, kind: type[BurnishError], words: str, **given: Any) -> Any:
    handler, _ = in_turn([reply])
    with pytest.raises(kind, match=words) as caught:
        ask(handler, "infer", X, retries=0, **given)
    return caught.value


def test_a_refusal_has_the_servers_words(ask: Asker) -> None:
    reply = answer(400, {"error": "input 'x': expected 3 elements"}, {"Retry-After-Ms": "1500"})
    error = fails(ask, reply, ServerRefused, "status 400: input 'x': expected 3 elements")
    assert (error.status, error.message) == (400, "input 'x': expected 3 elements")
    assert error.retry_after_s == 1.5
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert (str(twin), twin.retry_after_s) == (str(error), 1.5)


def test_refusals_that_are_not_the_servers(ask: Asker) -> None:
    fails(ask, answer(502, b"<h1>Bad Gateway</h1>"), ServerRefused, "502: <h1>Bad Gateway")
    fails(ask, answer(500, b""), ServerRefused, "500: no reason given")
    moved = answer(308, b"", {"Location": "https://other.test/"})
    fails(ask, moved, ServerRefused, "308: it is at https://other.test/: ask there")
    fails(ask, answer(401, {"error": "no"}), ServerRefused, r"401: no; give Client\(token=")


def test_a_server_that_will_be_late(ask: Asker) -> None:
    reply = answer(504, {"error": "m: 80 ms are needed"})
    error = fails(ask, reply, DeadlineExceeded, "80 ms are needed", deadline_s=0.01)
    assert isinstance(error.__cause__, ServerRefused)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(200, b"hello"), "cannot be read"),
        (answer(200, {}), "no outputs"),
        (answer(200, b"", {"Content-Encoding": "br"}), "gzip, deflate or no coding, got br"),
        (answer(200, b"xx", {"Content-Encoding": "gzip"}), "not compressed as it says"),
        (
            answer(200, gzip.compress(b"hello there")[:-9], {"Content-Encoding": "gzip"}),
            "ends too soon",
        ),
    ],
)
def test_answers_that_cannot_be_read(reply: Any, words: str) -> None:
    fails(Asker(False), reply, BadAnswer, words)


@pytest.mark.parametrize(
    "reply",
    [
        lambda: answer(200, b"x" * 2000),
        lambda: answer(200, b"", {"Content-Length": "2000"}),
        lambda: answer(200, gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"}),
        lambda: answer(400, b"x" * 2000),
    ],
)
def test_answers_are_bounded(ask: Asker, reply: Any) -> None:
    fails(ask, reply(), BadAnswer, "at most 1000 bytes", max_response_bytes=1000)
    small = np.zeros(4, np.float32)
    assert ask(echo, "infer", {"x": small}, max_response_bytes=1000)["x"].shape == (4,)


class Breaking(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends in the middle."""

    def __iter__(self) -> Any:
        yield b"{"
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        yield b"{"
        raise httpx.ReadError("reset")


def test_an_answer_that_breaks_off_is_not_asked_for_again(ask: Asker) -> None:
    handler, seen = in_turn([httpx.Response(200, stream=Breaking())])
    with pytest.raises(ServerUnreachable, match="in the middle of the answer: reset"):
        ask(handler, "infer", X)
    assert len(seen) == 1


def test_a_certificate_that_is_not_trusted_is_not_asked_again(ask: Asker) -> None:
    handler, seen = in_turn([httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")])
    with pytest.raises(ServerUnreachable, match="self-signed"):
        ask(handler, "infer", X)
    assert len(seen) == 1


def test_a_server_with_one_model_needs_no_name(ask: Asker) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2/repository/index":
            return answer(200, [{"name": "only", "version": v} for v in "12"])
        assert request.url.path == "/v2/models/only/infer"
        return echo(request)

    assert list(ask(handler, "infer", X, default_model=None)) == ["x"]


@pytest.mark.parametrize(
    ("index", "words"),
    [([{"name": "b"}, {"name": "a"}], "has a, b: give model="), ([], "has none")],
)
def test_a_server_with_several_needs_one(ask: Asker, index: Any, words: str) -> None:
    handler, _ = in_turn([answer(200, index)])
    with pytest.raises(Misuse, match=words):
        ask(handler, "infer", X, default_model=None)


def test_the_one_model_is_looked_up_once_and_again_when_it_is_gone() -> None:
    index, calls = [{"name": "old"}], []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        if request.url.path == "/v2/repository/index":
            return answer(200, index)
        if "old" in request.url.path and index[0]["name"] != "old":
            return answer(404, {"error": "unknown model 'old'"})
        return echo(request)

    with Client(URL, transport=httpx.MockTransport(handler)) as client:
        client.infer(X)
        client.infer(X)
        assert len(calls) == 3
        index[0] = {"name": "new"}
        with pytest.raises(ServerRefused, match="unknown model"):
            client.infer(X)
        client.infer(X)
    assert calls[-1] == "/v2/models/new/infer"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "ftp://host"}, "expected a URL"),
        ({"url": "http://"}, "expected a URL"),
        ({"url": "http://h:99999999"}, "URL"),
        ({"url": "http://u:secret@host"}, "without a user"),
        ({"url": "http://host/?a=1"}, "expected a URL"),
        ({"url": URL, "token": "two words"}, "expected a token"),
        ({"url": URL, "token": "line\r\nX: y"}, "expected a token"),
        ({"url": URL, "timeout_s": 0}, "timeout_s"),
        ({"url": URL, "retries": -1}, "retries"),
        ({"url": URL, "max_response_bytes": 0}, "max_response_bytes"),
        ({"url": URL, "certificate": "nowhere.pem"}, "nowhere.pem cannot be read"),
    ],
)
def test_clients_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(Misuse, match=words) as caught:
        Client(**arguments)
    assert not any(hidden in str(caught.value) for hidden in ("secret", "two words"))


def test_a_closed_client_says_so() -> None:
    client = Client(URL, "m", transport=httpx.MockTransport(echo))
    client.close()
    with pytest.raises(Misuse, match="closed"):
        client.infer(X)


def test_the_client_loads_no_engine_and_no_server() -> None:
    program = (
        "import sys, burnish.serving.client.blocking, burnish.serving.client.awaiting\n"
        "print(' '.join(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not set(done.stdout.split()) & {"onnx", "onnxruntime", "torch", "uvicorn", "grpc"}
