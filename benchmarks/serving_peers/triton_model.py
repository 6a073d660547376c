# SPDX-License-Identifier: Apache-2.0
"""The model as Triton's Python backend takes it; it becomes model.py of the repository."""

from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from ort_engine import OrtEngine, settings


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the model."""
        asked = settings()
        self.engine = OrtEngine(asked)
        self.input, self.output = asked["input"], asked["output"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Returns the answers to a batch of requests, run together."""
        rows = [triton.get_input_tensor_by_name(one, self.input).as_numpy() for one in requests]
        output = self.engine.run_array(rows[0] if len(rows) == 1 else np.concatenate(rows))
        parts = np.split(output, np.cumsum([len(one) for one in rows])[:-1])
        return [
            triton.InferenceResponse([triton.Tensor(self.output, np.ascontiguousarray(one))])
            for one in parts
        ]
