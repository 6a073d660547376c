# SPDX-License-Identifier: Apache-2.0
"""What is kept of documents that come again: no bytes, no faults, and not too much."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oip_messages import TEXT, arrays, behind, entry, same, tensors

from burnish.core.model import Signature, TensorSpec
from burnish.serving import rows as rows_module
from burnish.serving.oip import request as request_module
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import Limits
from burnish.serving.oip.request import InferRequest, decode_request, encode_request
from burnish.serving.oip.response import InferResponse, encode_response
from burnish.serving.oip.tensors import Tensor
from burnish.serving.rows import Rows


def ask(values: np.ndarray, identifier: str | None = None) -> np.ndarray:
    asked = encode_request(InferRequest((Tensor("x", values, True),), id=identifier))
    got = decode_request(b"".join(asked.buffers), asked.header_length)
    assert got.id == identifier
    return got.inputs[0].array


def test_the_same_document_before_other_bytes() -> None:
    """Only what the document says is kept: the arrays are those that came."""
    first, second = np.arange(4, dtype=np.float32), np.full(4, np.nan, np.float32)
    one, other = ask(first), ask(second)
    assert same(one, first)
    assert same(other, second)
    assert same(ask(first, "7"), first)  # another document, since it names the request


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_each_of_several_documents_twice(several: list[tuple[Tensor, ...]]) -> None:
    for inputs in several * 2:
        asked = encode_request(InferRequest(inputs))
        got = decode_request(b"".join(asked.buffers), asked.header_length)
        for sent, tensor in zip(inputs, got.inputs, strict=True):
            assert same(sent.array, tensor.array)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (entry("FP32", (2,), parameters={"binary_data_size": 9}), "9"),
        (entry("FP33", (2,), parameters={"binary_data_size": 8}), "datatype"),
        (entry("FP32", (3,), parameters={"binary_data_size": 8}), "expected 12 bytes"),
    ],
)
def test_what_is_wrong_is_wrong_again(tensor, words) -> None:
    body, length = behind({"inputs": [tensor]}, bytes(8))
    for _ in range(3):
        with pytest.raises(Fault, match=words):
            decode_request(body, length)


def test_a_document_that_is_kept_is_refused_where_less_is_allowed() -> None:
    tensor = entry("FP32", (2,), parameters={"binary_data_size": 8})
    body, length = behind({"inputs": [tensor, {**tensor, "name": "y"}]}, bytes(16))
    assert len(decode_request(body, length).inputs) == 2
    with pytest.raises(Fault, match="at most 1"):
        decode_request(body, length, Limits(tensors=1))
    with pytest.raises(Fault, match="send the tensors as binary"):
        decode_request(body, length, Limits(json_bytes=length - 1))


def test_no_more_documents_are_kept_than_some() -> None:
    for number in range(2 * request_module._KNOWN_HEADS):
        ask(np.zeros(1, np.uint8), str(number))
    kept = request_module._known_head.cache_info()
    assert kept.currsize <= kept.maxsize == request_module._KNOWN_HEADS


@given(
    st.lists(st.tuples(TEXT, arrays(True)), min_size=1, max_size=3, unique_by=lambda one: one[0]),
    TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
)
def test_binary_outputs_are_told_as_others_are(outputs, name, version, identifier) -> None:
    """Inference Response JSON Object, with binary_data_size as Binary Tensor Response has it."""
    listed = tuple(Tensor(key, array, True) for key, array in outputs)
    encoded = encode_response(InferResponse(name, listed, version, identifier))
    assert len(encoded.buffers[0]) == encoded.header_length
    told = json.loads(bytes(encoded.buffers[0]))
    sizes = [one["parameters"].pop("binary_data_size") for one in told["outputs"]]
    assert sum(sizes) == sum(map(len, encoded.buffers[1:]))
    expected = {"model_name": name, "model_version": version, "id": identifier}
    assert told == {key: value for key, value in expected.items() if value is not None} | {
        "outputs": [
            {"name": one.name, "shape": list(one.shape), "datatype": one.datatype, "parameters": {}}
            for one in listed
        ]
    }


ROWS = Rows(
    Signature((TensorSpec("x", "float32", ("n", "m")),), (TensorSpec("y", "float32", ("n",)),))
)


def test_inputs_that_fit_are_known_again_and_others_still_refused() -> None:
    for _ in range(2):
        assert ROWS.shape({"x": np.zeros((2, 3), np.float32)}) == (2, (("m", 3),), 24)
        assert ROWS.shape({"x": np.zeros((2, 4), np.float32)}) == (2, (("m", 4),), 32)
        for wrong in (np.zeros((2, 3)), np.zeros((2, 3, 1), np.float32), np.zeros((0, 3), "f4")):
            with pytest.raises(Fault):
                ROWS.shape({"x": wrong})
        with pytest.raises(Fault, match="unknown input 'z'"):
            ROWS.shape({"z": np.zeros((2, 3), np.float32)})


def test_no_more_shapes_are_kept_than_some() -> None:
    for n in range(1, 2 * rows_module._MOST_KNOWN):
        assert ROWS.shape({"x": np.zeros((1, n), np.float32)}).axes == (("m", n),)
    assert len(ROWS._known) <= rows_module._MOST_KNOWN
