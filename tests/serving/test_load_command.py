# SPDX-License-Identifier: Apache-2.0
"""`burnish load` as it is typed."""

from __future__ import annotations

import json

import pytest
import typer
from load_stub import Stub, serving
from typer.testing import CliRunner

from burnish.cli.load import EPILOG, load

app = typer.Typer(rich_markup_mode="rich")
app.command("load", epilog=EPILOG)(load)
app.command("other")(lambda: None)
FAST = ("--warmup", "0", "--duration", "300ms", "--quiet")


def burnish(*args):
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["load", *map(str, args)])


def test_a_run_as_table_and_page(tmp_path):
    with serving(Stub()) as stub:
        done = burnish(stub.url, "--rate", 100, "--slo", "p99=2s", *FAST, "-o", tmp_path / "l.html")
    assert done.exit_code == 0, done.output
    assert "p99 ≤ 2000 ms is kept" in done.output
    assert "answers are few for p99" in done.output
    assert "<svg" in (tmp_path / "l.html").read_text()


def test_json_is_alone_on_standard_output():
    with serving(Stub()) as stub:
        done = burnish(stub.url, "-m", "m", "--schedule", "closed", "-n", 20, *FAST, "--json")
    said = json.loads(done.stdout)
    assert said["ok"] == 20
    assert said["offered_per_s"] is None
    assert said["latency_ms"]["p99"] > 0


def test_a_sweep():
    with serving(Stub(answer=lambda i: (0.0, 200))) as stub:
        done = burnish(
            stub.url, "--sweep", "--rate", 50, "--slo", "p50=0.001ms", *FAST, "--requests", 5
        )
    assert done.exit_code == 3
    assert "keeps p50 ≤ 0.001 ms" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "how many requests per second"),
        (("--rate", "fast"), "samples per second"),
        (("--sweep",), "a sweep needs the limit"),
        (("--rate", "5", "--slo", "p98=5ms"), "unknown percentile"),
        (("--rate", "5", "--slo", "p99=3x"), "an SLO is written"),
        (("--rate", "5", "--axis", "x"), "--axis is written"),
        (("--rate", "5", "--shape", "x=a"), "--shape is written"),
        (("--rate", "5", "--header", "x"), "a header is written"),
        (("--rate", "5", "--header-length", "3"), "give --body, too"),
        (("--rate", "5", "--duration", "long"), "a duration is written"),
        (("--rate", "5", "--schedule", "closed"), "--rate is for poisson"),
        (("--sweep", "--slo", "p99=5ms", "--schedule", "closed"), "a sweep raises the rate"),
        (("--rate", "5", "-o", "/nowhere/at/all.html"), "there is no folder"),
    ],
)
def test_wrong_use(options, said):
    with serving(Stub()) as stub:
        done = burnish(stub.url, *options, "--quiet")
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_no_answer_is_no_success():
    with serving(Stub(answer=lambda _: (0.0, 503))) as stub:
        done = burnish(stub.url, "--rate", 50, *FAST)
    assert done.exit_code == 3
    assert "503: " in done.output


def test_secrets_are_sent_and_not_written_down(tmp_path, monkeypatch):
    typed = ["--token", "t0p", "-H", "X-Key: it's 5ecret"]
    monkeypatch.setattr("sys.argv", ["burnish", "load", *typed])
    with serving(Stub()) as stub:
        done = burnish(stub.url, "--rate", 50, *typed, *FAST, "--json", "-o", tmp_path / "l.html")
    assert done.exit_code == 0, done.output
    assert all(b"\r\nAuthorization: Bearer t0p\r\n" in head for head in stub.heads)
    assert all(b"\r\nX-Key: it's 5ecret\r\n" in head for head in stub.heads)
    assert json.loads(done.stdout)["command"] == "burnish load --token … -H 'X-Key: …'"
    for written in (done.output, (tmp_path / "l.html").read_text()):
        assert "t0p" not in written
        assert "5ecret" not in written


def test_a_body_from_a_file(tmp_path):
    (tmp_path / "body").write_bytes(b'{"inputs": []}')
    with serving(Stub()) as stub:
        done = burnish(stub.url, "--rate", 50, "--body", tmp_path / "body", *FAST)
    assert done.exit_code == 0, done.output
    assert set(stub.bodies) == {b'{"inputs": []}'}
