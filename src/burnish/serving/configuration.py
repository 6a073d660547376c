# SPDX-License-Identifier: Apache-2.0
"""What the server is told: one TOML file, or the command's arguments.

[server]
port = 8000                     # 0: any free one
tokens = "tokens.txt"           # a token a line

[models.resnet]
path = "bundles/resnet"         # relative to this file
slo_ms = 50

[models.text]
path = "bundles/text"
padding = { sequence = [32, 64, 128] }
"""

from __future__ import annotations

import ipaddress
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse
from burnish.data.toml_table import Table, raise_faults
from burnish.serving.http.message import BodyLimits
from burnish.serving.http.policy import Policy
from burnish.serving.model_options import ModelOptions

_MOST_TOKENS_BYTES = 1 << 20


@dataclass(frozen=True)
class Configuration:
    """The server and its models. A port of 0 is any free one; None is not to listen."""

    models: tuple[ModelOptions, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    health_port: int | None = 8002
    certificate: Path | None = None
    key: Path | None = None
    max_connections: int = 1024
    keep_alive_s: int = 15
    drain_s: float = 1.0
    memory_bytes: int | None = None
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        faults = []
        if not self.models:
            faults.append("expected one bundle or more to serve, got none")
        seen = set()
        for one in self.models:
            key = (one.served_name, one.version)
            if key in seen:
                faults.append(f"two models are called {key[0]!r}, version {key[1]!r}: rename one")
            seen.add(key)
        for name in ("port", "grpc_port", "health_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 65535:
                faults.append(f"{name} must be 0 to 65535, got {value}")
        ports = [one for one in (self.port, self.grpc_port, self.health_port) if one]
        for twice in sorted({one for one in ports if ports.count(one) > 1}):
            faults.append(f"port {twice} is given twice: HTTP, gRPC and health need one each")
        for name in ("keep_alive_s", "drain_s"):
            if not 0 <= getattr(self, name) < math.inf:
                faults.append(f"{name} must be at least 0, got {getattr(self, name)}")
        if (self.certificate is None) != (self.key is None):
            faults.append("TLS needs both a certificate and its key")
        if self.max_connections < 1:
            faults.append(f"max_connections must be at least 1, got {self.max_connections}")
        if faults:
            raise Misuse("; ".join(faults))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is dangerous in it."""
        if _loopback(self.host):
            return ()
        found = []
        if not self.policy.tokens:
            found.append(f"{self.host} can be reached from elsewhere, and no tokens are asked for")
        if self.certificate is None:
            found.append(
                f"{self.host} can be reached from elsewhere, and the traffic is not encrypted"
            )
        return tuple(found)


def read_configuration(path: Path) -> Configuration:
    """Returns what a TOML file says. Raises one `Misuse` that lists all its faults."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise Misuse(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} is no TOML: {error}") from error
    faults: list[str] = []
    top = Table(data, str(path), faults, path.parent)
    server = _server(Table(_table(top, "server"), f"{path} [server]", faults, path.parent))
    models = []
    for name, one in _table(top, "models").items():
        where = f"{path} [models.{name}]"
        if isinstance(one, dict):
            models.append(_model(name, Table(one, where, faults, path.parent)))
        else:
            faults.append(f"{where}: expected a table, got {one!r}")
    top.finish()
    made, right = None, tuple(one for one in models if one is not None)
    if right or not faults:  # else it would ask for the models that are wrong
        try:
            made = Configuration(right, **server)
        except Misuse as error:
            faults.append(f"{path}: {error}")
    raise_faults(faults)
    assert made is not None
    return made


def read_tokens(path: Path) -> tuple[str, ...]:
    """Returns the tokens of a file, one a line. Raises `Misuse` when there are none."""
    try:
        if path.stat().st_size > _MOST_TOKENS_BYTES:
            raise Misuse(
                f"{path} has more than {_MOST_TOKENS_BYTES} bytes: expected a token a line"
            )
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"cannot read the tokens {path}: {error}") from error
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise Misuse(f"{path} holds no token: expected one a line")
    return tokens


def _table(table: Table, key: str) -> Mapping[str, Any]:
    value = table.value(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        table.fault(f"{key} must be a table, got {value!r}")
        return {}
    return value


def _server(table: Table) -> dict[str, Any]:
    body, policy = BodyLimits(), Policy()
    tokens: tuple[str, ...] = ()
    file = table.path("tokens")
    if file is not None:
        try:
            tokens = read_tokens(file)
        except Misuse as error:
            table.fault(str(error))
    seconds, rate = table.number("body_timeout_s"), table.number("rate_per_s")
    for key, value in (("body_timeout_s", seconds), ("rate_per_s", rate)):
        if value is not None and value <= 0:
            table.fault(f"{key} must be above 0, got {value:g}")
    read: dict[str, Any] = {
        "host": table.text("host"),
        "port": table.whole("port"),
        "certificate": table.path("certificate"),
        "key": table.path("key"),
        "max_connections": table.whole("max_connections", 1),
        "keep_alive_s": table.whole("keep_alive_s", 1),
        "drain_s": table.number("drain_s"),
        "memory_bytes": table.whole("memory_bytes", 1),
    }
    if any(key in table and read[key] is None for key in ("certificate", "key")):
        read["certificate"] = read["key"] = None  # it is said which is wrong
    for key in ("grpc_port", "health_port"):
        if table.value(key) is False:  # not to listen
            read[key] = None
        elif (port := table.whole(key)) is not None:
            read[key] = port
    given = {
        key: value for key, value in read.items() if value is not None or key.endswith("_port")
    }
    given["policy"] = Policy(
        BodyLimits(table.whole("max_body_bytes", 1) or body.size_bytes, seconds or body.seconds),
        policy.json,
        tokens,
        rate,
        table.flag("repository_control") or False,
    )
    table.finish()
    return given


def _model(name: str, table: Table) -> ModelOptions | None:
    table.need("path", "the folder of a bundle")
    path = table.path("path")
    padding: dict[str, tuple[int, ...]] = {}
    sizes = _table(table, "padding")
    inner = Table(sizes, f"{table.where} padding", table.faults)
    for axis in sizes:
        padding[axis] = inner.wholes(axis, 1) or ()
    fills = _table(table, "fill")
    inner = Table(fills, f"{table.where} fill", table.faults)
    fill = {key: inner.number(key) or 0.0 for key in fills}
    read: dict[str, Any] = {
        "version": table.text("version"),
        "threads": table.whole("threads", 1),
        "streams": table.whole("streams", 1),
        "max_batch_size": table.whole("max_batch_size", 1),
        "slo_ms": table.number("slo_ms"),
        "linger_ms": table.number("linger_ms"),
        "queue": table.whole("queue", 1),
        "queue_bytes": table.whole("queue_bytes", 1),
    }
    table.finish()
    if path is None:
        return None
    given = {key: value for key, value in read.items() if value is not None}
    try:
        return ModelOptions(path, name, padding=padding, fill=fill, **given)
    except Misuse as error:
        table.fault(str(error))
        return None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
