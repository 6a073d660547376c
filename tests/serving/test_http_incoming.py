# SPDX-License-Identifier: Apache-2.0
"""When a connection's loop is woken, and what is dropped without being read."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Iterator

import pytest
from grpc_running import doubled
from raw_http import post, wire
from shelf import shelf

from burnish.serving.http.incoming import Incoming, incoming
from burnish.serving.http.receiving import ReceivingProtocol

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_RCVLOWAT wakes poll on Linux")

KIB = 1024


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: the client's, and the server's, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.setblocking(False)
    with client, server:
        yield client, server


def woken(server: socket.socket, wait_ms: int = 0) -> bool:
    poll = select.poll()
    poll.register(server, select.POLLIN)
    return bool(poll.poll(wait_ms))


def test_it_wakes_when_a_good_part_is_there(ends) -> None:
    client, server = ends
    one = Incoming(server)
    one.wake_for(600 * KIB)
    client.sendall(bytes(100 * KIB))
    assert not woken(server, 50)
    client.sendall(bytes(200 * KIB))
    assert woken(server, 5000)
    one.forget()


@pytest.mark.parametrize("missing", [1, 30 * KIB])
def test_it_wakes_when_the_rest_is_there(ends, missing: int) -> None:
    client, server = ends
    one = Incoming(server)
    one.wake_for(600 * KIB)
    client.sendall(bytes(missing - 1))
    one.wake_for(missing)
    assert not woken(server, 50)
    client.sendall(bytes(1))
    assert woken(server, 5000)
    one.forget()


def test_it_wakes_for_what_is_there_when_less_is_waited_for(ends) -> None:
    client, server = ends
    one = Incoming(server)
    one.wake_for(600 * KIB)
    client.sendall(bytes(10))
    assert not woken(server, 50)
    one.wake_for(0)
    assert woken(server, 5000)
    one.forget()


def test_the_end_of_the_connection_wakes_it(ends) -> None:
    client, server = ends
    one = Incoming(server)
    one.wake_for(600 * KIB)
    client.sendall(bytes(10))
    client.shutdown(socket.SHUT_WR)
    assert woken(server, 5000)
    one.forget()


def test_what_is_dropped_is_gone_and_what_follows_is_not(ends) -> None:
    client, server = ends
    one = Incoming(server)
    client.sendall(bytes(1000) + b"next")
    assert woken(server, 5000)
    assert one.drop(600) == 600
    assert one.drop(400) == 400
    assert server.recv(100) == b"next"
    assert one.drop(1) == 0  # nothing is there
    one.forget()
    client.sendall(b"more")  # the socket is the transport's, and still open
    assert woken(server, 5000)
    assert server.recv(100) == b"more"


def test_a_transport_without_a_socket_has_none() -> None:
    class Pipe:
        def get_extra_info(self, name: str) -> None:
            return None

    assert incoming(Pipe()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("refused", [False, True])
def test_a_large_body_in_small_pieces_wakes_the_loop_seldom(monkeypatch, refused: bool) -> None:
    """And the request behind it is answered: nothing is waited for that does not come."""
    wakes = []
    placed = ReceivingProtocol.placed
    monkeypatch.setattr(
        ReceivingProtocol, "placed", lambda self, n: (wakes.append(n), placed(self, n))[1]
    )
    rows = 64 * KIB
    body = bytes(12 * rows)
    with shelf({"double:1": doubled()}, [(1, 0.1)]) as one, wire(one.port) as line:
        path = "/v2/models/none/infer" if refused else "/v2/models/double/infer"
        raw = post(path, body, "Inference-Header-Content-Length: 0")
        for start in range(0, len(raw), 8 * KIB):
            line.send(raw[start : start + 8 * KIB])
        first = line.answer()
        assert first.status == (404 if refused else 400)  # one row is what the model takes raw
        assert len(wakes) < 40
        line.send(post("/v2/models/double/infer", body[:12], "Inference-Header-Content-Length: 0"))
        assert line.answer().status == 200
