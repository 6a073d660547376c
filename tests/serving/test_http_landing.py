# SPDX-License-Identifier: Apache-2.0
"""Bodies are received where batches run, and every answer is its own request's."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import uvloop
from numpy.typing import NDArray
from onnx import TensorProto, helper
from raw_http import Wire, post, tensor, wire
from shelf import Shelf, shelf
from small_models import make

from burnish.core.model import Model
from burnish.engines.engine import Session

WIDTH = 30_000
INFER = "/v2/models/wide/infer"
HEADER = "Inference-Header-Content-Length"
RAW = f"{HEADER}: 0"


def wide() -> Model:
    """Returns a model of 120 kB a row, which answers the row's first, last and largest."""
    return make(
        [
            helper.make_node("Gather", ["x", "ends"], ["picked"], "picking", axis=1),
            helper.make_node("ReduceMax", ["x", "axis"], ["most"], "largest", keepdims=1),
            helper.make_node("Concat", ["picked", "most"], ["y"], "together", axis=1),
        ],
        [("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
        {"ends": np.array([0, WIDTH - 1], np.int64), "axis": np.array([1], np.int64)},
    )


class Seen(Session):
    """A session that counts its batches, and those of which the engine got no memory of its own."""

    def __init__(self, inner: Session) -> None:
        self.signature, self.setting, self.engine = inner.signature, inner.setting, inner.engine
        self.addresses: list[tuple[int, int]] = []
        self._inner = inner

    def execute(self, inputs: Any) -> dict[str, NDArray[Any]]:
        array = inputs["x"]
        self.addresses.append((array.__array_interface__["data"][0], len(array)))
        return self._inner.execute(inputs)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def one(request: pytest.FixtureRequest) -> Iterator[Shelf]:
    loop = {"asyncio": asyncio.run, "uvloop": uvloop.run}[request.param]
    with shelf({"wide:1": wide()}, [(1, 1.0), (16, 2.0)], max_batch_size=16, loop=loop) as it:
        yield it


def rows(n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype(np.float32)


def expected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([x[:, 0], x[:, -1], x.max(axis=1)], axis=1)


def framed(x: NDArray[np.float32], **more: Any) -> bytes:
    """Returns a request with a JSON document before its tensor."""
    entry = tensor(x, "FP32", parameters={"binary_data_size": x.nbytes})
    whole = {"inputs": [entry], "outputs": [{"name": "y"}], **more}
    header = json.dumps(whole).encode()
    return post(INFER, header + x.tobytes(), f"{HEADER}: {len(header)}")


def raw(x: NDArray[np.float32]) -> bytes:
    return post(INFER, x.tobytes(), RAW)


def answers(line: Wire, x: NDArray[np.float32]) -> bool:
    answer = line.answer()
    assert answer.status == 200, answer.body[:300]
    length = answer.headers.get(HEADER.lower())
    if length is not None:
        got = np.frombuffer(answer.body[int(length) :], np.float32).reshape(-1, 3)
    else:
        got = np.array(answer.json["outputs"][0]["data"], np.float32).reshape(-1, 3)
    return np.array_equal(got, expected(x))


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize("more", [{}, {"parameters": {"note": "x" * 50_000}}])
def test_a_body_in_pieces_with_a_document_before_it(
    one: Shelf, pieces: int, more: dict[str, Any]
) -> None:
    with wire(one.port) as line:
        for seed in range(3):
            x = rows(1 + seed, seed)
            whole = framed(x, **more)
            step = -(-len(whole) // pieces)
            for start in range(0, len(whole), step):
                line.send(whole[start : start + step])
                if pieces > 1:
                    time.sleep(0.001)
            assert answers(line, x)


def test_what_follows_is_the_next_request(one: Shelf) -> None:
    first, second, third = rows(2, 1), rows(1, 2), rows(3, 3)
    with wire(one.port) as line:
        line.send(framed(first), raw(second), framed(third))
        assert answers(line, first)
        assert answers(line, second)
        assert answers(line, third)


def test_each_of_many_gets_its_own_answer(one: Shelf) -> None:
    """Of many at once, of one row and of more, as they come: some batches are gathered, some
    run where they lie, and some of the clients go away."""
    wrong: list[str] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        for turn in range(12):
            x = rows(int(random.integers(1, 4)), 100 * seed + turn)
            request = raw(x) if turn % 2 and len(x) == 1 else framed(x)
            with wire(one.port) as line:
                if random.random() < 0.2:
                    line.send(request[: int(random.integers(1, len(request)))])
                    continue
                line.send(request)
                if not answers(line, x):
                    wrong.append(f"{seed}.{turn}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_batch_of_neighbours_is_not_copied() -> None:
    seen: list[Seen] = []

    def wrap(inner: Session) -> Session:
        seen.append(Seen(inner))
        return seen[0]

    xs = [rows(1, seed) for seed in range(6)]
    with shelf({"wide:1": wide()}, [(1, 1.0), (16, 2.0)], max_batch_size=16, wrap=wrap) as it:
        gate = it.sessions["wide"]
        gate.hold()
        lines = [Wire(_connected(it)) for _ in xs]
        lines[0].send(raw(xs[0]))
        assert gate.began.wait(5)
        for number, (line, x) in enumerate(zip(lines[1:], xs[1:], strict=True), 1):
            line.send(raw(x))
            _until(lambda n=number: it.served("wide").waiting == n)
        gate.open.set()
        for line, x in zip(lines, xs, strict=True):
            assert answers(line, x)
            line.close()
    (first, n), (second, m) = seen[0].addresses
    assert (n, m) == (1, 5)
    assert second == first + xs[0].nbytes, "the batch lies behind the request before it"


def _connected(it: Shelf) -> socket.socket:
    return socket.create_connection(("127.0.0.1", it.port), 10)


def _until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if holds():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to hold")


@pytest.mark.parametrize(
    "length", ["12345678901234567890123", "1" * 5000, "-1", "7x", " 0 ", "999999999"]
)
def test_a_strange_header_is_told_as_before(one: Shelf, length: str) -> None:
    x = rows(1, 5)
    with wire(one.port) as line:
        line.send(post(INFER, x.tobytes(), f"{HEADER}: {length}"))
        answer = line.answer()
        if length == " 0 ":  # blanks around a value are none of it
            assert answer.status == 200
        else:
            assert answer.status == 400
            assert HEADER in answer.json["error"]
        line.send(raw(x))
        assert answers(line, x)


def test_a_document_that_does_not_fit_its_tensor_is_told_so(one: Shelf) -> None:
    x = rows(1, 6)
    with wire(one.port) as line:
        for shape, said in (([1, WIDTH - 1], "bytes"), ([2, WIDTH], "bytes")):
            entry = {**tensor(x, "FP32"), "shape": shape}
            entry.pop("data", None)
            entry["parameters"] = {"binary_data_size": x.nbytes}
            header = json.dumps({"inputs": [entry]}).encode()
            line.send(post(INFER, header + x.tobytes(), f"{HEADER}: {len(header)}"))
            answer = line.answer()
            assert answer.status == 400
            assert said in answer.json["error"]
        line.send(raw(x))
        assert answers(line, x)


def test_a_compressed_body_lands_nowhere(one: Shelf) -> None:
    x = rows(1, 7)
    with wire(one.port) as line:
        line.send(post(INFER, gzip.compress(x.tobytes(), 1), RAW, "Content-Encoding: gzip"))
        assert answers(line, x)


def test_a_client_that_waits_to_be_told_to_go_on(one: Shelf) -> None:
    x = rows(1, 8)
    whole = framed(x)
    head, body = whole.split(b"\r\n\r\n", 1)
    with wire(one.port) as line:
        line.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert line.line().startswith(b"HTTP/1.1 100")
        assert line.line() == b"\r\n"
        line.send(body)
        assert answers(line, x)
