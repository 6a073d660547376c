# SPDX-License-Identifier: Apache-2.0
"""Metadata, configuration and statistics documents, rule by rule."""

from __future__ import annotations

import json

import pytest

from burnish.core.errors import Misuse
from burnish.core.model import Signature, TensorSpec
from burnish.serving.oip.metadata import (
    live_document,
    model_config,
    model_metadata,
    ready_document,
    server_metadata,
)
from burnish.serving.oip.statistics import (
    BatchStatistics,
    Duration,
    ModelStatistics,
    statistics_document,
)

SIGNATURE = Signature(
    (TensorSpec("x", "float32", ("N", 3, None)), TensorSpec("t", "object", ("N",))),
    (TensorSpec("y", "bfloat16", ("N", 10)),),
)


def test_health_documents() -> None:
    """Server Live, Server Ready and Model Ready Response JSON Objects."""
    assert live_document(True) == {"live": True}
    assert ready_document("m", False) == {"name": "m", "ready": False}


def test_server_metadata() -> None:
    """Server Metadata: name, version, and the extensions under the names they give themselves."""
    document = server_metadata("1.2")
    assert set(document) == {"name", "version", "extensions"}
    assert document["version"] == "1.2"
    assert {"binary_tensor_data", "classification", "model_configuration", "statistics"} <= set(
        document["extensions"]
    )


def test_model_metadata() -> None:
    """Model Metadata: datatypes of the table, -1 for sizes that vary, versions optional."""
    assert model_metadata("m", SIGNATURE, ["1"]) == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3, -1]},
            {"name": "t", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "datatype": "BF16", "shape": [-1, 10]}],
    }
    assert "versions" not in model_metadata("m", SIGNATURE)


def test_model_config() -> None:
    """Model Configuration: ModelConfig as JSON; with a batch size, dims are without the batch."""
    config = model_config("m", SIGNATURE, max_batch_size=8, streams=2, label_files=[("y", "l.txt")])
    assert config["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [3, -1]},
        {"name": "t", "data_type": "TYPE_STRING", "dims": []},
    ]
    assert config["output"] == [
        {"name": "y", "data_type": "TYPE_BF16", "dims": [10], "label_filename": "l.txt"}
    ]
    assert (config["max_batch_size"], config["instance_group"][0]["count"]) == (8, 2)
    whole = model_config("m", SIGNATURE)
    assert (whole["max_batch_size"], whole["input"][0]["dims"]) == (0, [-1, 3, -1])
    assert "dynamic_batching" not in whole


def test_a_fixed_batch_does_not_batch() -> None:
    """Model Configuration: max_batch_size is for models whose first dimension is the batch."""
    fixed = Signature((TensorSpec("x", "float32", (1, 3)),), ())
    with pytest.raises(Misuse, match="first dimension that varies"):
        model_config("m", fixed, max_batch_size=2)


def test_statistics() -> None:
    """Statistics: model_stats with counts, durations in nanoseconds, and one row a batch size."""
    model = ModelStatistics(
        "m", "1", 1_700_000_000_000, inference_count=9, execution_count=2, queue=Duration(9, 50),
        batches=(BatchStatistics(8, compute_infer=Duration(1, 30)), BatchStatistics(1)),
    )  # fmt: skip
    (stats,) = json.loads(json.dumps(statistics_document([model])))["model_stats"]
    assert set(stats) == {
        "name", "version", "last_inference", "inference_count", "execution_count",
        "inference_stats", "batch_stats",
    }  # fmt: skip
    assert set(stats["inference_stats"]) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    }  # fmt: skip
    assert stats["inference_stats"]["queue"] == {"count": 9, "ns": 50}
    assert [row["batch_size"] for row in stats["batch_stats"]] == [1, 8]
    assert stats["batch_stats"][1]["compute_infer"] == {"count": 1, "ns": 30}
    assert "version" not in statistics_document([ModelStatistics("m")])["model_stats"][0]
