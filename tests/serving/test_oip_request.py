# SPDX-License-Identifier: Apache-2.0
"""Requests of the Open Inference Protocol; each test's docstring names the rule it checks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from oip_messages import DTYPES, behind, body, entry, fault, refused

from burnish.core.errors import Misuse
from burnish.serving.oip.faults import Fault, error_body
from burnish.serving.oip.framing import Limits
from burnish.serving.oip.request import decode_request


def array(tensor: dict[str, Any]) -> np.ndarray:
    return decode_request(body([tensor])).inputs[0].array


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
