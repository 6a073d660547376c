# SPDX-License-Identifier: Apache-2.0
"""Inference by JSON, and class names: each test names the rule that it checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oip_asking import ASK, HEADER, INFER, infer, outputs, refused
from raw_http import Wire, post, tensor
from shelf import LABELS, X
from small_models import random_inputs, two_inputs

from burnish.core.candidate import Setting
from burnish.engines.onnxruntime import OnnxRuntime

# Inference: JSON.


def test_json_both_ways(line: Wire) -> None:
    """$inference_response: model_name, model_version, outputs with name, shape, datatype, data."""
    answer = infer(line, ASK)
    assert answer.headers["content-type"] == "application/json"
    assert HEADER.lower() not in answer.headers
    assert answer.json == {
        "model_name": "double",
        "model_version": "10",
        "outputs": [
            {"name": "scores", "shape": [1, 3], "datatype": "FP32", "data": [2, 10, 6]},
            {"name": "most", "shape": [1], "datatype": "INT64", "data": [1]},
        ],
    }


def test_version_in_the_path(line: Wire) -> None:
    """v2/models/NAME/versions/VERSION/infer asks that version; without, the latest answers."""
    answer = infer(line, ASK, "/v2/models/double/versions/9/infer")
    assert answer.json["model_version"] == "9"
    assert infer(line, ASK).json["model_version"] == "10"


@pytest.mark.parametrize("identifier", ["7", "", 'é\n"', "x" * 1000])
def test_id_is_given_back(line: Wire, identifier: str) -> None:
    """The id of a request is that of its response; without one, the response has none."""
    assert infer(line, {"id": identifier, **ASK}).json["id"] == identifier
    assert "id" not in infer(line, ASK).json


def test_nested_data(line: Wire) -> None:
    """Tensor data may be nested as the shape says, or flat in row-major order."""
    two = {"name": "x", "shape": [2, 3], "datatype": "FP32"}
    flat = infer(line, {"inputs": [two | {"data": [1, 2, 3, 4, 5, 6]}]}).json["outputs"]
    assert infer(line, {"inputs": [two | {"data": [[1, 2, 3], [4, 5, 6]]}]}).json["outputs"] == flat
    refused(infer(line, {"inputs": [two | {"data": [[1, 2], [3, 4], [5, 6]]}]}))


def test_requested_outputs(line: Wire) -> None:
    """Only the outputs that are asked for are given, in the order asked; none given: all."""
    assert list(outputs(infer(line, ASK | {"outputs": [{"name": "most"}]}))) == ["most"]
    both = ASK | {"outputs": [{"name": "most"}, {"name": "scores"}]}
    assert list(outputs(infer(line, both))) == ["most", "scores"]
    assert set(outputs(infer(line, ASK | {"outputs": []}))) == {"scores", "most"}
    assert "'nope'" in refused(infer(line, ASK | {"outputs": [{"name": "nope"}]}))
    refused(infer(line, ASK | {"outputs": [{"name": "most"}, {"name": "most"}]}))


def test_unknown_keys_are_passed_over(line: Wire) -> None:
    """Keys and parameters that are not known change nothing."""
    entry = {**ASK["inputs"][0], "note": [1], "parameters": {"mine": "x"}}
    answer = infer(line, {"inputs": [entry], "more": {"a": None}, "parameters": {"b": 1.5}})
    assert outputs(answer) == {"scores": [2, 10, 6], "most": [1]}


def test_several_inputs_and_outputs(line: Wire) -> None:
    """Inputs are known by name, in any order; the answer is the model's own."""
    arrays = random_inputs(two_inputs(), 2)
    inputs = [
        tensor(arrays["mask"], "BOOL", "mask"),
        tensor(arrays["ids"], "INT64", "ids"),
    ]
    expected = OnnxRuntime().open(two_inputs(), Setting(1, 1)).run(arrays)
    answer = outputs(infer(line, {"inputs": inputs}, "/v2/models/pair/infer"))
    np.testing.assert_allclose(answer["pooled"], expected["pooled"].ravel(), rtol=1e-5)
    assert answer["answer"] == expected["answer"].tolist()
    told = refused(infer(line, {"inputs": inputs[:1]}, "/v2/models/pair/infer"))
    assert "missing input" in told
    told = refused(
        infer(line, {"inputs": [*inputs, tensor(X, "FP32", "z")]}, "/v2/models/pair/infer")
    )
    assert "unknown input 'z'" in told


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"timeout": 10_000_000}, 200),
        ({"timeout": 0, "priority": 0}, 200),
        ({"priority": 2}, 200),
        ({"timeout": 1}, 504),
        ({"timeout": -1}, 400),
        ({"timeout": 1.5}, 400),
        ({"timeout": True}, 400),
        ({"priority": "high"}, 400),
        ({"sequence_id": 3, "sequence_start": True}, 200),
        ({"x": None}, 400),
        ({"x": [1]}, 400),
        ({"x": {}}, 400),
        ([], 400),
    ],
)
def test_parameters(line: Wire, parameters: Any, status: int) -> None:
    """Parameters are strings, numbers or booleans; timeout is in microseconds."""
    answer = infer(line, ASK | {"parameters": parameters})
    assert answer.status == status, answer.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"inputs": {}}',
        b'{"inputs": [3]}',
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, NaN, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32"}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP31", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "INT64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []}]}',
        b'{"inputs": [{"name": "x", "shape": [-1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}',
        b'{"id": 3, "inputs": []}',
    ],
)
def test_errors_are_objects_with_4xx(line: Wire, body: bytes) -> None:
    """A request that cannot be taken is 400 with {"error": …}; the connection goes on."""
    refused(line.send(post(INFER, body)).answer())
    assert infer(line, ASK).status == 200


# Classification.


@pytest.mark.parametrize("binary", [True, False])
def test_classification(line: Wire, binary: bool) -> None:
    """classification: N gives the N highest as BYTES "value:index:label", highest first."""
    parameters = {"classification": 2, "binary_data": binary}
    answer = infer(line, ASK | {"outputs": [{"name": "scores", "parameters": parameters}]})
    assert LABELS[1:] == ("dog", "owl")
    expected = [b"10.0:1:dog", b"6.0:2:owl"]
    got = outputs(answer)["scores"]
    if binary:
        assert got == b"".join(len(one).to_bytes(4, "little") + one for one in expected)
    else:
        assert got == [one.decode() for one in expected]
        (described,) = answer.json["outputs"]
        assert (described["datatype"], described["shape"]) == ("BYTES", [1, 2])


@pytest.mark.parametrize("count", [0, 4, -1, "2", 1.0])
def test_classification_must_fit(line: Wire, count: Any) -> None:
    """classification is a whole number, at most that of the classes."""
    wanted = [{"name": "scores", "parameters": {"classification": count}}]
    refused(infer(line, ASK | {"outputs": wanted}))
