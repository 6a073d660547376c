# SPDX-License-Identifier: Apache-2.0
"""Who may ask the server, and what its health says."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from certificates import own_certificate
from raw_http import Wire, post, wire
from running_server import running
from serving_models import bundle
from serving_process import (
    GOOD,
    INFER,
    times,
)
from shelf import X

from burnish.serving.http.policy import Policy
from burnish.serving.model_options import ModelOptions

# Health.


def of_health(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_health_has_a_thread_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers while the event loop is blocked; when that has lasted, it is not live."""
    monkeypatch.setattr("burnish.serving.server._STUCK_S", 0.4)
    tokens = Policy(tokens=("secret",))
    options = ModelOptions(bundle(tmp_path / "net"))
    with running(options, health_port=0, policy=tokens) as one:
        port = one.where.health_port
        assert port is not None
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert of_health(port, path) == (200, b'{"live": true, "ready": true}')
        assert of_health(port, "/v2/health/live", "HEAD") == (200, b"")
        assert of_health(port, "/nope")[0] == 404
        held = threading.Event()
        one.loop.call_soon_threadsafe(held.wait, 20)
        time.sleep(0.05)
        assert of_health(port, "/v2/health/live")[0] == 200
        time.sleep(0.5)
        assert of_health(port, "/v2/health/live")[0] == 503
        assert of_health(port, "/v2/health/ready")[0] == 503
        held.set()
        until = time.monotonic() + 5
        while of_health(port, "/v2/health/live")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_health_while_draining(tmp_path: Path) -> None:
    """From the moment that it drains it is live, and not ready."""
    with running(ModelOptions(bundle(tmp_path / "net")), health_port=0, drain_s=0.5) as one:
        port = one.where.health_port or 0
        one.server._app.draining = True
        assert of_health(port, "/v2/health/live")[0] == 200
        assert of_health(port, "/v2/health/ready")[0] == 503
        assert one.json("GET", "/v2/health/ready")[0] == 503
        assert one.json("GET", "/v2/models/net/ready")[0] == 503
        assert one.json("GET", "/v2/health/live")[0] == 200


# Who may ask.


def test_tokens(tmp_path: Path) -> None:
    """401 with WWW-Authenticate without a valid token, 200 with one; health is open."""
    policy = Policy(tokens=("secret", "tökén"))
    with running(ModelOptions(bundle(tmp_path / "net", times(2))), policy=policy) as one:

        def status(path: str, *headers: str) -> int:
            with wire(one.where.port) as line:
                answer = line.send(post(path, GOOD, *headers)).answer()
                if answer.status == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert list(answer.json) == ["error"]
                return answer.status

        assert status(INFER) == 401
        for wrong in ("secret", "Bearer", "Bearer secre", "Bearer secret2", "Basic secret"):
            assert status(INFER, f"Authorization: {wrong}") == 401
        assert status(INFER, "Authorization: Bearer secret") == 200
        assert status(INFER, "authorization: bearer  secret ") == 200
        assert status(INFER, "Authorization: Bearer " + "tökén".encode().decode("latin-1")) == 200
        assert status("/v2/models/nope/infer") == 401  # nothing is told of what there is
        assert status("/v2/repository/index") == 401
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert one.ask("GET", path)[0] == 200
        for path in ("/v2", "/metrics", "/status.json", "/v2/models/net", "/nope"):
            assert one.ask("GET", path)[0] == 401


@pytest.mark.parametrize("slow", [False, True])
def test_tls(tmp_path: Path, slow: bool) -> None:
    """With a certificate it speaks TLS, and nothing else."""
    key, certificate = own_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    options = ModelOptions(bundle(tmp_path / "net", times(2)))
    with running(options, certificate=certificate, key=key) as one:
        assert one.where.url.startswith("https://")
        raw = socket.create_connection(("127.0.0.1", one.where.port), 10)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
            line = Wire(secure)
            for _ in range(2):
                answer = line.send(post(INFER, GOOD)).answer()
                assert answer.json["outputs"][0]["data"] == (2 * X).ravel().tolist()
            if slow:  # what is over the limit, on a transport that cannot half-close
                line.send(post(INFER, b"", f"Content-Length: {10**9}"))
                assert line.answer().status == 413
                assert line.ended()
            line.close()
        with wire(one.where.port) as plain, contextlib.suppress(ConnectionResetError):
            plain.send(post(INFER, GOOD))
            assert plain.ended()
