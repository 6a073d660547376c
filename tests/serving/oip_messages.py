# SPDX-License-Identifier: Apache-2.0
"""Arrays of every datatype, bodies written by hand and what they are refused with."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.serving.oip.faults import Fault
from burnish.serving.oip.request import decode_request
from burnish.serving.oip.tensors import Tensor

DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16, "BYTES": np.object_,
}  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def body(inputs: Any, **others: Any) -> bytes:
    return json.dumps({"inputs": inputs, **others}).encode()


def entry(datatype: str = "FP32", shape: Any = (2,), **others: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape} | others


def behind(document: Any, rest: bytes) -> tuple[bytes, int]:
    """Returns a body with bytes behind its JSON, and the length of the JSON."""
    header = json.dumps(document).encode()
    return header + rest, len(header)


@st.composite
def arrays(draw: Any, binary: bool) -> np.ndarray:
    """Arrays of any datatype; those for JSON are finite, and text."""
    datatype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        element = st.binary(max_size=8) if binary else TEXT.map(str.encode)
        flat = np.empty(int(np.prod(shape)), object)
        for i in range(len(flat)):
            flat[i] = draw(element)
        return flat.reshape(shape)
    if datatype == "BF16":
        bits = draw(hnp.arrays(np.uint16, shape))
        values = bits.view(ml_dtypes.bfloat16)
        finite = (bits & 0x7F80) != 0x7F80
        return values if binary else np.where(finite, bits, 0).astype(np.uint16).view(values.dtype)
    if datatype.startswith("FP"):
        width = int(datatype[2:])
        floats = st.floats(width=width, allow_nan=binary, allow_infinity=binary)
        return draw(hnp.arrays(DTYPES[datatype], shape, elements=floats))
    return draw(hnp.arrays(DTYPES[datatype], shape))


@st.composite
def tensors(draw: Any) -> tuple[Tensor, ...]:
    """Several tensors, some as JSON and some binary."""
    made = []
    for name in draw(st.lists(TEXT.filter(bool), max_size=4, unique=True)):
        binary = draw(st.booleans())
        made.append(Tensor(name, draw(arrays(binary)), binary))
    return tuple(made)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Says whether two arrays hold the same bits, in the same shape and dtype."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype == object:
        return left.ravel().tolist() == right.ravel().tolist()
    return left.tobytes() == right.tobytes()


def fault(content: bytes, header_length: Any = None, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        decode_request(content, header_length, **options)
    assert caught.value.status in (400, 413)
    assert len(str(caught.value)) < 600
    return caught.value


def refused(tensor: dict[str, Any]) -> str:
    return str(fault(body([tensor])))
