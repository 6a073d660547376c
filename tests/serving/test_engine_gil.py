# SPDX-License-Identifier: Apache-2.0
"""The engines let other threads run while they do: what the server's one process stands on."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.engine import by_name, installed

BEAT_S = 0.001


def heavy(layers: int = 24, width: int = 768) -> Model:
    """Returns a chain of matrix products."""
    weight = np.random.default_rng(0).normal(0, width**-0.5, (width, width)).astype(np.float32)
    nodes = []
    for i in range(layers):
        target = "y" if i == layers - 1 else f"a{i}"
        nodes.append(
            helper.make_node("MatMul", [f"a{i - 1}" if i else "x", "w"], [target], f"m{i}")
        )
    value = TensorProto.FLOAT
    return make(nodes, [("x", value, ["n", width])], [("y", value, ["n", width])], {"w": weight})


def beats(stop: threading.Event, found: list[float]) -> None:
    while not stop.is_set():
        time.sleep(BEAT_S)
        found.append(time.perf_counter())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_heart_beats_while_it_runs(engine: str) -> None:
    """A thread that wakes each millisecond does so, during one run of a fifth of a second.

    With the interpreter's lock held it would not beat once. How often it does says more of
    the machine than of the engine, hence a fifth of what the same thread does on its own.
    """
    if engine not in {one.name for one in installed()}:
        pytest.skip(f"needs {engine}")
    with by_name(engine).open(heavy(), Setting(threads=1, streams=1)) as session:
        rows = 64
        while True:  # until one run is long enough, whatever the machine
            inputs = {"x": np.ones((rows, 768), np.float32)}
            session.execute(inputs)
            began = time.perf_counter()
            session.execute(inputs)
            if time.perf_counter() - began > 0.2 or rows >= 16384:
                break
            rows *= 2
        stop, found = threading.Event(), []
        heart = threading.Thread(target=beats, args=(stop, found))
        heart.start()
        try:
            time.sleep(0.2)
            alone_per_s = len(found) / 0.2
            began = time.perf_counter()
            session.execute(inputs)
            ended = time.perf_counter()
        finally:
            stop.set()
            heart.join()
    during = [one for one in found if began < one < ended]
    assert len(during) > 0.2 * alone_per_s * (ended - began)
