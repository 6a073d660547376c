# SPDX-License-Identifier: Apache-2.0
"""The codec against an independent one: what `tritonclient` writes is read, and the reverse."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from oip_messages import DTYPES

from burnish.serving.oip.request import decode_request
from burnish.serving.oip.response import encode_response, respond

client = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


def example(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["é".encode(), b""], [b"abc", b"\0"]], object)
    if datatype == "BOOL":
        return np.array([[True, False], [False, True]])
    values = np.array([[0, 1], [2.5, 100]], np.float64)
    return values.astype(DTYPES[datatype])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", DTYPES)
def test_its_requests(datatype: str, binary: bool) -> None:
    """generate_request_body → decode_request, for each datatype and form that it writes."""
    if datatype == "BF16" and not binary:
        pytest.skip("the client sends BF16 as binary only")
    sent = example(datatype)
    x = client.InferInput("x", list(sent.shape), datatype).set_data_from_numpy(sent, binary)
    other = client.InferInput("n", [1], "INT64")
    other.set_data_from_numpy(np.array([2**62]), not binary)
    y = client.InferRequestedOutput("y", binary_data=binary, class_count=3)
    content, length = client.InferenceServerClient.generate_request_body(
        [x, other], [y], request_id="7", priority=2, timeout=1000, parameters={"a": "b"}
    )
    request = decode_request(content, length)
    assert request.id == "7"
    assert request.parameters == {"priority": 2, "timeout": 1000, "a": "b"}
    assert request.inputs[0].datatype == datatype
    assert request.inputs[0].array.tolist() == sent.tolist()
    assert request.inputs[1].array.tolist() == [2**62]
    assert (request.outputs[0].binary, request.outputs[0].classification) == (binary, 3)


def test_its_default_is_binary() -> None:
    """Without outputs the client asks for all of them as binary data."""
    x = client.InferInput("x", [1], "INT8").set_data_from_numpy(np.array([1], np.int8))
    request = decode_request(*client.InferenceServerClient.generate_request_body([x]))
    assert [output.binary for output in request.wanted(("a", "b"))] == [True, True]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", DTYPES)
def test_its_reading_of_responses(datatype: str, binary: bool) -> None:
    """encode_response → parse_response_body, next to an output in the other form."""
    sent = example(datatype)
    requested = [
        client.InferRequestedOutput("y", binary_data=binary),
        client.InferRequestedOutput("z", binary_data=not binary),
        client.InferRequestedOutput("top", binary_data=binary, class_count=1),
        client.InferRequestedOutput("none", binary_data=True),
    ]
    request = decode_request(
        *client.InferenceServerClient.generate_request_body([], requested, request_id="7")
    )
    arrays = {
        "y": sent,
        "z": np.array([-1, 5], np.int16),
        "top": np.array([[0.5, 1.5]], np.float32),
        "none": np.zeros((0, 2), ml_dtypes.bfloat16),
    }
    encoded = encode_response(respond(request, arrays, "m", "1", {"top": ["cat", "dog"]}))
    result = client.InferenceServerClient.parse_response_body(
        b"".join(encoded.buffers), header_length=encoded.header_length
    )
    assert result.get_response()["id"] == "7"
    got = result.as_numpy("y")
    if datatype == "BYTES" and not binary:
        assert got.tolist() == [[value.decode() for value in row] for row in sent.tolist()]
    else:
        assert got.tolist() == sent.tolist()
        assert got.dtype == sent.dtype
    assert result.as_numpy("z").tolist() == [-1, 5]
    label = result.as_numpy("top").tolist()[0][0]
    assert label in (b"1.5:1:dog", "1.5:1:dog")
    assert result.as_numpy("none").shape == (0, 2)
