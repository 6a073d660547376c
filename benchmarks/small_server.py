# SPDX-License-Identifier: Apache-2.0
"""A bundle of a small network, and `burnish serve` as a process that serves it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from burnish.core.bundle import Bundle
from burnish.core.model import Model

PATH = "/v2/models/net/infer"


def weight(seed: int = 0) -> np.ndarray:
    """Returns what the network multiplies by, (8, 4)."""
    return np.random.default_rng(seed).normal(0, 1, (8, 4)).astype(np.float32)


def is_product(got: list[float], rows: np.ndarray, seed: int = 0) -> bool:
    """Says whether an answer is the network's."""
    expected = (rows.astype(np.float64) @ weight(seed).astype(np.float64)).ravel()
    return len(got) == expected.size and bool(np.allclose(got, expected, rtol=1e-4, atol=1e-4))


def write_bundle(folder: Path, seed: int = 0) -> Path:
    """Writes a bundle of y = x w, (batch, 8) to (batch, 4)."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight(seed), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    file = folder.with_suffix(".onnx")
    file.write_bytes(proto.SerializeToString())
    model = Model.load(file)
    rows = [
        {"batch_size": size, "threads": 1, "streams": 1, "latency_ms": 0.1 + size / 100}
        | {"samples_per_s": 1e3, "low": 1.0, "high": 1e6}
        for size in (1, 8)
    ]
    plan = {"engine": "onnxruntime", "threads": 1, "streams": 1, "latency_by_batch": rows}
    manifest = {"plan": plan, "preprocessing": None, "classes": []}
    return Bundle.write(folder, model, model, manifest, {}).path


class Server:
    """The command as a process, ready."""

    def __init__(self, *words: object) -> None:
        program = ["-c", "from burnish.cli.app import main; main()", "serve", *map(str, words)]
        self.process = subprocess.Popen(
            [sys.executable, *program, "--log-level", "error"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready at "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        raise SystemExit("the server did not start")

    def resident_bytes(self) -> int:
        """Returns the memory that it and its own processes hold."""
        own = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))

    def stop(self) -> int:
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
