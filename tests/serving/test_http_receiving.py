# SPDX-License-Identifier: Apache-2.0
"""Tensors are received where they are used, on every loop, and with TLS."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from certificates import own_certificate
from grpc_running import doubled
from raw_http import Wire, get, post, tensor
from shelf import Shelf, shelf

from burnish.serving.http.receiving import ReceivingProtocol

INFER = "/v2/models/double/infer"
HEADER = "Inference-Header-Content-Length"
BINARY = {"parameters": {"binary_data": True}}
LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return own_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "asyncio+tls", "uvloop+tls"])
def line_to(request: pytest.FixtureRequest) -> Iterator[Callable[[], Wire]]:
    """Returns what connects to a server on that loop."""
    loop, _, tls = request.param.partition("+")
    settings: dict[str, Any] = {"loop": LOOPS[loop]}
    context = None
    if tls:
        settings["key"], settings["certificate"] = request.getfixturevalue("pair")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with shelf({"double:1": doubled()}, **settings) as one:
        yield lambda: _wire(one, context)


def _wire(one: Shelf, context: ssl.SSLContext | None) -> Wire:
    connection = socket.create_connection(("127.0.0.1", one.port), 10)
    return Wire(context.wrap_socket(connection) if context else connection)


def asked(array: np.ndarray) -> bytes:
    entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
    header = json.dumps({"inputs": [entry], "outputs": [{"name": "scores", **BINARY}]}).encode()
    return post(INFER, header + array.tobytes(), f"{HEADER}: {len(header)}")


def doubles(line: Wire, array: np.ndarray) -> bool:
    answer = line.answer()
    assert answer.status == 200
    scores = np.frombuffer(answer.body[int(answer.headers[HEADER.lower()]) :], np.float32)
    return np.array_equal(scores, 2 * array.ravel())


@pytest.mark.parametrize("rows", [1, 5_461, 50_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_bodies_of_any_size_and_in_pieces(
    line_to: Callable[[], Wire], rows: int, pieces: int
) -> None:
    array = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    line = line_to()
    for _ in range(3):  # on the same connection
        whole = asked(array)
        step = -(-len(whole) // pieces)
        for start in range(0, len(whole), step):
            line.send(whole[start : start + step])
            if pieces > 1:
                time.sleep(0.002)
        assert doubles(line, array)
    line.close()


def test_what_follows_a_body_is_the_next_request(line_to: Callable[[], Wire]) -> None:
    array = np.ones((100_000, 3), np.float32)
    line = line_to().send(asked(array), get("/v2/health/live"), asked(array[:2]))
    assert doubles(line, array)
    assert line.answer().json["live"] is True
    assert doubles(line, array[:2])
    line.close()


def test_most_of_a_body_passes_no_parser(
    line_to: Callable[[], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    feed = ReceivingProtocol.data_received
    monkeypatch.setattr(
        ReceivingProtocol,
        "data_received",
        lambda self, data: (parsed.append(len(data)), feed(self, data))[1],
    )
    array = np.ones((1_000_000, 3), np.float32)
    line = line_to().send(asked(array))
    assert doubles(line, array)
    assert 0 < sum(parsed) < 0.1 * array.nbytes
    line.close()


def test_a_client_that_leaves_within_a_body_harms_nobody(line_to: Callable[[], Wire]) -> None:
    array = np.ones((100_000, 3), np.float32)
    for share in (0.1, 0.5, 0.99):
        whole = asked(array)
        line_to().send(whole[: int(share * len(whole))]).close()
    line = line_to().send(asked(array))
    assert doubles(line, array)
    line.close()


@pytest.mark.parametrize("new", [False, True])
def test_nothing_is_left_for_the_collector(
    line_to: Callable[[], Wire], new: bool, request: pytest.FixtureRequest
) -> None:
    """Neither by requests nor by connections: what refers to itself stays until it is searched
    for, and with nothing else to find that is seldom."""
    if new and request.node.callspec.params["line_to"] != "uvloop":
        pytest.skip("the transports of asyncio, and those of TLS, refer to themselves")
    array = np.ones((2, 3), np.float32)

    def ask(n: int) -> int:
        gc.collect()
        line = line_to()
        for _ in range(n):
            if new:
                line.close()
                line = line_to()
            assert doubles(line.send(asked(array)), array)
        line.close()
        return gc.collect()

    gc.disable()
    try:
        ask(10)
        few, many = ask(10), ask(110)
    finally:
        gc.enable()
    assert many - few < 100
