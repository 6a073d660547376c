# SPDX-License-Identifier: Apache-2.0
"""The server's TOML file: what it says is read, and all that is wrong with it is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from burnish.core.errors import Misuse
from burnish.serving.configuration import Configuration, read_configuration, read_tokens
from burnish.serving.http.policy import Policy
from burnish.serving.model_options import ModelOptions

MODEL = '[models.net]\npath = "net"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("net", "text", "secret"):
        (tmp_path / name).mkdir()
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "tokens.txt").write_text("# who\none\n\n  two  \n")
    return tmp_path


def read(folder: Path, text: str) -> Configuration:
    file = folder / "serve.toml"
    file.write_text(text)
    return read_configuration(file)


def faults(folder: Path, text: str) -> list[str]:
    """Returns what is said of each fault, without the file's name."""
    with pytest.raises(Misuse) as caught:
        read(folder, text)
    lines = str(caught.value).splitlines()
    return [one.removeprefix("- ").replace(str(folder / "serve.toml"), "").strip() for one in lines]


def test_all_of_it(folder: Path) -> None:
    found = read(
        folder,
        """
        [server]
        host = "0.0.0.0"
        port = 9000
        grpc_port = false
        health_port = 9002
        certificate = "certificate.pem"
        key = "key.pem"
        tokens = "tokens.txt"
        max_connections = 7
        keep_alive_s = 3
        drain_s = 2.5
        memory_bytes = 1000
        max_body_bytes = 2000
        body_timeout_s = 1.5
        rate_per_s = 10
        repository_control = true

        [models.net]
        path = "net"

        [models.text]
        path = "text"
        version = "3"
        threads = 2
        streams = 1
        max_batch_size = 16
        slo_ms = 50
        linger_ms = 0.5
        queue = 10
        queue_bytes = 10000
        padding = { sequence = [32, 64] }
        fill = { ids = 1 }
        """,
    )
    assert (found.host, found.port, found.grpc_port, found.health_port) == (
        "0.0.0.0",
        9000,
        None,
        9002,
    )
    assert (found.certificate, found.key) == (folder / "certificate.pem", folder / "key.pem")
    assert (found.max_connections, found.keep_alive_s, found.drain_s) == (7, 3, 2.5)
    assert (found.memory_bytes, found.warnings) == (1000, ())
    policy = found.policy
    assert (policy.tokens, policy.rate_per_s) == (("one", "two"), 10)
    assert policy.repository_control
    assert (policy.body.size_bytes, policy.body.seconds) == (2000, 1.5)
    net, text = found.models
    assert net == ModelOptions(folder / "net", "net")
    assert text == ModelOptions(
        folder / "text",
        "text",
        "3",
        threads=2,
        streams=1,
        max_batch_size=16,
        slo_ms=50,
        linger_ms=0.5,
        queue=10,
        queue_bytes=10000,
        padding={"sequence": (32, 64)},
        fill={"ids": 1},
    )


def test_what_is_left_out(folder: Path) -> None:
    """What a file does not say is as without a file; paths start at the file's folder."""
    assert read(folder, MODEL) == Configuration((ModelOptions(folder / "net", "net"),))


def test_ports_that_are_not_listened_on(folder: Path) -> None:
    found = read(folder, f"[server]\nport = 0\ngrpc_port = false\nhealth_port = false\n{MODEL}")
    assert (found.port, found.grpc_port, found.health_port) == (0, None, None)


def test_every_fault_at_once(folder: Path) -> None:
    """Of the server, of each model, and of both; unknown keys with the nearest."""
    found = faults(
        folder,
        """
        [server]
        prot = 9000
        host = 3
        grpc_port = "x"
        health_port = 70000
        max_connections = 0
        drain_s = -1
        rate_per_s = 0
        body_timeout_s = -2
        certificate = "nope.pem"
        tokens = "nope.txt"
        repository_control = "yes"

        [models.net]
        path = "net"
        slo = 50
        threads = 0

        [models.text]
        slo_ms = -1
        path = "text"

        [models.gone]
        path = "gone"

        [modles]
        """,
    )
    assert found[0] == f"{len(found) - 1} faults:"
    expected = [
        "[server]: unknown key 'prot': did you mean 'port'?",
        "[server]: host must be a text, got 3",
        "[server]: grpc_port must be a whole number",
        "[server]: max_connections must be a whole number of at least 1, got 0",
        "[server]: rate_per_s must be above 0, got 0",
        "[server]: body_timeout_s must be above 0, got -2",
        "[server]: certificate: there is no",
        "[server]: tokens: there is no",
        "[server]: repository_control must be true or false, got 'yes'",
        "[models.net]: unknown key 'slo': did you mean 'slo_ms'?",
        "[models.net]: threads must be a whole number of at least 1, got 0",
        "[models.text]: model 'text': slo_ms must be above 0, got -1.0",
        "[models.gone]: path: there is no",
        "unknown key 'modles': did you mean 'models'?",
        "health_port must be 0 to 65535, got 70000; drain_s must be at least 0, got -1.0",
    ]
    for one in expected:
        assert sum(one in line for line in found[1:]) == 1, (one, found)
    assert len(found) - 1 == len(expected), found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one bundle or more to serve, got none"),
        ("[server]\nport = 1", "expected one bundle or more to serve, got none"),
        ("[server\n", "is no TOML"),
        ("server = 3\n" + MODEL, "server must be a table, got 3"),
        ("[models]\nnet = 3", "expected a table, got 3"),
        ("[models.net]", "the key 'path' is missing: the folder of a bundle"),
        ('[models."a b"]\npath = "net"', "the name 'a b' must be letters"),
        (MODEL + "version = 3", "version must be a text, got 3"),
        (MODEL + "padding = 3", "padding must be a table, got 3"),
        (MODEL + "padding = { a = [0] }", "a must be a list of whole numbers"),
        (MODEL + "padding = { a = [] }", "a must be a list of whole numbers"),
        (MODEL + 'fill = { a = "x" }', "a must be a number"),
        (MODEL + "slo_ms = inf", "slo_ms must be a number"),
        (f'[server]\nkey = "key.pem"\n{MODEL}', "TLS needs both a certificate and its key"),
        (f"[server]\nport = 8001\n{MODEL}", "port 8001 is given twice"),
        (f"[server]\ngrpc_port = true\n{MODEL}", "grpc_port must be a whole number"),
        (f'[server]\ntokens = "key.pem"\nport = true\n{MODEL}', "port must be a whole number"),
    ],
)
def test_faults(folder: Path, text: str, told: str) -> None:
    found = faults(folder, text)
    assert told in "\n".join(found), found
    assert len(found) == 1, found


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot read the configuration"):
        read_configuration(tmp_path / "nope.toml")
    with pytest.raises(Misuse, match="cannot read the configuration"):
        read_configuration(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(Misuse, match="is no TOML"):
        read_configuration(tmp_path / "latin.toml")


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    for content, told in (
        (b"# none\n\n", "holds no token"),
        (b"\xff", "cannot read the tokens"),
        (b"x" * (2**20 + 1), "a token a line"),
    ):
        file.write_bytes(content)
        with pytest.raises(Misuse, match=told):
            read_tokens(file)


@pytest.mark.parametrize(
    ("host", "settings", "n"),
    [
        ("127.0.0.1", {}, 0),
        ("::1", {}, 0),
        ("localhost", {}, 0),
        ("0.0.0.0", {}, 2),
        ("::", {"policy": Policy(tokens=("x",))}, 1),
        ("example.org", {"certificate": Path("c"), "key": Path("k")}, 1),
    ],
)
def test_warnings(host: str, settings: dict[str, Any], n: int) -> None:
    """What can be reached from elsewhere wants tokens and TLS."""
    made = Configuration((ModelOptions(Path("net")),), host, **settings)
    assert len(made.warnings) == n
