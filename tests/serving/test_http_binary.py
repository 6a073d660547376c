# SPDX-License-Identifier: Apache-2.0
"""Inference by binary tensor data: each test names the rule that it checks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from grpc_running import ELEMENTS, example
from oip_asking import ASK, BINARY, HEADER, INFER, infer, outputs, refused
from raw_http import Wire, get, post, tensor
from shelf import X
from small_models import convolutional, random_inputs, two_inputs

from burnish.core.candidate import Setting
from burnish.engines.onnxruntime import OnnxRuntime

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
