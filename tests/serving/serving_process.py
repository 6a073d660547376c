# SPDX-License-Identifier: Apache-2.0
"""`burnish serve` as a process, and clients that ask it all the time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from raw_http import Answered, post, tensor, wire
from shelf import X
from small_models import make

from burnish.core.model import Model

PROGRAM = [sys.executable, "-c", "from burnish.cli.app import main; main()", "serve"]
GOOD = json.dumps({"inputs": [tensor(X, "FP32")]}).encode()
INFER = "/v2/models/net/infer"


def times(factor: float) -> Model:
    """Returns a model that answers scores = factor x."""
    weights = {"factor": np.float32(factor)}
    return make(
        [helper.make_node("Mul", ["x", "factor"], ["scores"], "times")],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("scores", TensorProto.FLOAT, ["batch", 3])],
        {name: np.asarray(value) for name, value in weights.items()},
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Process:
    """The command, its output line by line."""

    def __init__(self, folder: Path, *args: object) -> None:
        self.run = subprocess.Popen(
            [*PROGRAM, *map(str, args)],
            cwd=folder,
            env={**os.environ, "COLUMNS": "120", "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> Process:
        """Waits for the line that says that it is ready."""
        assert self.run.stdout is not None
        lines = []
        patience = threading.Timer(60, self.run.kill)
        patience.start()
        try:
            for line in self.run.stdout:
                lines.append(line)
                if line.startswith("ready at "):
                    return self
        finally:
            patience.cancel()
        _, errors = self.run.communicate(timeout=30)
        raise AssertionError("".join(lines) + errors)

    def stop(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends the signal, and returns exit code and what came on standard error."""
        self.run.send_signal(how)
        _, errors = self.run.communicate(timeout=60)
        return self.run.returncode, errors


def configured(folder: Path, port: int, *more: str) -> Path:
    """Writes a configuration for the bundle `net` in the folder."""
    lines = [f"port = {port}", "grpc_port = false", "health_port = false", "drain_s = 0.3", *more]
    file = folder / "serve.toml"
    file.write_text("\n".join(["[server]", *lines, "[models.net]", 'path = "net"', ""]))
    return file


def asked(port: int, body: bytes = GOOD) -> Answered:
    """Asks on a connection of its own, once."""
    with wire(port, 30) as line:
        return line.send(post(INFER, body)).answer()


class Clients:
    """Threads that ask on new connections, again and again, and never twice for one answer."""

    def __init__(self, port: int, right: tuple[float, ...], n: int = 4) -> None:
        self.seen: Counter[str] = Counter()
        self._port, self._right = port, right
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(n)]

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                answer = asked(self._port)
                if answer.status != 200:
                    self.seen[f"{answer.status} {answer.body[:80]!r}"] += 1
                    continue
                data = answer.json["outputs"][0]["data"]
                factors = [one for one in self._right if data == (one * X).ravel().tolist()]
                self.seen[f"{factors[0]:g}" if factors else f"wrong: {data}"] += 1
            except (OSError, EOFError) as error:
                self.seen[repr(error)] += 1

    def __enter__(self) -> Clients:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def past(self, n: int, key: str | None = None) -> None:
        """Waits until so many more were answered."""

        def count() -> int:
            return self.seen.total() if key is None else self.seen[key]

        least, until = count() + n, time.monotonic() + 30
        while count() < least:
            assert time.monotonic() < until, self.seen
            time.sleep(0.005)
