# SPDX-License-Identifier: Apache-2.0
"""The protocol over a real connection, rule by rule.

Rules are those of the Open Inference Protocol, "HTTP/REST" (KServe), of Triton's extensions
to it, and of HTTP/1.1 (RFC 9110 and RFC 9112).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from grpc_running import ELEMENTS, example
from raw_http import Answered, Wire, get, post, tensor, wire
from shelf import LABELS, Shelf, X, shelf
from small_models import convolutional, random_inputs, two_inputs

from burnish.core.candidate import Setting
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.serving.http.app import Policy

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/double/infer"
ASK = {"inputs": [tensor(X, "FP32")]}
BINARY = {"parameters": {"binary_data": True}}


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with shelf() as one:
        yield one


@pytest.fixture
def line(served: Shelf) -> Iterator[Wire]:
    with wire(served.port) as one:
        yield one


def infer(line: Wire, document: Any, path: str = INFER, rest: bytes = b"", *more: str) -> Answered:
    """Asks with JSON, and with bytes behind it where there are any."""
    header = json.dumps(document).encode()
    length = (f"{HEADER}: {len(header)}",) if rest else ()
    return line.send(post(path, header + rest, *length, *more)).answer()


def outputs(answer: Answered) -> dict[str, Any]:
    """Returns the outputs of a response: lists of JSON, bytes of binary data."""
    assert answer.status == 200, answer.body
    length = int(answer.headers.get(HEADER.lower(), len(answer.body)))
    document, rest = json.loads(answer.body[:length]), answer.body[length:]
    found: dict[str, Any] = {}
    for one in document["outputs"]:
        if "data" in one:
            found[one["name"]] = one["data"]
        else:
            size = one["parameters"]["binary_data_size"]
            found[one["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return found


def refused(answer: Answered, status: int = 400) -> str:
    """Returns what an error says: an object with the one key "error"."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    return str(answer.json["error"])


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


# Inference: binary tensor data.


@pytest.mark.parametrize("datatype", list(ELEMENTS))
@pytest.mark.parametrize("into", ["json", "binary"])
@pytest.mark.parametrize("out", ["json", "binary"])
def test_every_datatype(line: Wire, datatype: str, into: str, out: str) -> None:
    """Each datatype passes through the model unchanged, in each form, both ways."""
    array = example(datatype)
    if "json" in (into, out):  # which has no NaN and infinity, and text only
        array = array[:, :2] if datatype != "BYTES" else array
        array = np.concatenate([array, array[:, :1]], axis=1)[:, :3]
        if datatype.startswith("FP"):
            array = np.nan_to_num(array, nan=2.0, posinf=1.0)
    if datatype == "BYTES":
        array = np.array([["é".encode(), b"", b"a"], [b"abc", b"\0z", b"x" * 300]], object)
        parts = [len(one).to_bytes(4, "little") + one for one in array.ravel()]
        raw, plain = b"".join(parts), [[one.decode() for one in row] for row in array]
    else:
        raw, plain = array.tobytes(), array.tolist()
    entry: dict[str, Any] = {"name": "x", "shape": [2, 3], "datatype": datatype}
    entry |= {"data": plain} if into == "json" else {"parameters": {"binary_data_size": len(raw)}}
    wanted = [{"name": "y", "parameters": {"binary_data": out == "binary"}}]
    answer = infer(
        line,
        {"inputs": [entry], "outputs": wanted},
        f"/v2/models/{datatype.lower()}/infer",
        raw if into == "binary" else b"",
    )
    [got] = outputs(answer).values()
    if out == "binary":
        assert answer.headers["content-type"] == "application/octet-stream"
        assert got == raw
    else:
        assert np.array(got).reshape(2, 3).tolist() == plain
    (described,) = json.loads(answer.body[: int(answer.headers.get(HEADER.lower(), 1 << 30))])[
        "outputs"
    ]
    assert (described["datatype"], described["shape"]) == (datatype, [2, 3])


def test_mixed_forms(line: Wire) -> None:
    """Binary and JSON tensors may stand in one request and in one response, in any order."""
    ids, mask = np.array([[1, 2, 3]]), np.array([[True, False, True]])
    inputs = [
        {
            "name": "ids",
            "shape": [1, 3],
            "datatype": "INT64",
            "parameters": {"binary_data_size": ids.nbytes},
        },
        tensor(mask, "BOOL", "mask"),
    ]
    wanted = [{"name": "answer"}, {"name": "pooled", **BINARY}]
    for ordered in (inputs, inputs[::-1]):
        answer = infer(
            line,
            {"inputs": ordered, "outputs": wanted},
            "/v2/models/pair/infer",
            ids.tobytes(),
        )
        expected = OnnxRuntime().open(two_inputs(), Setting(1, 1)).run({"ids": ids, "mask": mask})
        got = outputs(answer)
        assert got["answer"] == expected["answer"].tolist()
        pooled = np.frombuffer(got["pooled"], np.float32)
        np.testing.assert_allclose(pooled, expected["pooled"][0], rtol=1e-5)


def test_binary_sections_in_the_order_of_inputs(line: Wire) -> None:
    """Several binary inputs lie behind the JSON in the order in which they are listed."""
    arrays = random_inputs(two_inputs(), 2)

    def entry(name: str, datatype: str) -> dict[str, Any]:
        size = {"parameters": {"binary_data_size": arrays[name].nbytes}}
        return tensor(arrays[name], datatype, name, **size)

    listed = [entry("mask", "BOOL"), entry("ids", "INT64")]
    rest = arrays["mask"].tobytes() + arrays["ids"].tobytes()
    answer = infer(line, {"inputs": listed}, "/v2/models/pair/infer", rest)
    expected = OnnxRuntime().open(two_inputs(), Setting(1, 1)).run(arrays)
    assert outputs(answer)["answer"] == expected["answer"].tolist()


def test_binary_data_output_for_all(line: Wire) -> None:
    """binary_data_output of the request is the default of its outputs; each may differ."""
    all_ = ASK | {"parameters": {"binary_data_output": True}}
    got = outputs(infer(line, all_))
    assert got == {"scores": (2 * X).tobytes(), "most": np.int64(1).tobytes()}
    wanted = [{"name": "scores"}, {"name": "most", "parameters": {"binary_data": False}}]
    got = outputs(infer(line, all_ | {"outputs": wanted}))
    assert got == {"scores": (2 * X).tobytes(), "most": [1]}


def test_raw_binary_request(line: Wire) -> None:
    """Inference-Header-Content-Length: 0 says that the body is the one input's data."""
    image = random_inputs(convolutional(), 1)["image"]
    answer = line.send(
        post(
            "/v2/models/net/infer",
            image.tobytes(),
            f"{HEADER}: 0",
            "Content-Type: application/octet-stream",
        )
    ).answer()
    expected = OnnxRuntime().open(convolutional(), Setting(1, 1)).run({"image": image})["logits"]
    got = np.frombuffer(outputs(answer)["logits"], np.float32)
    np.testing.assert_allclose(got, expected[0], rtol=1e-4, atol=1e-5)
    short = post("/v2/models/net/infer", image.tobytes()[:-1], f"{HEADER}: 0")
    refused(line.send(short).answer())
    refused(line.send(post("/v2/models/pair/infer", b"123", f"{HEADER}: 0")).answer())


@pytest.mark.parametrize("value", ["-1", "1e3", "x", "99999", "0x10", "9" * 30, "1 1", ""])
def test_header_length_must_fit(line: Wire, value: str) -> None:
    """Inference-Header-Content-Length is a whole number that the body has room for."""
    body = json.dumps(ASK).encode()
    refused(line.send(post(INFER, body, f"{HEADER}: {value}")).answer())


@pytest.mark.parametrize("size", [11, 13, 0, -12, 2**63, "12", 12.0, True])
def test_binary_data_size_must_fit(line: Wire, size: Any) -> None:
    """binary_data_size is the number of bytes that shape and datatype need."""
    entry = tensor(X, "FP32", parameters={"binary_data_size": size})
    refused(infer(line, {"inputs": [entry]}, INFER, X.tobytes()))


def test_shared_memory_is_refused(line: Wire) -> None:
    """Shared memory is an extension that is not among those of the server."""
    entry = tensor(X, "FP32", parameters={"shared_memory_region": "r"})
    assert "shared memory" in refused(infer(line, {"inputs": [entry]}))
    wanted = [{"name": "scores", "parameters": {"shared_memory_region": "r"}}]
    refused(infer(line, ASK | {"outputs": wanted}))
    refused(line.send(get("/v2/systemsharedmemory/status")).answer(), 404)


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


# Compression.


def packed(data: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(data)
    if coding == "deflate":
        return zlib.compress(data)
    return zlib.compress(data)[2:-4]  # raw, as some clients send it


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests(line: Wire, coding: str, binary: bool) -> None:
    """Content-Encoding is of the whole body; the JSON's length is that before compression."""
    entry = tensor(X, "FP32", **({"parameters": {"binary_data_size": 12}} if binary else {}))
    header = json.dumps({"inputs": [entry]}).encode()
    headers = [f"Content-Encoding: {coding.split()[-1]}"]
    if binary:
        headers.append(f"{HEADER}: {len(header)}")
    body = packed(header + (X.tobytes() if binary else b""), coding)
    answer = line.send(post(INFER, body, *headers)).answer()
    assert outputs(answer) == {"scores": [2, 10, 6], "most": [1]}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("br, deflate;q=0.5", "deflate"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("GZIP", "gzip"),
    ],
)
def test_compressed_responses(line: Wire, accepted: str, coding: str | None) -> None:
    """Accept-Encoding is met where it can be; Content-Length is that of what is sent."""
    all_ = ASK | {"parameters": {"binary_data_output": True}}
    answer = infer(line, all_, INFER, b"", f"Accept-Encoding: {accepted}")
    assert answer.headers.get("content-encoding") == coding
    body = answer.body
    if coding is not None:
        body = zlib.decompress(body, 47 if coding == "gzip" else 15)
    got = outputs(Answered(answer.status, answer.headers, body))
    assert got["scores"] == (2 * X).tobytes()


def test_compression_of_what_is_none(line: Wire) -> None:
    """A body that is not what Content-Encoding says is 400, another coding 415."""
    body = json.dumps(ASK).encode()
    refused(line.send(post(INFER, body, "Content-Encoding: gzip")).answer())
    refused(line.send(post(INFER, gzip.compress(body)[:-9], "Content-Encoding: gzip")).answer())
    refused(line.send(post(INFER, body, "Content-Encoding: br")).answer(), 415)
    assert line.send(post(INFER, body, "Content-Encoding: identity")).answer().status == 200


# Large JSON, which goes another way.


@pytest.mark.parametrize("rows", [1, 2200])
def test_json_of_any_size(line: Wire, rows: int) -> None:
    """Small and large JSON are read and written alike."""
    array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 8
    answer = infer(line, {"id": "é", "inputs": [tensor(array, "FP32")]})
    got = outputs(answer)
    assert answer.json["id"] == "é"
    assert got["scores"] == (2 * array).ravel().tolist()
    assert got["most"] == [2] * rows
    broken = {"inputs": [tensor(array, "FP32") | {"shape": [rows, 4]}]}
    assert "elements" in refused(infer(line, broken))


# HTTP/1.1.


def test_keep_alive(line: Wire) -> None:
    """A connection serves one request after the other (RFC 9112, 9.3)."""
    for _ in range(5):
        assert infer(line, ASK).status == 200
        refused(infer(line, {}))
    answer = line.send(post(INFER, json.dumps(ASK).encode(), "Connection: close")).answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert line.ended()


def test_http_1_0(line: Wire) -> None:
    """An HTTP/1.0 request is answered, and its connection closed."""
    answer = line.send(post(INFER, json.dumps(ASK).encode(), version="1.0")).answer()
    assert outputs(answer)["most"] == [1]
    assert line.ended()


def test_pipelining(line: Wire) -> None:
    """Requests sent ahead are answered in their order (RFC 9112, 9.3.2)."""
    asks = []
    for i in range(20):
        document = {"id": str(i), "inputs": [tensor(X + i, "FP32")]}
        asks.append(post(INFER, json.dumps(document).encode()))
        asks.append(get("/v2/models/net"))
    line.send(*asks)
    for i in range(20):
        answer = line.answer()
        assert (answer.json["id"], outputs(answer)["scores"]) == (
            str(i),
            (2 * (X + i)).ravel().tolist(),
        )
        assert line.answer().json["name"] == "net"


def test_pipelining_large_bodies(line: Wire) -> None:
    """Bodies of several reads each, sent ahead, do not mix."""
    for i in range(4):
        array = np.full((40_000, 3), i, np.float32)
        entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
        wanted = [{"name": "scores", **BINARY}]
        header = json.dumps({"inputs": [entry], "outputs": wanted}).encode()
        line.send(post(INFER, header + array.tobytes(), f"{HEADER}: {len(header)}"))
    for i in range(4):
        got = np.frombuffer(outputs(line.answer())["scores"], np.float32)
        assert len(got) == 120_000
        assert (got == 2 * i).all()


def test_expect_100_continue(line: Wire) -> None:
    """Expect: 100-continue is answered with 100 before the body is sent (RFC 9110, 10.1.1)."""
    body = json.dumps(ASK).encode()
    head = post(INFER, b"", f"Content-Length: {len(body)}", "Expect: 100-continue")
    assert line.send(head).line() == b"HTTP/1.1 100 Continue\r\n"
    assert line.line() == b"\r\n"
    assert line.send(body).answer().status == 200


def test_expect_and_a_refusal(line: Wire) -> None:
    """A final answer comes instead of 100 where the body is not wanted, and the connection ends."""
    head = post("/v2/models/nope/infer", b"", "Content-Length: 10", "Expect: 100-continue")
    answer = line.send(head).answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    assert line.ended()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_request(line: Wire, size: int) -> None:
    """A body in chunks, of no declared length, with extensions and trailers (RFC 9112, 7.1)."""
    body = json.dumps(ASK).encode()
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    line.send(post(INFER, b"", "Transfer-Encoding: chunked"))
    for one in chunks:
        line.send(b"%x;name=value\r\n" % len(one), one, b"\r\n")
    assert line.send(b"0\r\nTrailer: x\r\n\r\n").answer().status == 200
    assert infer(line, ASK).status == 200


def test_chunked_binary_request(line: Wire) -> None:
    """Binary tensors behind JSON may come in chunks as well."""
    array = np.random.default_rng(0).random((30_000, 3), np.float32)
    entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
    wanted = [{"name": "scores", **BINARY}]
    header = json.dumps({"inputs": [entry], "outputs": wanted}).encode()
    body = header + array.tobytes()
    line.send(post(INFER, b"", "Transfer-Encoding: chunked", f"{HEADER}: {len(header)}"))
    for start in range(0, len(body), 50_000):
        one = body[start : start + 50_000]
        line.send(b"%X\r\n" % len(one), one, b"\r\n")
    got = outputs(line.send(b"0\r\n\r\n").answer())["scores"]
    assert got == (2 * array).tobytes()


def test_a_request_in_pieces(line: Wire) -> None:
    """A request may come byte by byte."""
    for one in post(INFER, json.dumps(ASK).encode()):
        line.send(bytes([one]))
    assert line.answer().status == 200


@pytest.mark.parametrize("identifier", ["abc-123", "\xe9", "x" * 200])
def test_request_id_header(line: Wire, identifier: str) -> None:
    """x-request-id is given back; without one, the server makes one."""
    answer = infer(line, ASK, INFER, b"", f"X-Request-Id: {identifier}")
    assert answer.headers["x-request-id"] == identifier
    one, other = infer(line, ASK), infer(line, {})
    assert one.headers["x-request-id"] != other.headers["x-request-id"]


def test_content_type_is_not_asked_for(line: Wire) -> None:
    """What a body is, the protocol's header says; clients send any Content-Type, or none."""
    for kind in ("application/json", "application/octet-stream", "text/plain"):
        assert infer(line, ASK, INFER, b"", f"Content-Type: {kind}").status == 200


def test_query_is_passed_over(line: Wire) -> None:
    """Triton's clients can send query parameters; none has a meaning."""
    assert infer(line, ASK, INFER + "?a=b").status == 200
    assert line.send(get("/v2/models/net?x")).answer().status == 200
