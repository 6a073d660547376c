# SPDX-License-Identifier: Apache-2.0
"""Load over TLS, from this process and from others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from certificates import own_certificate
from grpc_running import doubled
from shelf import shelf
from typer.testing import CliRunner

from burnish.cli.load import load
from burnish.core.errors import Misuse
from burnish.serving.load.ask import asked_payload
from burnish.serving.load.plan import LoadPlan
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import ClosedLoop


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a server, and its certificate."""
    key, certificate = own_certificate(tmp_path_factory.mktemp("tls"))
    with shelf({"double:1": doubled()}, key=key, certificate=certificate) as one:
        yield f"https://localhost:{one.port}", certificate


@pytest.mark.parametrize("processes", [1, 2])
def test_requests_are_answered(secure: tuple[str, Path], processes: int) -> None:
    url, certificate = secure
    payload = asked_payload(url, certificate=certificate)
    plan = LoadPlan(
        url, payload, ClosedLoop(), requests=40, connections=4, processes=processes,
        certificate=certificate,
    )  # fmt: skip
    result = run_load(plan)
    assert (result.ok, result.failures) == (40, {})


def test_a_certificate_that_is_not_trusted_is_named(secure: tuple[str, Path]) -> None:
    url, certificate = secure
    with pytest.raises(Misuse, match=r"certificate verify failed"):
        asked_payload(url)
    payload = asked_payload(url, certificate=certificate)
    with pytest.raises(Misuse, match=r"no TLS with localhost:\d+: .*is its certificate trusted"):
        run_load(LoadPlan(url, payload, ClosedLoop(), requests=1))
    plain = url.replace("https", "http")
    assert run_load(LoadPlan(plain, payload, ClosedLoop(), requests=1)).ok == 0
    with pytest.raises(Misuse, match=r"a certificate is for https"):
        LoadPlan(plain, payload, ClosedLoop(), certificate=certificate)


def test_as_it_is_typed(secure: tuple[str, Path], tmp_path: Path) -> None:
    url, certificate = secure
    app = typer.Typer()
    app.command("load")(load)
    app.command("other")(lambda: None)
    words = ["load", url, "--schedule", "closed", "-n", "10", "--warmup", "0", "--quiet"]
    done = CliRunner().invoke(app, [*words, "--certificate", str(certificate)])
    assert done.exit_code == 0, done.output
    assert "10" in done.output
    nothing = tmp_path / "empty.pem"
    nothing.touch()
    for wrong in (nothing, tmp_path / "missing.pem"):
        done = CliRunner().invoke(app, [*words, "--certificate", str(wrong)])
        assert done.exit_code == 2
        assert f"{wrong.name} cannot be read" in done.output.replace("\n", "")
