# SPDX-License-Identifier: Apache-2.0
"""An optimization that is killed at any moment goes on, and ends as if it never had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import digits_net
import numpy as np
import pytest

from burnish.core.bundle import Bundle
from burnish.core.recipe import Recipe
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic

pytestmark = pytest.mark.slow

KILLS = 10
PROGRAM = [sys.executable, "-c", "from burnish.cli.app import main; main()"]
TASK = """
name = "digits"
metric = "top1"
[preprocess]
input = "image"
kind = "array"
[calibration]
source = "npz"
path = "calibration.npz"
inputs = "x"
[validation]
source = "npz"
path = "validation.npz"
inputs = "x"
labels = "y"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    images, classes = digits_net.digits()
    digits_net.network().save(folder / "net.onnx")
    np.savez(folder / "calibration.npz", x=images[700:764])
    np.savez(folder / "validation.npz", x=images[800:], y=classes[800:])
    (folder / "task.toml").write_text(TASK)
    for name, steps in {
        "fused": (Fuse(),),
        "gptq": (Fuse(), QuantizeStatic(ranges="mse", weight_bits=8, rounding="gptq")),
    }.items():
        (folder / f"{name}.toml").write_text(Recipe(steps).to_toml())
    return folder


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    """Starts an optimization with a store and a bundle of this name.

    The objective is size, which is exact, so that the choice does not hang on noise.
    """
    command = "optimize net.onnx --task task.toml --recipe fused.toml --recipe gptq.toml"
    command += " --objective size --max-drop 20 --budget 1s --engine onnxruntime --json"
    command += f" --store {name} -o {name}-bundle"
    return subprocess.Popen(
        [*PROGRAM, *command.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


def finish(folder: Path, name: str) -> tuple[dict, float]:
    """Returns the result of a run to its end, and the seconds that it took."""
    began = time.monotonic()
    process = start(folder, name)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out), time.monotonic() - began


def models(folder: Path, name: str) -> dict[str, bytes]:
    """Returns the models that were built, by the key of their step."""
    files = (folder / name / "built").glob("[!.]*/model.onnx")
    return {file.parent.name: file.read_bytes() for file in files}


def figures(result: dict) -> dict[str, tuple]:
    """Returns what does not depend on the clock, by candidate."""
    exact = ("size", "metric", "drop", "agreement")
    return {
        one["name"]: (
            one["model"],
            [[one["measured"][key][part] for part in ("value", "low", "high")] for key in exact],
        )
        for one in [result["fp32"], *result["candidates"]]
    }


def whole_or_absent(path: Path) -> bool:
    """Returns whether the bundle is there; it must then be whole."""
    if not path.exists():
        return False
    bundle = Bundle.load(path)
    assert bundle.model.digest == bundle.manifest["model"]["digest"]
    assert bundle.original.digest == bundle.manifest["original"]["digest"]
    for name in ("report.html", "report.md", "report.json", "reference.json"):
        assert (path / name).stat().st_size > 0
    return True


@pytest.fixture(scope="module")
def undisturbed(folder) -> tuple[dict, float]:
    return finish(folder, "calm")


def same_in_the_end(folder: Path, name: str, result: dict, expected: dict) -> None:
    """Checks all that does not depend on the clock; which of the rest is kept may be noise."""
    assert result["status"] == expected["status"] == "met"
    assert result["best"]["model"] == expected["best"]["model"]
    found, calm = figures(result), figures(expected)
    assert {result["fp32"]["name"], result["best"]["name"]} <= set(found) & set(calm)
    assert all(found[key] == calm[key] for key in set(found) & set(calm))
    built = models(folder, name)
    assert built == models(folder, "calm")
    assert len(built) == 2
    for file in ("model.onnx", "original.onnx"):
        bundles = (folder / f"{one}-bundle" / file for one in (name, "calm"))
        assert len({one.read_bytes() for one in bundles}) == 1
    assert whole_or_absent(folder / f"{name}-bundle")


def test_killed_at_random_moments_it_ends_the_same(folder, undisturbed):
    expected, took_s = undisturbed
    rng = random.Random(7)
    kills, name = 0, "stormy0"
    while kills < KILLS:
        process = start(folder, name)
        try:
            out, errors = process.communicate(timeout=rng.uniform(0.2, 0.6 * took_s))
            assert process.returncode == 0, errors
            same_in_the_end(folder, name, json.loads(out), expected)
            name = f"stormy{kills}"  # it got to its end: another one
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        whole_or_absent(folder / f"{name}-bundle")
    result, _ = finish(folder, name)
    same_in_the_end(folder, name, result, expected)


def test_killed_while_it_replaces_a_bundle(folder, undisturbed):
    _, again_s = finish(folder, "calm")
    rng = random.Random(11)
    for _ in range(5):
        process = start(folder, "calm")
        time.sleep(again_s * rng.uniform(0.6, 1.0))
        process.kill()
        process.communicate()
        # Absent only between two renames.
        whole_or_absent(folder / "calm-bundle")
    result, _ = finish(folder, "calm")
    assert result["best"] == undisturbed[0]["best"]
    assert whole_or_absent(folder / "calm-bundle")


def test_ctrl_c_ends_it_at_once_and_the_next_run_goes_on(folder, undisturbed):
    expected, took_s = undisturbed
    rng = random.Random(3)
    for _ in range(4):
        process = start(folder, "stopped")
        try:
            process.communicate(timeout=rng.uniform(0.2, 0.8) * took_s)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
        assert process.returncode in (130, -signal.SIGINT), errors
        # It may come while the result is shown: the bundle is then written, and whole.
        whole_or_absent(folder / "stopped-bundle")
        assert not list((folder / "stopped").glob("*/.*.tmp"))
    result, _ = finish(folder, "stopped")
    same_in_the_end(folder, "stopped", result, expected)
