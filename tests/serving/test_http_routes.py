# SPDX-License-Identifier: Apache-2.0
"""The routes besides infer: each test names the rule that it checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oip_asking import ASK, INFER, infer, outputs, refused
from raw_http import Wire, get, post, tensor, wire
from shelf import shelf

from burnish.serving.http.policy import Policy

# Routes: health, metadata, configuration, statistics, index.


def test_server_live_and_ready(line: Wire) -> None:
    """GET v2/health/live and v2/health/ready answer 200."""
    assert line.send(get("/v2/health/live")).answer().json == {"live": True}
    assert line.send(get("/v2/health/ready")).answer().json == {"live": True, "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/net/ready", "/v2/models/double/versions/9/ready"])
def test_model_ready(line: Wire, path: str) -> None:
    """GET v2/models/NAME[/versions/VERSION]/ready answers 200."""
    answer = line.send(get(path)).answer()
    assert (answer.status, answer.json["ready"]) == (200, True)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(line: Wire, path: str) -> None:
    """GET v2 gives name, version and extensions."""
    document = line.send(get(path)).answer().json
    assert set(document) == {"name", "version", "extensions"}
    assert set(document["extensions"]) == {
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "statistics",
    }


def test_model_metadata(line: Wire) -> None:
    """GET v2/models/NAME gives name, versions, platform, inputs and outputs; -1 varies."""
    assert line.send(get("/v2/models/double")).answer().json == {
        "name": "double",
        "versions": ["1", "9", "10"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "most", "datatype": "INT64", "shape": [-1]},
        ],
    }
    assert line.send(get("/v2/models/double/versions/9")).answer().json["name"] == "double"


def test_model_configuration(line: Wire) -> None:
    """GET v2/models/NAME[/versions/VERSION]/config gives the model's configuration."""
    config = line.send(get("/v2/models/double/config")).answer().json
    assert config["max_batch_size"] == 4096
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]
    assert config == line.send(get("/v2/models/double/versions/10/config")).answer().json
    text = line.send(get("/v2/models/bytes/config")).answer().json
    assert text["output"][0]["data_type"] == "TYPE_STRING"


def test_statistics_count_requests_and_rows(line: Wire) -> None:
    """GET v2/models/NAME[/versions/VERSION]/stats: inference_count is rows, success requests."""

    def of_pair() -> Any:
        return line.send(get("/v2/models/pair/versions/1/stats")).answer().json["model_stats"][0]

    before = of_pair()
    ask = {
        "inputs": [
            tensor(np.zeros((3, 2), np.int64), "INT64", "ids"),
            tensor(np.ones((3, 2), np.bool_), "BOOL", "mask"),
        ]
    }
    assert infer(line, ask, "/v2/models/pair/infer").status == 200
    after = of_pair()
    assert (after["name"], after["version"]) == ("pair", "1")
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    stats, earlier = after["inference_stats"], before["inference_stats"]
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert stats[stage]["count"] - earlier[stage]["count"] == 1
        assert stats[stage]["ns"] > earlier[stage]["ns"] or stage == "queue"
    assert after["last_inference"] > before["last_inference"]
    assert after["batch_stats"][-1]["batch_size"] == 3


def test_statistics_of_all_models(line: Wire) -> None:
    """GET v2/models/stats gives those of all models, each version on its own."""
    listed = line.send(get("/v2/models/stats")).answer().json["model_stats"]
    found = {(one["name"], one["version"]) for one in listed}
    assert {("double", "1"), ("double", "9"), ("double", "10"), ("net", "1")} <= found


def test_repository_index(line: Wire) -> None:
    """POST v2/repository/index lists models with state; {"ready": true} those that are ready."""
    for body in (b"", b"{}", b'{"ready": true}'):
        listed = line.send(post("/v2/repository/index", body)).answer().json
        assert {"name": "net", "version": "1", "state": "READY", "reason": ""} in listed
    refused(line.send(post("/v2/repository/index", b"{")).answer())


@pytest.mark.parametrize("what", ["load", "unload"])
def test_repository_control_is_off(line: Wire, what: str) -> None:
    """POST v2/repository/models/NAME/load is refused unless the server was told to allow it."""
    told = refused(line.send(post(f"/v2/repository/models/net/{what}", b"{}")).answer(), 403)
    assert "--repository-control" in told


def test_a_load_takes_no_configuration() -> None:
    """A model's config or files in a load's parameters are refused, not passed over."""
    body = b'{"parameters": {"config": "{}"}}'
    with shelf(policy=Policy(repository_control=True)) as one, wire(one.port) as line:
        assert line.send(post("/v2/repository/models/double/load", b"{}")).answer().status == 200
        answer = line.send(post("/v2/repository/models/double/load", body)).answer()
        assert "give no parameters" in refused(answer)


# Routes that are not there, and methods.


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/nope",
        "/v2/models/nope/ready",
        "/v2/models/nope/config",
        "/v2/models/nope/stats",
        "/v2/models/net/versions/7",
        "/v2/models/net/versions/7/ready",
        "/v2/models/net/versions",
        "/v2/models/net/nope",
        "/v2/models",
        "/v2/models/",
        "/v2/health",
        "/v2/health/nope",
        "/v2/repository/nope",
        "/v3",
        "/nope",
        "/v2/models/ne%2574",
        "/v2/models/%ff",
        "/v2/models/net%0aready",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_404_for_what_is_not_there(line: Wire, path: str, method: str) -> None:
    """A path that is not there is 404 whatever the method: 404 comes before 405."""
    refused(line.send(get(path, method=method)).answer(), 404)


@pytest.mark.parametrize(
    "path", ["/v2/models/nope/infer", "/v2/models/net/versions/7/infer", "/v2/models/net/x/infer"]
)
def test_404_for_asking_what_is_not_there(line: Wire, path: str) -> None:
    """POST to a model or version that is not known is 404, and the connection goes on."""
    refused(infer(line, ASK, path), 404)
    assert outputs(infer(line, ASK)) == {"scores": [2, 10, 6], "most": [1]}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", INFER, "POST"),
        ("HEAD", INFER, "POST"),
        ("PUT", "/v2/models/double/versions/9/infer", "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("GET", "/v2/repository/models/net/load", "POST"),
        ("POST", "/v2/models/net", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2", "GET, HEAD"),
        ("OPTIONS", "/v2/models/net/config", "GET, HEAD"),
    ],
)
def test_405_for_other_methods(line: Wire, method: str, path: str, allow: str) -> None:
    """Another method than the route's is 405 with Allow (RFC 9110, 15.5.6)."""
    answer = line.send(get(path, method=method)).answer(method)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/v2/models/net", "/nope"])
def test_head_is_get_without_a_body(line: Wire, path: str) -> None:
    """HEAD answers with GET's status and headers, and no body (RFC 9110, 9.3.2)."""
    whole = line.send(get(path)).answer()
    head = line.send(get(path, method="HEAD")).answer("HEAD")
    assert head.status == whole.status
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]
    assert line.send(get(path)).answer().status == whole.status  # nothing was left over
