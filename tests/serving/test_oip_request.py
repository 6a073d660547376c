# SPDX-License-Identifier: Apache-2.0
"""Requests of the Open Inference Protocol; each test's docstring names the rule it checks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from oip_messages import DTYPES, behind, body, entry

from burnish.core.errors import Misuse
from burnish.serving.oip.faults import Fault, error_body
from burnish.serving.oip.framing import HEADER, Limits
from burnish.serving.oip.request import InferRequest, decode_request, encode_request


def array(tensor: dict[str, Any]) -> np.ndarray:
    return decode_request(body([tensor])).inputs[0].array


def fault(content: bytes, header_length: Any = None, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        decode_request(content, header_length, **options)
    assert caught.value.status in (400, 413)
    assert len(str(caught.value)) < 600
    return caught.value


def refused(tensor: dict[str, Any]) -> str:
    return str(fault(body([tensor])))


EXAMPLE = {
    "id": "42",
    "inputs": [
        {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
        {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
    ],
    "outputs": [{"name": "output0"}],
}


def test_request_object() -> None:
    """Inference Request JSON Object: id, inputs with name, shape, datatype and data, outputs."""
    request = decode_request(json.dumps(EXAMPLE).encode())
    assert request.id == "42"
    assert [tensor.name for tensor in request.inputs] == ["input0", "input1"]
    assert [tensor.datatype for tensor in request.inputs] == ["UINT32", "BOOL"]
    np.testing.assert_array_equal(request.inputs[0].array, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(request.inputs[1].array, [True, False, True])
    assert [output.name for output in request.outputs] == ["output0"]
    assert not request.outputs[0].binary


def test_optional_fields() -> None:
    """Inference Request: id, parameters and outputs are optional; no outputs mean all."""
    request = decode_request(body([entry(data=[1, 2])]))
    assert (request.id, request.outputs, request.parameters) == (None, (), {})
    assert [output.name for output in request.wanted(("a", "b"))] == ["a", "b"]


def test_unknown_keys_are_passed_over() -> None:
    """Binary Tensor Data, example: a request may carry keys that the object has not."""
    assert decode_request(body([entry(data=[1, 2], extra=[[{}]])], model_name="m")).inputs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b"{}", "no inputs"),
        (b'{"inputs": {}}', "expected an array"),
        (b'{"inputs": [1]}', "input 0: expected an object"),
        (b'{"inputs": []} x', "valid JSON"),
        (b'\xef\xbb\xbf{"inputs": []}', "valid JSON"),
        (b'{"inputs": [], "id": 42}', "id: expected a string"),
        (b'{"inputs": [], "id": "\\ud800"}', "half a surrogate pair"),
        (b'{"inputs": [], "outputs": 3}', "outputs: expected an array"),
        (b'{"inputs": [], "parameters": []}', "parameters that are an object"),
        (b'{"inputs": [{}]}', "input 0: name: expected a string"),
        (b'{"inputs": [{"name": ""}]}', "got an empty string"),
    ],
)
def test_malformed_objects(content: bytes, words: str) -> None:
    """Inference Request: each key has its JSON type."""
    assert words in str(fault(content))


def test_invalid_utf8() -> None:
    """HTTP/REST API uses JSON, which is UTF-8 (RFC 8259, 8.1)."""
    assert "not UTF-8: byte 12" in str(fault(b'{"inputs": "\xff"}'))


def test_a_key_that_comes_twice() -> None:
    """JSON objects have unique names (RFC 8259, 4): two meanings of one message are none."""
    assert "'inputs' twice" in str(fault(b'{"inputs": [], "a": 1, "inputs": []}'))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting(opening: bytes) -> None:
    """Nesting has a bound."""
    assert "nested too deep" in str(fault(opening * 100_000))


def test_huge_whole_numbers() -> None:
    """A number of very many digits is not converted, which would take quadratic time."""
    assert "valid JSON" in str(fault(b'{"inputs": ' + b"9" * 100_000 + b"}"))


def test_limits() -> None:
    """Beyond the limits the status is 413."""
    limits = Limits(json_bytes=100, tensors=1)
    assert fault(b" " * 101, limits=limits).status == 413
    assert fault(b'{"inputs": [{}, {}]}', limits=limits).status == 413


@pytest.mark.parametrize("which", ["inputs", "outputs"])
def test_names_are_unique(which: str) -> None:
    """Request Input and Request Output: a name identifies one tensor."""
    listed = [entry(data=[1, 2]), entry(data=[1, 2])]
    content = body(listed) if which == "inputs" else body([], outputs=listed)
    assert f"{which[:-1]} 'x' is given twice" in str(fault(content))


@pytest.mark.parametrize("datatype", ["fp32", "STRING", "", None, 3, [], {}, "FP8"])
def test_unknown_datatypes(datatype: Any) -> None:
    """Tensor Data Types: the datatypes are those of the table, and case-sensitive."""
    assert "input 'x': unknown datatype" in refused(entry(datatype, data=[1, 2]))


@pytest.mark.parametrize(
    "shape", [None, 2, "2", [-1], [2.0], [True, 2], ["2"], [None], [[2]], [1] * 65]
)
def test_bad_shapes(shape: Any) -> None:
    """Request Input: each dimension is a whole number of 0 or more."""
    assert refused(entry(shape=shape, data=[1, 2])).startswith("input 'x': ")


@pytest.mark.parametrize(
    "shape", [[2**64], [2**62, 4], [0, 2**63], [2**32, 2**32], [0, 2**40, 2**40]]
)
def test_shapes_that_overflow(shape: list[int]) -> None:
    """Request Input: the count of elements does not wrap round."""
    assert "more elements than memory" in refused(entry(shape=shape, data=[]))


def test_huge_shapes_allocate_nothing() -> None:
    """Sizes are compared with the data before memory is asked for."""
    assert "expected 1099511627776 elements" in refused(entry(shape=[2**40], data=[1]))
    content, length = behind(
        {"inputs": [entry("BYTES", [2**40], parameters={"binary_data_size": 4})]}, b"\0" * 4
    )
    assert "expected 1099511627776 elements" in str(fault(content, length))


def test_data_flat_or_nested() -> None:
    """Tensor Data: in the natural nesting, or flattened, in row-major order."""
    nested = array(entry("INT32", [2, 3], data=[[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(nested, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(nested, array(entry("INT32", [2, 3], data=[1, 2, 3, 4, 5, 6])))
    assert array(entry("INT32", [], data=[7])).shape == ()
    assert array(entry("INT32", [2, 0], data=[[], []])).shape == (2, 0)
    assert array(entry("INT32", [2, 0], data=[])).shape == (2, 0)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2], 3]),
        ([2, 2], [[1, 2, 3], [4]]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([4], [[1, 2, 3, 4]]),
        ([2, 2], [[1, 2, 3, 4]]),
        ([], [[1]]),
        ([2], [1]),
        ([2], [1, 2, 3]),
        ([2], 1),
        ([2], "12"),
        ([2], {"0": 1}),
        ([2], None),
    ],
)
def test_data_that_does_not_fit_the_shape(shape: list[int], data: Any) -> None:
    """Tensor Data: as many elements as the shape has, nested as it says or not at all."""
    assert refused(entry(shape=shape, data=data)).startswith("input 'x': expected")


@pytest.mark.parametrize("datatype", [name for name in DTYPES if "INT" in name])
def test_range_of_whole_numbers(datatype: str) -> None:
    """Tensor Data Types: an integer has the type's range, both ends included."""
    info = np.iinfo(DTYPES[datatype])
    ends = array(entry(datatype, data=[int(info.min), int(info.max)]))
    assert ends.dtype == DTYPES[datatype]
    assert ends.tolist() == [info.min, info.max]
    for value in (int(info.min) - 1, int(info.max) + 1, 10**400):
        assert "expected" in refused(entry(datatype, data=[0, value]))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("FP16", 65520.0), ("FP32", 1e39), ("BF16", 3.4e38), ("FP64", 10**400), ("FP16", -1e300)],
)
def test_range_of_floats(datatype: str, value: float) -> None:
    """Tensor Data Types: a number that would become infinite is refused."""
    assert "out of the range" in refused(entry(datatype, data=[0, value]))


def test_a_number_beyond_double_precision() -> None:
    """1e999 is JSON, and no FP64."""
    content = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}'
    assert "out of the range of FP64" in str(fault(content))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_no_nan_in_json(word: str) -> None:
    """JSON has no NaN and no infinities (RFC 8259, 6)."""
    content = body([entry(shape=[1], data=[float(word)])])
    assert word.encode() in content
    assert f"{word} is no JSON" in str(fault(content))


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT32", [1, 2.0]),
        ("INT32", [1, True]),
        ("INT32", [1, "2"]),
        ("INT32", [1, None]),
        ("FP32", [1, True]),
        ("FP32", [1, "2"]),
        ("FP32", [1, {}]),
        ("BOOL", [True, 1]),
        ("BYTES", ["a", 1]),
    ],
)
def test_element_types(datatype: str, data: list[Any]) -> None:
    """Tensor Data: the server may refuse an unexpected value; it says which."""
    assert "at element 1" in refused(entry(datatype, data=data))


def test_bytes_in_json() -> None:
    """Tensor Data: an element may be a string; BYTES holds its UTF-8."""
    assert array(entry("BYTES", data=["é", ""])).tolist() == ["é".encode(), b""]
    assert "half a surrogate pair" in refused(entry("BYTES", data=["a", "\ud800"]))


def test_half_precision_in_json() -> None:
    """Tensor Data calls FP16 in JSON problematic: here it is rounded to the nearest."""
    np.testing.assert_array_equal(array(entry("FP16", data=[0.1, 1])), np.float16([0.1, 1]))
    assert array(entry("BF16", data=[1.0, 0.5])).astype(float).tolist() == [1.0, 0.5]


def test_parameters() -> None:
    """Parameters: strings, numbers and booleans by name, for the request and each tensor."""
    given = {"timeout": 5, "a": "b", "c": 1.5, "d": False}
    request = decode_request(body([entry(data=[1, 2], parameters=given)], parameters=given))
    assert request.parameters == given
    assert request.inputs[0].parameters == given


@pytest.mark.parametrize("value", [None, [], {}, 2**64, -(2**63) - 1])
def test_bad_parameters(value: Any) -> None:
    """Parameters: nothing but strings, numbers in range and booleans."""
    assert "parameter 'p'" in str(fault(body([], parameters={"p": value})))


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


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2"])
def test_classification_counts(count: Any) -> None:
    """Classification: the parameter is the number of classes to return."""
    output = {"name": "y", "parameters": {"classification": count}}
    assert "output 'y': expected a classification" in str(fault(body([], outputs=[output])))


def test_shared_memory_is_refused() -> None:
    """Shared memory is an extension that a server need not have."""
    own = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert "input 'x': shared memory" in refused(entry(parameters=own))
    output = {"name": "y", "parameters": own}
    assert "output 'y': shared memory" in str(fault(body([], outputs=[output])))


def test_unknown_outputs() -> None:
    """Request Output: the name is one of the model's outputs."""
    request = decode_request(body([], outputs=[{"name": "y"}]))
    with pytest.raises(Fault, match="output 'y' is unknown: the model has a, b"):
        request.wanted(("a", "b"))


def test_messages_are_short() -> None:
    """What is quoted from a message is cut: an error is not as long as the request."""
    assert "x" * 20 in refused(entry(data=[1, "x" * 10**6]))
    assert len(refused(entry(data=[1]) | {"name": "n" * 10**6})) < 600


def test_error_object() -> None:
    """Inference Response JSON Error Object: the body is {"error": text}; the error is a Misuse."""
    error = fault(b"{}")
    assert isinstance(error, Misuse)
    assert json.loads(error_body(error)) == {"error": str(error)}


def test_requests_are_frozen() -> None:
    """A request does not change once it is read."""
    with pytest.raises(AttributeError):
        decode_request(body([])).id = "x"  # type: ignore[misc]


def test_encode_gives_the_headers() -> None:
    """Binary Tensor Data: Content-Length is the whole body, the header the JSON alone."""
    content, length = behind(BINARY_EXAMPLE, bytes(19))
    encoded = encode_request(decode_request(content, length))
    assert int(encoded.headers["Content-Length"]) == sum(map(len, encoded.buffers))
    assert int(encoded.headers[HEADER]) == len(encoded.buffers[0]) == encoded.nbytes - 19
    assert encoded.headers["Content-Type"] == "application/octet-stream"
    assert HEADER not in encode_request(InferRequest(())).headers
