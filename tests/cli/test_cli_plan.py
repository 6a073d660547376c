# SPDX-License-Identifier: Apache-2.0
import json
import logging

import pytest
import typer
from small_models import convolutional, two_inputs
from typer.testing import CliRunner

from burnish.cli import plan
from burnish.core.bundle import Bundle
from burnish.core.errors import Misuse
from burnish.serving.planning.slo import Slo
from burnish.serving.serving_plan import serving_plan


@pytest.fixture
def burnish(monkeypatch, tmp_path):
    """Runs the verb among others, as the program does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    app = typer.Typer(rich_markup_mode="rich")
    app.command("plan", epilog=plan.EPILOG)(plan.plan)
    app.callback()(lambda: None)
    log = logging.getLogger("burnish")
    before = (log.level, log.handlers)
    yield lambda *args: CliRunner().invoke(app, ["plan", *map(str, args)])
    log.level, log.handlers = before


@pytest.fixture
def bundle(tmp_path):
    plan = {"engine": "onnxruntime", "threads": 1, "streams": 1}
    return Bundle.write(tmp_path / "net", convolutional(), convolutional(), {"plan": plan}, {})


QUICK = ("--budget", "0.3s", "--quiet")


def manifest(bundle):
    return json.loads((bundle.path / "manifest.json").read_text())


def test_plans_and_writes(burnish, bundle):
    done = burnish("net", "--slo", "p80=500ms", "--rate", "20/s", *QUICK)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("→") == 1
    for words in ("best:", "at 20/s", "in time", "network's share", "burnish serve net"):
        assert words in done.stdout
    serving = manifest(bundle)["plan"]["serving"]
    assert (serving["slo_ms"], serving["percentile"], serving["rate_per_s"]) == (500, 80, 20)
    assert serving_plan(manifest(bundle)["plan"]).slo_ms == 500


def test_json_and_dry_run(burnish, bundle):
    before = (bundle.path / "manifest.json").read_bytes()
    done = burnish("net", "--slo", "p80=500ms", "--rate", 20, "--dry-run", "--json", *QUICK)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert said["written"] is False
    assert said["kept"] is True
    assert said["slo"] == {"percentile": 80, "ms": 500}
    assert said["serving"]["considered"] == said["considered"]
    assert said["machine"]["fingerprint"] == said["serving"]["measured"]["machine"]


def test_nothing_keeps_the_slo(burnish, bundle):
    before = (bundle.path / "manifest.json").read_bytes()
    done = burnish("net", "--slo", "p90=20ms", "--rate", "1e8", *QUICK)
    assert done.exit_code == 3, done.output
    for words in ("nothing keeps p90 ≤ 20 ms", "nearest:", "up to about", "nothing was written"):
        assert words in done.stdout
    done = burnish("net", "--slo", "0.1us", "--json", *QUICK)
    assert done.exit_code == 3
    said = json.loads(done.stdout)
    assert said["serving"] is None
    assert said["nearest"]["alone_ms"] > 1e-4
    done = burnish("net", "--slo", "0.1us", *QUICK)
    assert done.exit_code == 3
    assert "at any rate" in done.stdout
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_the_largest_of_declared_sizes_is_planned_for(burnish, tmp_path):
    settings = {"engine": "onnxruntime", "threads": 1, "streams": 1}
    Bundle.write(tmp_path / "text", two_inputs(), two_inputs(), {"plan": settings}, {})
    done = burnish("text", "--slo", "p80=500ms", "--rate", 10, "--axis", "length=4,16,8", *QUICK)
    assert done.exit_code == 0, done.output
    assert "planned for length=16" in done.stdout
    done = burnish("text", "--slo", "p90=20ms", *QUICK)
    assert done.exit_code == 2
    assert "--axis length=SIZE" in done.stderr


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("net", "--slo", "50"), "a time as"),
        (("net", "--slo", "fast=50ms"), "p99=50ms"),
        (("net", "--slo", "p=50ms"), "p99=50ms"),
        (("net", "--slo", "p100=50ms"), "p99=50ms"),
        (("net", "--slo", "p0=50ms"), "from 1 to 99.99"),
        (("net", "--slo", "p99=0ms"), "above 0"),
        (("net", "--slo", "p99=50ms=3"), "a time as"),
        (("net", "--slo", "50ms", "--rate", "0"), "above 0"),
        (("net", "--slo", "50ms", "--rate", "many"), "per second"),
        (("net", "--slo", "50ms", "--budget", "soon"), "duration"),
        (("net", "--slo", "50ms", "--axis", "length"), "sequence=128"),
        (("net", "--slo", "50ms", "--axis", "length=0"), "sequence=128"),
        (("net", "--slo", "50ms", "--axis", "a=1", "--axis", "a=2"), "twice"),
        (("net", "--slo", "50ms", "--axis", "length=7"), "no free axis 'length'"),
        (("absent", "--slo", "50ms"), "is no bundle"),
    ],
)
def test_wrong_use(burnish, bundle, args, word):
    done = burnish(*args, "--quiet")
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("burnish: ")
    assert done.stderr.count("\n") == 1
    assert word in done.stderr
    assert "serving" not in manifest(bundle)["plan"]


def test_the_slo_is_required(burnish, bundle):
    done = burnish("net")
    assert done.exit_code == 2
    assert "--slo" in done.output


def test_help_teaches(burnish):
    done = burnish("--help")
    assert done.exit_code == 0
    assert "Example: burnish plan" in " ".join(done.stdout.split())
    assert "Exit codes: 0" in done.stdout
    for option in ("--slo", "--rate", "--axis", "--budget", "--dry-run", "--seed", "--json"):
        assert option in done.stdout


def test_slo_of():
    assert plan.slo_of("P99.9 = 0.1s") == Slo(100.0, 99.9)
    assert plan.slo_of("50 ms") == Slo(50.0, 99.0)
    with pytest.raises(Misuse):
        plan.slo_of("=50ms")
