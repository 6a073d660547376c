# SPDX-License-Identifier: Apache-2.0
"""What every peer serves with: ONNX Runtime as Burnish opens it, from tensor bytes to tensor bytes.

Runs in the peers' own environments, so it needs numpy and onnxruntime alone. A server gets
its settings as JSON in the environment variable SERVING_BENCH.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime

SPIN_US = 2000


def settings() -> dict[str, Any]:
    """Returns what this server was asked to do."""
    return dict(json.loads(os.environ["SERVING_BENCH"]))


class OrtEngine:
    """One session; options are those of Burnish's own engine."""

    def __init__(self, asked: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = asked["threads"]
        # Workers on all cores only harm each other by spinning; one alone gains by it.
        spins = asked["workers"] == 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        if spins:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
        onnxruntime.disable_telemetry_events()
        self._session = onnxruntime.InferenceSession(
            asked["model"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._shape = tuple(asked["shape"])
        for size in sorted({1, asked["max_batch"]}):
            self.run_array(np.zeros((size, *self._shape), np.float32))

    def run_array(self, batch: np.ndarray) -> np.ndarray:
        """Returns the output for a batch."""
        return np.asarray(self._session.run(self._outputs, {self._input: batch})[0])

    def run(self, bodies: list[bytes]) -> list[bytes]:
        """Returns the output's bytes for the float32 bytes of each sample."""
        rows = [np.frombuffer(body, np.float32).reshape(1, *self._shape) for body in bodies]
        output = self.run_array(rows[0] if len(rows) == 1 else np.concatenate(rows))
        return [row.tobytes() for row in output]
