# SPDX-License-Identifier: Apache-2.0
"""Any message is read back bit for bit; any damaged one is a `Fault` and nothing else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_messages import DTYPES, SHAPES, TEXT, arrays, same, tensors

from burnish.serving.oip.faults import Fault, error_body
from burnish.serving.oip.request import (
    InferRequest,
    RequestedOutput,
    decode_request,
    encode_request,
)
from burnish.serving.oip.response import InferResponse, decode_response, encode_response
from burnish.serving.oip.tensors import Tensor

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PARAMETERS = st.dictionaries(
    TEXT.map("custom_{}".format),
    TEXT | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FINITE,
    max_size=3,
)  # fmt: skip
OUTPUTS = st.lists(
    st.builds(
        RequestedOutput,
        name=TEXT.filter(bool),
        binary=st.booleans(),
        classification=st.none() | st.integers(1, 9),
        parameters=st.just({}),
    ),
    max_size=3,
    unique_by=lambda output: output.name,
).map(tuple)


@st.composite
def requests(draw: Any) -> InferRequest:
    return InferRequest(
        draw(tensors()), draw(OUTPUTS), draw(st.none() | TEXT), draw(st.booleans()),
        draw(PARAMETERS),
    )  # fmt: skip


def check_tensors(sent: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> None:
    assert [(t.name, t.binary, t.datatype) for t in sent] == [
        (t.name, t.binary, t.datatype) for t in got
    ]
    for one, other in zip(sent, got, strict=True):
        assert same(one.array, other.array)


@settings(deadline=None)
@given(requests())
def test_requests_round_trip(request: InferRequest) -> None:
    """JSON, binary and mixed, of all datatypes."""
    encoded = encode_request(request)
    got = decode_request(b"".join(encoded.buffers), encoded.header_length)
    check_tensors(request.inputs, got.inputs)
    assert (got.id, got.binary_outputs) == (request.id, request.binary_outputs)
    assert {k: v for k, v in got.parameters.items() if k != "binary_data_output"} == (
        request.parameters
    )
    assert [(o.name, o.binary, o.classification) for o in got.outputs] == [
        (o.name, o.binary, o.classification) for o in request.outputs
    ]


@settings(deadline=None)
@given(tensors(), TEXT, st.none() | TEXT, st.none() | TEXT, PARAMETERS)
def test_responses_round_trip(outputs, name, version, identifier, parameters) -> None:
    """JSON, binary and mixed, of all datatypes."""
    encoded = encode_response(InferResponse(name, outputs, version, identifier, parameters))
    got = decode_response(b"".join(encoded.buffers), encoded.header_length)
    check_tensors(outputs, got.outputs)
    assert (got.model_name, got.model_version, got.id) == (name, version, identifier)
    assert got.parameters == parameters


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype(datatype: str, binary: bool) -> None:
    """Tensor Data Types: each has both forms, also where shapes are empty or scalar."""
    for shape in ((), (0,), (2, 0), (3, 2)):
        count = int(np.prod(shape))
        flat = np.empty(count, DTYPES[datatype])
        for i in range(count):
            flat[i] = f"é{i}".encode() if datatype == "BYTES" else DTYPES[datatype](i % 2)
        tensor = Tensor("x", flat.reshape(shape), binary)
        encoded = encode_request(InferRequest((tensor,)))
        got = decode_request(b"".join(encoded.buffers), encoded.header_length)
        check_tensors((tensor,), got.inputs)
        assert got.inputs[0].datatype == datatype


@settings(deadline=None)
@given(arrays(binary=False), SHAPES)
def test_nested_data_equals_flat(array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Tensor Data: numpy's own nesting, given another shape, is taken or refused as a whole."""
    tensor = Tensor("x", array)
    document = json.loads(encode_request(InferRequest((tensor,))).buffers[0])
    flat = np.empty(array.size, object)
    flat[:] = document["inputs"][0]["data"]
    if array.ndim:
        document["inputs"][0]["data"] = flat.reshape(array.shape).tolist()
    assert same(decode_request(json.dumps(document).encode()).inputs[0].array, array)
    document["inputs"][0]["shape"] = list(shape)
    if int(np.prod(shape)) != array.size:
        refuse_or_take(json.dumps(document).encode(), None, must_refuse=True)


def refuse_or_take(content: bytes, length: Any, must_refuse: bool = False) -> None:
    error = None
    try:
        decode_request(content, length)
    except Fault as raised:
        error = raised
    if error is None:
        assert not must_refuse
    else:
        assert error.status in (400, 413)
        assert json.loads(error_body(error))["error"]


SMALL = st.integers(0, 300)


@settings(deadline=None, max_examples=400)
@given(
    requests(),
    st.lists(st.tuples(SMALL, st.binary(max_size=3), SMALL), max_size=4),
    st.sampled_from([None, -1, 0, 1, 2]),
)
def test_damaged_bytes(request: InferRequest, cuts: Any, shift: int | None) -> None:
    """Cut, overwritten or longer anywhere, with a header that is off: a `Fault` or a request."""
    encoded = encode_request(request)
    content = b"".join(encoded.buffers)
    for start, new, length in cuts:
        content = content[:start] + new + content[start + length % 5 :]
    header = encoded.header_length
    refuse_or_take(content, header if header is None or shift is None else header + shift)
    refuse_or_take(content, shift)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["FP32", "BYTES", -1, 0, 2**31, 2**63, 2**64, 1e308, 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"]),
        inner, max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the path of every value in a JSON document."""
    if isinstance(value, dict):
        inner = value.items()
    else:
        inner = enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, entry in inner for p in places(entry, (*path, key)))]


@settings(deadline=None, max_examples=400)
@given(requests(), st.data())
def test_damaged_documents(request: InferRequest, data: st.DataObject) -> None:
    """Any value of the JSON replaced by any other or taken away, and the length kept right."""
    encoded = encode_request(request)
    document = json.loads(encoded.buffers[0])
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(document)[1:] or [("id",)]))
        holder = document
        for key in path:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(JSON)
        elif last in holder or isinstance(holder, list):
            del holder[last]
    header = json.dumps(document).encode()
    content = b"".join((header, *encoded.buffers[1:]))
    refuse_or_take(content, None if encoded.header_length is None else len(header))


@settings(deadline=None)
@given(st.binary(max_size=64), st.none() | st.text(max_size=4) | st.binary(max_size=4))
def test_noise(content: bytes, header: Any) -> None:
    """Bytes that were never a request."""
    refuse_or_take(content, header)
