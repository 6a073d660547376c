# SPDX-License-Identifier: Apache-2.0
"""Requests with binary tensors (Binary Tensor Data extension); each docstring names the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oip_messages import behind, body, entry, fault, refused

from burnish.serving.oip.framing import HEADER
from burnish.serving.oip.request import InferRequest, decode_request, encode_request

BINARY_EXAMPLE = {
    "model_name": "mymodel",
    "inputs": [
        {
            "name": "input0",
            "shape": [2, 2],
            "datatype": "UINT32",
            "parameters": {"binary_data_size": 16},
        },
        {
            "name": "input1",
            "shape": [3],
            "datatype": "BOOL",
            "parameters": {"binary_data_size": 3},
        },
    ],
    "outputs": [{"name": "output0", "parameters": {"binary_data": True}}],
}


def test_binary_inputs() -> None:
    """Binary Tensor Data: little-endian, row-major, behind the JSON in the order listed."""
    rest = b"".join(i.to_bytes(4, "little") for i in (1, 2, 3, 4)) + b"\1\0\1"
    content, length = behind(BINARY_EXAMPLE, rest)
    request = decode_request(content, str(length))
    np.testing.assert_array_equal(request.inputs[0].array, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(request.inputs[1].array, [True, False, True])
    assert request.outputs[0].binary


def test_binary_tensors_are_views() -> None:
    """No copy is made of a binary tensor, whatever its alignment."""
    content, length = behind({"inputs": [entry(parameters={"binary_data_size": 8})]}, bytes(8))
    changing = bytearray(content)
    x = decode_request(changing, length).inputs[0].array
    changing[-4:] = np.float32(2.5).tobytes()
    assert x.tolist() == [0.0, 2.5]
    assert not decode_request(content, length).inputs[0].array.flags.writeable


def test_mixed_inputs() -> None:
    """Binary Tensor Data: an input without binary_data_size has its data in the JSON."""
    listed = [
        entry(data=[1, 2]) | {"name": "json"},
        entry("INT8", [2], parameters={"binary_data_size": 2}),
    ]
    content, length = behind({"inputs": listed}, b"\1\xff")
    request = decode_request(content, length)
    assert [tensor.binary for tensor in request.inputs] == [False, True]
    assert [tensor.array.tolist() for tensor in request.inputs] == [[1, 2], [1, -1]]


def test_bytes_in_binary() -> None:
    """Binary Tensor Data: a BYTES element is a 4-byte length and that many bytes."""
    rest = b"\2\0\0\0ab" + b"\0\0\0\0" + b"\1\0\0\0\xff"
    tensor = entry("BYTES", [3], parameters={"binary_data_size": len(rest)})
    content, length = behind({"inputs": [tensor]}, rest)
    assert decode_request(content, length).inputs[0].array.tolist() == [b"ab", b"", b"\xff"]


@pytest.mark.parametrize(
    ("count", "rest", "words"),
    [
        (1, b"\0\0\0", "got 3 bytes in all"),
        (1, b"\5\0\0\0ab", "says that it has 5 bytes, and 2 are left"),
        (1, b"\xff\xff\xff\xff", "4294967295 bytes, and 0 are left"),
        (2, b"\4\0\0\0\0\0\0\0", "end before the length of element 1"),
        (1, b"\0\0\0\0x", "expected 4 bytes for 1 elements, got 5"),
        (0, b"x", "expected 0 bytes"),
    ],
)
def test_bad_bytes_in_binary(count: int, rest: bytes, words: str) -> None:
    """Binary Tensor Data: lengths and elements fill the section, no more and no less."""
    tensor = entry("BYTES", [count], parameters={"binary_data_size": len(rest)})
    assert words in str(fault(*behind({"inputs": [tensor]}, rest)))


def test_bool_in_binary() -> None:
    """Binary Tensor Data: true is a byte 1, false a byte 0, and nothing else is a BOOL."""
    tensor = entry("BOOL", parameters={"binary_data_size": 2})
    assert "got 2" in str(fault(*behind({"inputs": [tensor]}, b"\1\2")))


@pytest.mark.parametrize(
    ("size", "rest", "words"),
    [
        (8, bytes(7), "binary_data_size is 8, and 7 bytes are left"),
        (8, bytes(9), "add up to, got 9"),
        (7, bytes(7), "expected 8 bytes for FP32 of shape [2], got 7"),
        (0, b"", "expected 8 bytes for FP32 of shape [2], got 0"),
        (-8, bytes(8), "whole number of 0 or more"),
        (8.0, bytes(8), "whole number of 0 or more"),
        (True, bytes(8), "whole number of 0 or more"),
        ("8", bytes(8), "whole number of 0 or more"),
        (2**63, bytes(8), "8 bytes are left"),
    ],
)
def test_binary_data_size(size: Any, rest: bytes, words: str) -> None:
    """Binary Tensor Data: binary_data_size is an int64, and the body has exactly those bytes."""
    content, length = behind({"inputs": [entry(parameters={"binary_data_size": size})]}, rest)
    assert words in str(fault(content, length))


def test_header_is_needed() -> None:
    """Binary Tensor Data: with any binary data the header must be provided."""
    content = body([entry(parameters={"binary_data_size": 8})])
    assert f"the header {HEADER} is not" in str(fault(content))


def test_header_without_binary_data() -> None:
    """Binary Tensor Data: the header gives the length of the JSON, binary data or not."""
    content = body([entry(data=[1, 2])])
    assert decode_request(content, len(content)).inputs[0].array.tolist() == [1, 2]
    assert "got 1" in str(fault(content + b"x", len(content)))


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "0x1", "٣", b"\xb2", "1" * 30, "15"])
def test_bad_headers(value: Any) -> None:
    """Binary Tensor Data: the header is a whole number within the body's length."""
    assert str(fault(b'{"inputs": []}', value)).startswith(HEADER)


def test_data_once() -> None:
    """Request Input and Binary Tensor Data: data, or binary_data_size; not both, not neither."""
    both = entry(data=[1, 2], parameters={"binary_data_size": 8})
    assert "got both" in str(fault(*behind({"inputs": [both]}, bytes(8))))
    assert "got neither" in refused(entry())


def test_binary_data_output() -> None:
    """Binary Tensor Data: binary_data_output is for all outputs, binary_data overrides it."""
    outputs = [
        {"name": "a"},
        {"name": "b", "parameters": {"binary_data": False}},
        {"name": "c", "parameters": {"binary_data": True}},
    ]
    for overall, expected in ((True, [True, False, True]), (False, [False, False, True])):
        content = body([], outputs=outputs, parameters={"binary_data_output": overall})
        assert [output.binary for output in decode_request(content).outputs] == expected
    request = decode_request(body([], parameters={"binary_data_output": True}))
    assert [output.binary for output in request.wanted(("a", "b"))] == [True, True]


@pytest.mark.parametrize("value", [1, 0, "true"])
def test_binary_flags_are_booleans(value: Any) -> None:
    """Binary Tensor Data: binary_data and binary_data_output are booleans."""
    assert "binary_data_output" in str(fault(body([], parameters={"binary_data_output": value})))
    output = {"name": "y", "parameters": {"binary_data": value}}
    assert "output 'y': expected true or false" in str(fault(body([], outputs=[output])))


def test_encode_gives_the_headers() -> None:
    """Binary Tensor Data: Content-Length is the whole body, the header the JSON alone."""
    content, length = behind(BINARY_EXAMPLE, bytes(19))
    encoded = encode_request(decode_request(content, length))
    assert int(encoded.headers["Content-Length"]) == sum(map(len, encoded.buffers))
    assert int(encoded.headers[HEADER]) == len(encoded.buffers[0]) == encoded.nbytes - 19
    assert encoded.headers["Content-Type"] == "application/octet-stream"
    assert HEADER not in encode_request(InferRequest(())).headers
