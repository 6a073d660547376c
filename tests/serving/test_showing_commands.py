# SPDX-License-Identifier: Apache-2.0
"""The command lines that the pages show, run against a server as a reader would run them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from onnx import TensorProto, helper
from running_server import Running, running
from serving_models import bundle

from burnish.core.model import Model
from burnish.serving.model_options import ModelOptions
from burnish.serving.showing.samples import BASE

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def _table() -> Model:
    """Returns a network of one layer: row (n, 4) to logits (n, 2)."""
    return small_models.make(
        [helper.make_node("Gemm", ["row", "w", "b"], ["logits"], "head")],
        [("row", TensorProto.FLOAT, ["batch", 4])],
        [("logits", TensorProto.FLOAT, ["batch", 2])],
        {"w": np.ones((4, 2), np.float32), "b": np.array([0, 1], np.float32)},
    )


def _run(server: Running, command: str) -> Any:
    """Returns what a command line printed, as JSON."""
    there = command.replace(BASE, f"http://{server.address}")
    done = subprocess.run(["sh", "-c", there], capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_they_are_answered(tmp_path: Path) -> None:
    paths = {
        "pictures": bundle(tmp_path / "pictures"),
        "pairs": bundle(tmp_path / "pairs", small_models.two_inputs()),
        "rows": bundle(
            tmp_path / "rows",
            _table(),
            preprocessing={"inputs": [{"input": "row", "kind": "table"}]},
            classes=["no", "yes"],
        ),
    }
    with running(*(ModelOptions(path, name) for name, path in paths.items())) as server:
        status, document = server.json("GET", "/status.json")
        assert status == 200
        for model in document["models"]:
            answer = _run(server, model["try"])
            assert answer["model_name"] == model["name"], answer
            assert answer["outputs"]
        _, document = server.json("GET", "/openapi.json")
        predict = document["paths"]["/v1/models/{name}/predict"]["post"]
        answers = {one["label"]: _run(server, one["source"]) for one in predict["x-codeSamples"]}
        assert set(answers) == {
            "pairs, application/json",
            "rows, text/csv",
            "rows, application/json",
        }
        assert answers["pairs, application/json"]["predictions"][0]["outputs"]
        assert answers["rows, text/csv"]["predictions"][0]["label"] == "yes"
        _, document = server.json("GET", "/status.json")
        assert all(model["answered"] for model in document["models"])
        status, headers, body = server.ask("GET", "/metrics")
        assert (status, headers["content-type"][:10]) == (200, "text/plain")
        assert b'burnish_requests_total{model="pairs",outcome="answered",version="1"}' in body
