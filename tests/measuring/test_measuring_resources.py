# SPDX-License-Identifier: Apache-2.0
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_models import convolutional, random_inputs, unknown_operator

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.core.model import Model
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.resources import load_time, peak_memory, size


def test_load_time_is_of_opening_alone() -> None:
    opened = []

    def open() -> object:
        opened.append(1)
        time.sleep(0.5 if len(opened) == 1 else 0.01)
        return OnnxRuntime().open(convolutional(), Setting())

    load = load_time(open, 3)  # type: ignore[arg-type]
    assert len(opened) == 4
    assert 10 <= load.low <= load.value <= load.high < 500
    assert (load.quantity, load.unit, load.n) == ("load", "ms", 3)
    assert load.engine == OnnxRuntime().identity
    with pytest.raises(Misuse):
        load_time(open, 0)  # type: ignore[arg-type]


def test_size_is_the_files() -> None:
    model = convolutional()
    assert size(model).value == len(model.to_bytes())
    assert size(model).low == size(model).high == size(model).value
    assert size(model).engine == ""


def large(mib: int) -> Model:
    from onnx import TensorProto, helper
    from small_models import make

    n = mib * 1024 * 1024 // 4 // 1024
    weights = {"w": np.random.default_rng(0).standard_normal((1024, n)).astype(np.float32)}
    return make(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        [("x", TensorProto.FLOAT, ["batch", 1024])],
        [("y", TensorProto.FLOAT, ["batch", n])],
        weights,
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_peak_memory_is_the_childs_and_grows_with_the_model(engine: str) -> None:
    # This process's own size must not show in the child's.
    ballast = np.ones(400 * 1024 * 1024 // 8)
    measured = {}
    for mib in (1, 65):
        model = large(mib)
        inputs = random_inputs(model, 1)
        measured[mib] = peak_memory(model, engine, Setting(), inputs, n=1)
    assert ballast[0] == 1
    assert 20e6 < measured[1].value < 350e6
    grown = (measured[65].value - measured[1].value) / 64 / 1024**2
    assert 1 <= grown <= 6  # the weights, and the copies that loading them makes
    assert measured[1].unit == "bytes"
    assert measured[1].conditions["batch"] == 1


@pytest.mark.slow
def test_a_child_that_fails_says_why() -> None:
    model = convolutional()
    with pytest.raises(Unsupported, match="missing input image"):
        peak_memory(model, "onnxruntime", Setting(), {}, n=1)
    with pytest.raises(Unsupported, match="Wobble"):
        peak_memory(
            unknown_operator(), "onnxruntime", Setting(), random_inputs(unknown_operator(), 1), n=1
        )
    with pytest.raises(Unsupported, match="did not finish"):
        peak_memory(model, "onnxruntime", Setting(), random_inputs(model, 1), timeout_s=0.01)


def test_a_child_that_crashes_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An interpreter that ends itself by a signal, as one does that runs out of memory.
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho out of memory >&2\nkill -KILL $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    model = convolutional()
    with pytest.raises(Unsupported, match=r"crashed.*signal SIGKILL.*out of memory"):
        peak_memory(model, "onnxruntime", Setting(), random_inputs(model, 1))
