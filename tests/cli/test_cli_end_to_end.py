# SPDX-License-Identifier: Apache-2.0
"""The commands on a real network, data and engines, as a shell runs them."""

import json
import os
import shlex
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from burnish.cli.self_check import network
from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.engine import by_name
from conftest import PROGRAM

pytestmark = pytest.mark.slow

TASK = """
name = "blobs"
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
def folder(tmp_path_factory):
    """A network, and images that it labels: 1000 for validation, 64 for calibration."""
    folder = tmp_path_factory.mktemp("end_to_end")
    rng = np.random.default_rng(3)
    proto = onnx.ModelProto.FromString(network(rng))
    x = rng.normal(0, 1, (1064, 3, 24, 24)) + rng.normal(0, 1, (1064, 3, 1, 1))
    x = x.astype(np.float32)

    def logits(proto):
        with by_name("onnxruntime").open(Model.load(proto.SerializeToString()), Setting()) as run:
            return run.run({"image": x})["logits"]

    # The head's bias is moved so that all classes occur.
    (bias,) = [one for one in proto.graph.initializer if one.name == "head.bias"]
    moved = numpy_helper.to_array(bias) - logits(proto).mean(axis=0)
    bias.CopyFrom(numpy_helper.from_array(moved, "head.bias"))
    y = logits(proto).argmax(axis=1)
    assert len(np.unique(y)) > 5
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    np.savez(folder / "calibration.npz", x=x[:64])
    np.savez(folder / "validation.npz", x=x[64:], y=y[64:])
    (folder / "task.toml").write_text(TASK)
    return folder


def run(folder, *args):
    return subprocess.run(
        [*PROGRAM, *map(str, args)],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", "BURNISH_STORE": str(folder / "store")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


OPTIMIZE = ("optimize", "net.onnx", "--task", "task.toml", "--budget", "8s", "--max-drop", "5")


@pytest.fixture(scope="module")
def optimized(folder):
    """The same command is used by the tests below: they reuse its steps from the store."""
    return run(folder, *OPTIMIZE, "-o", "bundle")


def test_optimize_writes_a_bundle_and_says_where(folder, optimized):
    assert optimized.returncode == 0, optimized.stdout + optimized.stderr
    assert "Goal met" in optimized.stdout
    assert "bundle: bundle\nreport: bundle/report.html\n" in optimized.stdout
    bundle = Bundle.load(folder / "bundle")
    assert bundle.model.size_bytes < 0.5 * bundle.original.size_bytes
    report = json.loads((folder / "bundle" / "report.json").read_text())
    assert shlex.split(report["command"]) == ["burnish", *OPTIMIZE, "-o", "bundle"]


def test_optimize_json_is_one_document(folder, optimized):
    done = run(folder, *OPTIMIZE, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "met"
    assert found["bundle"] is None
    assert found["goal"]["max_drop"] == 5


def test_a_goal_out_of_reach_exits_3_and_says_what_was_missed(folder, optimized):
    done = run(folder, *OPTIMIZE, "--max-size", "1kB", "-q")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "GOAL NOT MET: size at most 1 kB" in done.stderr
    assert "Handed back:" in done.stderr
    assert "not saved: give -o FOLDER" in done.stdout


def test_measure_and_compare(folder, optimized):
    done = run(folder, "measure", "bundle", "--task", "task.toml", "--budget", "2s", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["candidates"]
    assert {one["name"] for one in found} == {"bundle"}
    assert all(one["measured"]["metric"]["value"] > 90 for one in found)
    options = ("-t", "task.toml", "--budget", "2s", "--engine", "onnxruntime", "-q")
    done = run(folder, "compare", "net.onnx", "bundle", *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.index("net.onnx") < done.stdout.index("bundle")
    assert "vs first" in done.stdout


@pytest.mark.parametrize("after_s", [3.0, 9.0])
def test_ctrl_c_keeps_what_is_finished(folder, tmp_path, after_s):
    with subprocess.Popen(
        # A budget that is not over yet when it is interrupted.
        [*PROGRAM, *OPTIMIZE, "--budget", "15s", "--store", str(tmp_path / "store")],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        time.sleep(after_s)
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert not list((tmp_path / "store").glob("*/*.tmp"))
