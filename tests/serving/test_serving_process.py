# SPDX-License-Identifier: Apache-2.0
"""`burnish serve` as a process: ready, drained, succeeded, swapped; what it refuses."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from grpc_running import doubled
from raw_http import Wire, get, post, wire
from serving_models import bundle
from serving_process import (
    GOOD,
    INFER,
    Clients,
    Process,
    asked,
    configured,
    free_port,
    times,
)
from shelf import shelf

from burnish.serving.handover import connected, deal_out, give_way

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
