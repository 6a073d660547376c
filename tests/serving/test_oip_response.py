# SPDX-License-Identifier: Apache-2.0
"""Responses of the Open Inference Protocol; each test's docstring names the rule it checks."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from oip_messages import body

from burnish.serving.oip.classification import classify
from burnish.serving.oip.faults import Fault, error_body
from burnish.serving.oip.framing import HEADER, Encoded
from burnish.serving.oip.request import decode_request
from burnish.serving.oip.response import (
    InferResponse,
    Tensor,
    decode_error,
    decode_response,
    encode_response,
    respond,
)


def document(encoded: Encoded) -> Any:
    return json.loads(bytes(encoded.buffers[0]))


def answer(arrays: dict[str, np.ndarray], **request: Any) -> Encoded:
    return encode_response(respond(decode_request(body([], **request)), arrays, "m"))


def test_response_object() -> None:
    """Inference Response JSON Object: the request's id, and outputs in flat JSON by default."""
    y = np.array([[1.0, 1.5], [2.0, 2.5]], np.float32)
    encoded = answer({"y": y}, id="42")
    assert document(encoded) == {
        "model_name": "m",
        "id": "42",
        "outputs": [{"name": "y", "shape": [2, 2], "datatype": "FP32", "data": [1, 1.5, 2, 2.5]}],
    }
    assert encoded.header_length is None
    assert encoded.headers["Content-Type"] == "application/json"


def test_optional_keys() -> None:
    """Inference Response: id only if one was given, model_version only where there are some."""
    assert set(document(answer({}))) == {"model_name", "outputs"}
    versioned = document(encode_response(InferResponse("m", (), "3", parameters={"a": 1})))
    assert (versioned["model_version"], versioned["parameters"]) == ("3", {"a": 1})


def test_only_what_was_asked_for() -> None:
    """Request Output: the outputs that were named are returned, in that order."""
    arrays = {name: np.zeros(1, np.int8) for name in "abc"}
    names = [output["name"] for output in document(answer(arrays))["outputs"]]
    assert names == ["a", "b", "c"]
    chosen = document(answer(arrays, outputs=[{"name": "c"}, {"name": "a"}]))["outputs"]
    assert [output["name"] for output in chosen] == ["c", "a"]


def test_binary_outputs() -> None:
    """Binary Tensor Data: binary_data_size in the JSON, the bytes behind it in its order."""
    arrays = {
        "a": np.array([1, 2], np.uint16),
        "b": np.array([1.5], np.float32),
        "c": np.array([b"xy", b""], object),
    }
    outputs = [
        {"name": "c", "parameters": {"binary_data": True}},
        {"name": "b"},
        {"name": "a", "parameters": {"binary_data": True}},
    ]
    encoded = answer(arrays, outputs=outputs)
    assert b"".join(encoded.buffers[1:]) == b"\2\0\0\0xy\0\0\0\0" + b"\1\0\2\0"
    listed = document(encoded)["outputs"]
    assert listed[0]["parameters"] == {"binary_data_size": 10}
    assert "data" not in listed[0]
    assert listed[1]["data"] == [1.5]
    assert "parameters" not in listed[1]
    assert encoded.headers == {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(encoded.buffers[0]) + 14),
        HEADER: str(len(encoded.buffers[0])),
    }


def test_binary_outputs_are_views() -> None:
    """No copy is made of an output that lies in row-major order."""
    y = np.zeros(3, np.float32)
    encoded = answer({"y": y}, parameters={"binary_data_output": True})
    y[:] = 1
    assert bytes(encoded.buffers[1]) == y.tobytes()


@pytest.mark.parametrize(
    "y",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.arange(12, dtype=np.int32).reshape(6, 2)[::2],
        np.array(5, np.int32),
        np.zeros((0, 3), np.int32),
    ],
)
def test_binary_is_little_endian_and_row_major(y: np.ndarray) -> None:
    """Binary Tensor Data: little-endian, row-major, no stride and no padding."""
    encoded = answer({"y": y}, parameters={"binary_data_output": True})
    assert b"".join(encoded.buffers[1:]) == np.ascontiguousarray(y, "<i4").tobytes()
    assert encoded.header_length == len(encoded.buffers[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_nan_in_json(value: float) -> None:
    """JSON has no NaN and no infinities (RFC 8259, 6); binary data has."""
    y = np.array([0, value], np.float32)
    with pytest.raises(Fault, match=r"output 'y': expected finite values.*binary_data true"):
        answer({"y": y})
    assert answer({"y": y}, parameters={"binary_data_output": True}).buffers[1] == y.tobytes()


@pytest.mark.parametrize(
    "y",
    [
        np.array([0x7F81, 0x3F80], np.uint16).view(ml_dtypes.bfloat16),
        np.array([0x7C01, 0x3C00], np.uint16).view(np.float16),
        np.array([0x7F800001, 0x3F800000], np.uint32).view(np.float32),
    ],
)
def test_signalling_nan(y: np.ndarray) -> None:
    """A NaN of the signalling kind is refused and ranked as any other, without a warning."""
    with pytest.raises(Fault, match="expected finite values"):
        answer({"y": y})
    assert [value.split(b":")[1] for value in classify(y, 2)] == [b"1", b"0"]
    assert answer({"y": y}, parameters={"binary_data_output": True}).buffers[1] == y.tobytes()


def test_bytes_in_json_are_text() -> None:
    """JSON strings are Unicode: bytes that are not UTF-8 have to go as binary data."""
    assert document(answer({"y": np.array(["é".encode(), "b"], object)}))["outputs"][0]["data"] == [
        "é",
        "b",
    ]
    with pytest.raises(Fault, match="output 'y': element 0 is not UTF-8"):
        answer({"y": np.array([b"\xff"], object)})


def test_numpy_strings_are_bytes() -> None:
    """Tensor Data Types: strings of numpy's own go as BYTES."""
    output = document(answer({"y": np.array(["a", "bc"])}))["outputs"][0]
    assert (output["datatype"], output["data"]) == ("BYTES", ["a", "bc"])


def test_an_output_that_the_protocol_cannot_hold() -> None:
    """Tensor Data Types: there is none for complex numbers; that is not the client's fault."""
    with pytest.raises(Fault, match=r"output 'y'|tensor 'y'") as caught:
        answer({"y": np.zeros(1, np.complex64)})
    assert caught.value.status == 500


def test_classification_of_the_extension() -> None:
    """Classification: the example, without and with labels; the type is BYTES."""
    y = np.array([1.1, 3.3, 0.5, 2.4], np.float32)
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    output = document(answer({"y": y}, outputs=outputs))["outputs"][0]
    assert output == {
        "name": "y", "shape": [2], "datatype": "BYTES", "data": ["3.3:1", "2.4:3"],
    }  # fmt: skip
    request = decode_request(body([], outputs=outputs))
    labelled = respond(request, {"y": y}, "m", labels={"y": ["a", "b", "c", "d"]})
    assert labelled.outputs[0].array.tolist() == [b"3.3:1:b", b"2.4:3:d"]


def test_classification_of_a_batch() -> None:
    """Classification: the shape is [batch-size, count]; labels are optional by index."""
    y = np.array([[1, 5, 10, 4], [9, 8, 7, 6]], np.int64)
    assert classify(y, 2, ["zero", "one"]).tolist() == [
        [b"10:2", b"5:1:one"],
        [b"9:0:zero", b"8:1:one"],
    ]
    assert classify(y.reshape(2, 2, 2), 1).tolist() == [[b"10:2"], [b"9:0"]]
    assert classify(np.zeros((0, 4)), 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 255, 1], np.uint8), [b"255:1", b"1:2", b"0:0"]),
        (np.array([-128, 127, 0], np.int8), [b"127:1", b"0:2", b"-128:0"]),
        (np.array([2**64 - 1, 2**64 - 2], np.uint64), [b"18446744073709551615:0"]),
        (np.array([2**53, 2**53 + 1], np.int64), [b"9007199254740993:1"]),
        (np.array([False, True]), [b"1:1", b"0:0"]),
        (np.array([1.0, np.nan, -np.inf, np.inf]), [b"inf:3", b"1.0:0", b"-inf:2", b"nan:1"]),
        (np.array([2, 7, 7, 2], np.float16), [b"7.0:1", b"7.0:2", b"2.0:0", b"2.0:3"]),
        (np.array([3, 3, 3], np.int32), [b"3:0", b"3:1", b"3:2"]),
    ],
)
def test_classification_order(values: np.ndarray, expected: list[bytes]) -> None:
    """Classification: the highest values, compared in the output's own datatype."""
    assert classify(values, len(expected)).tolist() == expected


def test_classification_refuses() -> None:
    """Classification: the count dimension equals the count, so there have to be as many."""
    with pytest.raises(Fault, match=r"output 'y': expected a classification of at most 4.*got 5"):
        classify(np.zeros((2, 4)), 5, where="output 'y'")
    with pytest.raises(Fault, match="expected numbers to classify"):
        classify(np.array([b"a"], object), 1)


def test_responses_are_read_back() -> None:
    """Response Output: as Request Input, and the model's name may be missing (the examples)."""
    response = decode_response(
        b'{"outputs":[{"name":"y","shape":[1],"datatype":"INT8","data":[3]}]}'
    )
    assert response.outputs[0].array.tolist() == [3]
    for content in (b"{}", b'{"outputs": 3}', b'{"outputs": [], "model_name": 3}'):
        with pytest.raises(Fault):
            decode_response(content)


def test_errors_are_read_back() -> None:
    """Inference Response JSON Error Object: the text is under "error"."""
    error = decode_error(error_body(Fault("no", 413)), 413)
    assert (str(error), error.status) == ("no", 413)
    with pytest.raises(Fault):
        decode_error(b"<html>", 502)


def test_tensor_says_its_datatype() -> None:
    """Response Output: datatype and shape are the array's."""
    tensor = Tensor("y", np.zeros((2, 3), np.uint64))
    assert (tensor.datatype, tensor.shape) == ("UINT64", (2, 3))
