# SPDX-License-Identifier: Apache-2.0
"""The clients and the server, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_asking import Asker, answer, in_turn
from running_server import Running, running
from serving_models import bundle, close_to, images

from burnish.core.errors import Misuse
from burnish.serving.client.awaiting import AsyncClient
from burnish.serving.client.blocking import Client
from burnish.serving.client.errors import DeadlineExceeded, ServerRefused, ServerUnreachable
from burnish.serving.http.policy import Policy
from burnish.serving.model_options import ModelOptions

OK = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 71\r\n\r\n"
    b'{"outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1.5]}]}  '
)
X = {"x": np.zeros(1, np.float32)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("bundles")
    models = [ModelOptions(bundle(folder / "net")), ModelOptions(bundle(folder / "other"))]
    with running(*models, policy=Policy(repository_control=True, tokens=("secret",))) as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.address, "net", token="secret") as found:
        yield found


def test_infer(client: Client) -> None:
    x = images(3)
    binary = client.infer(x)
    assert binary["logits"].shape == (3, 10)
    for given in ({"binary": False}, {"compress": True}, {"deadline_s": 10.0, "version": "1"}):
        assert close_to(client.infer(x, **given)["logits"], binary["logits"])


def test_predict(client: Client) -> None:
    (image,) = images(1)["image"]
    got = client.predict({"image": image})
    assert close_to(got.outputs["logits"], client.infer({"image": image[None]})["logits"][0])
    with pytest.raises(ServerRefused, match="no preprocessing"):
        client.predict(b"no image")


def test_what_the_server_says(client: Client) -> None:
    assert client.live() is client.ready() is client.ready("net") is True
    assert client.metadata()["name"] == "burnish"
    assert client.metadata("net")["inputs"][0]["name"] == "image"
    assert client.config("net")["name"] == "net"
    assert [one["name"] for one in client.models()] == ["net", "other"]
    assert [one["name"] for one in client.statistics()["model_stats"]] == ["net", "other"]
    assert [one["name"] for one in client.statistics("other")["model_stats"]] == ["other"]
    with pytest.raises(ServerRefused, match="unknown model 'nett': did you mean 'net'"):
        client.ready("nett")


def test_load_and_unload(client: Client) -> None:
    client.unload("other")
    assert client.ready("other") is False
    assert [one["state"] for one in client.models()] == ["READY", "UNAVAILABLE"]
    client.load("other")
    assert client.ready("other") is True


def test_names_and_tokens(server: Running) -> None:
    with Client(server.address, token="secret") as client:
        with pytest.raises(Misuse, match="net, other"):
            client.infer(images(1))
        assert client.infer(images(1), model="other")["logits"].shape == (1, 10)
    with Client(server.address, "net", token="wrong") as client:
        assert client.live()
        with pytest.raises(ServerRefused) as caught:
            client.infer(images(1))
        assert caught.value.status == 401


def test_many_at_once(server: Running) -> None:
    async def ask() -> list[dict[str, Any]]:
        async with AsyncClient(server.address, "net", token="secret") as client:
            assert await client.live()
            assert await client.ready("net")
            return await asyncio.gather(*(client.infer(images(1, n)) for n in range(50)))

    answers = asyncio.run(ask())
    with Client(server.address, "net", token="secret") as client:
        for n in (0, 49):
            assert close_to(answers[n]["logits"], client.infer(images(1, n))["logits"])


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket, int], None]) -> Iterator[tuple[str, list[int]]]:
    """Calls `serve(connection, number)` for each connection, once its request has come."""
    numbers: list[int] = []
    threads = []

    def one(connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            with connection.makefile("rb") as reader:  # whole, or closing would reset it
                head = b"".join(iter(reader.readline, b"\r\n"))
                reader.read(int(head.lower().split(b"content-length:")[1].split()[0]))
            serve(connection, number)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                numbers.append(len(numbers))
                threads.append(threading.Thread(target=one, args=(connection, numbers[-1])))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", numbers
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def both(address: str, **given: Any) -> Iterator[Callable[[], Any]]:
    """The same infer, from either client."""
    of_call = {key: given.pop(key) for key in ("deadline_s",) if key in given}

    def blocking() -> Any:
        with Client(address, "m", random=lambda: 0.01, **given) as client:
            return client.infer(X, binary=False, **of_call)

    async def awaiting() -> Any:
        async with AsyncClient(address, "m", random=lambda: 0.01, **given) as client:
            return await client.infer(X, binary=False, **of_call)

    yield blocking
    yield lambda: asyncio.run(awaiting())


def test_a_dropped_connection_is_made_again() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        if number % 3 == 2:
            connection.sendall(OK)

    with listening(serve) as (address, numbers):
        for ask in both(address):
            assert ask()["y"].tolist() == [1.5]
    assert len(numbers) == 6


def test_an_answer_that_breaks_off() -> None:
    with listening(lambda connection, _: connection.sendall(OK[:-20])) as (address, numbers):
        for ask in both(address):
            with pytest.raises(ServerUnreachable, match="middle of the answer"):
                ask()
    assert len(numbers) == 2


@pytest.mark.parametrize("trickle", [False, True])
def test_the_deadline_holds_whatever_comes(trickle: bool) -> None:
    """A server that says nothing, and one that goes on and on."""

    def serve(connection: socket.socket, number: int) -> None:
        if trickle:
            connection.sendall(OK[:100])
            for _ in range(50):
                connection.sendall(b" ")
                time.sleep(0.02)
        connection.recv(1)  # until the client goes away

    with listening(serve) as (address, numbers):
        for ask in both(address, deadline_s=0.2):
            began_s = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"deadline_s=0\.2"):
                ask()
            assert time.monotonic() - began_s < 3
    assert len(numbers) == 2


def test_nobody_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    for ask in both(address, retries=1):
        with pytest.raises(ServerUnreachable, match=f"expected a server at http://{address}"):
            ask()
    with Client(address) as client:
        assert client.live() is client.ready() is False


@pytest.mark.parametrize("asynchronous", [False, True])
def test_probes_ask_once(asynchronous: bool) -> None:
    handler, seen = in_turn([answer(503, {"live": True, "ready": False})])
    assert Asker(asynchronous)(handler, "ready") is False
    assert len(seen) == 1


def test_a_cancelled_call_closes_its_connection() -> None:
    gone = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        connection.settimeout(5)
        if connection.recv(1) == b"":
            gone.set()

    async def ask(address: str) -> None:
        async with AsyncClient(address, "m") as client:
            task = asyncio.create_task(client.infer(X))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gone.wait, 5)

    with listening(serve) as (address, _):
        asyncio.run(ask(address))
