# SPDX-License-Identifier: Apache-2.0
"""`burnish serve` as a process: ready, drained, succeeded, swapped, secured, refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from grpc_running import doubled
from onnx import TensorProto, helper
from raw_http import Answered, Wire, get, post, tensor, wire
from running_server import running
from serving_models import bundle
from shelf import X, shelf
from small_models import make

from burnish.core.model import Model
from burnish.serving.handover import connected, deal_out, give_way
from burnish.serving.http.app import Policy
from burnish.serving.model_options import ModelOptions

PROGRAM = [sys.executable, "-c", "from burnish.cli.app import main; main()", "serve"]
GOOD = json.dumps({"inputs": [tensor(X, "FP32")]}).encode()
INFER = "/v2/models/net/infer"


def times(factor: float) -> Model:
    """Returns a model that answers scores = factor x."""
    weights = {"factor": np.float32(factor)}
    return make(
        [helper.make_node("Mul", ["x", "factor"], ["scores"], "times")],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("scores", TensorProto.FLOAT, ["batch", 3])],
        {name: np.asarray(value) for name, value in weights.items()},
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Process:
    """The command, its output line by line."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.run = subprocess.Popen(
            [*PROGRAM, *map(str, args)],
            cwd=folder,
            env={**os.environ, "COLUMNS": "120", "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> Process:
        """Waits for the line that says that it is ready."""
        assert self.run.stdout is not None
        lines = []
        patience = threading.Timer(60, self.run.kill)
        patience.start()
        try:
            for line in self.run.stdout:
                lines.append(line)
                if line.startswith("ready at "):
                    return self
        finally:
            patience.cancel()
        _, errors = self.run.communicate(timeout=30)
        raise AssertionError("".join(lines) + errors)

    def stop(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends the signal, and returns exit code and what came on standard error."""
        self.run.send_signal(how)
        _, errors = self.run.communicate(timeout=60)
        return self.run.returncode, errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*args: object) -> Process:
        started.append(Process(tmp_path, *args))
        return started[-1]

    yield begin
    for one in started:
        if one.run.poll() is None:
            one.run.kill()
        one.run.communicate(timeout=30)


def configured(folder: Path, port: int, *more: str) -> Path:
    """Writes a configuration for the bundle `net` in the folder."""
    lines = [f"port = {port}", "grpc_port = false", "health_port = false", "drain_s = 0.3", *more]
    file = folder / "serve.toml"
    file.write_text("\n".join(["[server]", *lines, "[models.net]", 'path = "net"', ""]))
    return file


def asked(port: int, body: bytes = GOOD) -> Answered:
    """Asks on a connection of its own, once."""
    with wire(port, 30) as line:
        return line.send(post(INFER, body)).answer()


class Clients:
    """Threads that ask on new connections, again and again, and never twice for one answer."""

    def __init__(self, port: int, right: tuple[float, ...], n: int = 4) -> None:
        self.seen: Counter[str] = Counter()
        self._port, self._right = port, right
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(n)]

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                answer = asked(self._port)
                if answer.status != 200:
                    self.seen[f"{answer.status} {answer.body[:80]!r}"] += 1
                    continue
                data = answer.json["outputs"][0]["data"]
                factors = [one for one in self._right if data == (one * X).ravel().tolist()]
                self.seen[f"{factors[0]:g}" if factors else f"wrong: {data}"] += 1
            except (OSError, EOFError) as error:
                self.seen[repr(error)] += 1

    def __enter__(self) -> Clients:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def past(self, n: int, key: str | None = None) -> None:
        """Waits until so many more were answered."""

        def count() -> int:
            return self.seen.total() if key is None else self.seen[key]

        least, until = count() + n, time.monotonic() + 30
        while count() < least:
            assert time.monotonic() < until, self.seen
            time.sleep(0.005)


# Ready, and drained.


@pytest.mark.slow
def test_ready_and_sigterm(tmp_path: Path, start: Callable[..., Process]) -> None:
    """It says where it listens; at SIGTERM it answers what is under way, and exits with 0."""
    bundle(tmp_path / "net", times(2))
    port = free_port()
    server = start("--config", configured(tmp_path, port)).ready()
    assert asked(port).status == 200
    with wire(port) as begun, wire(port) as connected, wire(port) as idle:
        assert idle.send(get("/v2")).answer().status == 200
        half = post(INFER, GOOD)
        begun.send(half[:-10])
        time.sleep(0.05)
        server.run.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        answer = idle.send(get("/v2/health/ready")).answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        answer = connected.send(post(INFER, GOOD)).answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        time.sleep(0.4)  # past drain_s: it listens no more, and still waits for this one
        assert begun.send(half[-10:]).answer().status == 200
    code, errors = server.stop()
    assert (code, errors) == (0, "")


@pytest.mark.slow
def test_sigint_does_not_wait_for_who_may_still_come(
    tmp_path: Path, start: Callable[..., Process]
) -> None:
    bundle(tmp_path / "net", times(2))
    file = configured(tmp_path, free_port())
    file.write_text(file.read_text().replace("drain_s = 0.3", "drain_s = 600"))
    assert start("--config", file).ready().stop(signal.SIGINT) == (0, "")


@pytest.mark.slow
def test_a_successor_on_the_same_port(tmp_path: Path, start: Callable[..., Process]) -> None:
    """It takes over with no request lost or refused, three times, while clients come and come."""
    port = free_port()
    file = configured(tmp_path, port)
    bundle(tmp_path / "net", times(2))
    server = start("--config", file).ready()
    with Clients(port, (2, 3)) as clients:
        clients.past(50)
        for factor in (3, 2, 3):
            bundle(tmp_path / "net", times(factor))
            successor = start("--config", file).ready()
            clients.past(100)
            assert server.stop()[0] == 0
            clients.past(100)
            server = successor
    assert set(clients.seen) == {"2", "3"}, clients.seen


@pytest.mark.slow
def test_sighup_swaps(tmp_path: Path, start: Callable[..., Process]) -> None:
    """SIGHUP reads the configuration again and swaps what changed, while all is answered."""
    port = free_port()
    file = configured(tmp_path, port)
    bundle(tmp_path / "net", times(2))
    server = start("--config", file).ready()
    with Clients(port, (2, 3, 4)) as clients:
        clients.past(20, "2")
        for factor in (3, 4):
            bundle(tmp_path / "net", times(factor))
            server.run.send_signal(signal.SIGHUP)
            clients.past(20, str(factor))
        file.write_text("[server\n")  # what cannot be read changes nothing
        server.run.send_signal(signal.SIGHUP)
        clients.past(50, "4")
    assert set(clients.seen) == {"2", "3", "4"}, clients.seen
    code, errors = server.stop()
    assert code == 0
    assert "not-reloaded" in errors


def test_what_connects_at_the_end_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that nobody has accepted yet when the server ends are answered, not reset."""
    lines: list[Wire] = []

    def late(listeners: list[socket.socket]) -> list[socket.socket]:
        """Lets clients come at the last moment: on the loop's thread, nobody else accepts them."""
        for _ in range(10):
            lines.append(Wire(socket.create_connection(listeners[0].getsockname(), 10)))
            lines[-1].send(post(INFER, GOOD))
        lines.append(Wire(socket.create_connection(listeners[0].getsockname(), 10)))
        return connected(listeners)

    monkeypatch.setattr("burnish.serving.server.connected", late)
    with shelf({"net:1": doubled()}):
        pass
    for line in lines[:-1]:
        answer = line.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert line.ended()
    assert lines[-1].ended()
    for line in lines:
        line.close()


@pytest.mark.parametrize("leaving", [0, 1])
def test_who_leaves_gives_way(leaving: int) -> None:
    """Whichever of two listeners leaves, none comes to it any more; afterwards both have some."""
    both = []
    for _ in range(2):
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", both[0].getsockname()[1] if both else 0))
        one.listen(200)
        both.append(one)

    def dealt() -> list[int]:
        ends = [socket.create_connection(both[0].getsockname()) for _ in range(60)]
        came = [connected([one]) for one in both]
        for one in (*ends, *came[0], *came[1]):
            one.close()
        return [len(one) for one in came]

    with both[0], both[1]:
        assert min(dealt()) > 0
        assert give_way(both[leaving]) == []
        connected(both)[0].close()  # the one that it tried with
        assert dealt()[leaving] == 0
        deal_out(both[1 - leaving])
        assert min(dealt()) > 0
        both[1 - leaving].close()
        assert give_way(both[leaving]) == []  # there is nobody to give way to


# What it refuses.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nope"], "nope is no bundle"),
        (["empty"], "empty is no bundle"),
        ([], "expected one bundle or more"),
        (["--config", "bad.toml"], "bad.toml is no TOML"),
        (["--config", "none.toml"], "cannot read the configuration none.toml"),
        (["net", "--config", "bad.toml"], "not both"),
        (["net", "--tokens", "nope"], "cannot read the tokens nope"),
        (["net", "--certificate", "nope.pem"], "needs both a certificate and its key"),
        (["net", "--certificate", "bad.pem", "--key", "bad.pem"], "bad.pem cannot be used"),
        (["net", "--log-level", "wraning"], "did you mean 'warning'"),
        (["net", "--port", "7", "--grpc-port", "7"], "given twice"),
        (["a/net", "b/net"], "two models are called 'net'"),
        (["net=net", "--slo", "fast"], "fast"),
    ],
    ids=str,
)
def test_refusals(
    tmp_path: Path, start: Callable[..., Process], args: list[str], told: str
) -> None:
    """What cannot be served is one clear line on standard error, and exit code 2."""
    bundle(tmp_path / "net", times(2))
    for one in ("a", "b"):
        shutil.copytree(tmp_path / "net", tmp_path / one / "net")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("[server\n")
    (tmp_path / "bad.pem").write_text("no certificate")
    given = args if "--port" in args or "--config" in args else [*args, "--port", "0"]
    rest = [] if "--config" in args else ["--grpc-port", "-1", "--health-port", "-1"]
    if "--grpc-port" in args:
        rest = []
    process = start(*given, *rest).run
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert told in errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert errors.startswith("burnish: ")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["port", "grpc-port", "health-port"])
def test_a_taken_port(tmp_path: Path, start: Callable[..., Process], which: str) -> None:
    """The line names the address, and the option to give another."""
    bundle(tmp_path / "net", times(2))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ports = {"--port": 0, "--grpc-port": -1, "--health-port": -1, f"--{which}": port}
        process = start("net", *(one for pair in ports.items() for one in pair)).run
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    *before, last = errors.strip().splitlines()
    assert last.startswith(f"burnish: cannot listen on 127.0.0.1:{port}")
    assert which.replace("-", "_") in last
    assert not before or which == "grpc-port", errors  # its library says more, on its own


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
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext"]
    subprocess.run(
        ["openssl", *words, "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
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
