# SPDX-License-Identifier: Apache-2.0
"""The protocol's datatypes as numpy dtypes, and shapes that are safe to give numpy."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from burnish.serving.oip.faults import OUR_FAULT, Fault, shown

BYTES = "BYTES"
"""Strings of any bytes: arrays of dtype object that hold `bytes`."""

LENGTH_BYTES = 4
"""What stands before each element of a BYTES tensor in binary form: its length, a uint32."""

MAX_RANK = 64  # numpy's own
_MAX_NBYTES = 2**63 - 1

# Little-endian, as the binary extension has them; bfloat16 exists in the machine's order only.
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    BYTES: np.dtype(object),
}
DATATYPES = tuple(_DTYPES)
FLOATS = ("FP16", "FP32", "FP64", "BF16")

_NAMES = {dtype.name: name for name, dtype in _DTYPES.items()}
_BY_DTYPE: dict[object, str] = {dtype: name for name, dtype in _DTYPES.items()}


def dtype_of(datatype: object, where: str) -> np.dtype[Any]:
    """Returns the numpy dtype of a datatype; `where` names the tensor in the `Fault`.

    >>> dtype_of("FP32", "input 'x'")
    dtype('float32')
    """
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        raise Fault(
            f"{where}: unknown datatype {shown(datatype)}, expected one of {', '.join(DATATYPES)}"
        )
    return _DTYPES[datatype]


def datatype_of(dtype: np.dtype[Any] | str, where: str = "tensor") -> str:
    """Returns the datatype of a numpy dtype or its name.

    >>> datatype_of("bfloat16"), datatype_of(np.dtype(object))
    ('BF16', 'BYTES')
    """
    known = _BY_DTYPE.get(dtype)
    if known is not None:
        return known
    name = dtype if isinstance(dtype, str) else dtype.name
    if name.startswith(("str", "bytes")):
        return BYTES
    if name not in _NAMES:
        raise Fault(f"{where}: the protocol has no datatype for dtype {name}", OUR_FAULT)
    return _NAMES[name]


def element_bytes(datatype: str) -> int:
    """Returns the fewest bytes that an element takes in binary form."""
    return LENGTH_BYTES if datatype == BYTES else _DTYPES[datatype].itemsize


def checked_shape(value: object, datatype: str, where: str) -> tuple[int, ...]:
    """Returns a shape from JSON as a tuple: whole numbers, not negative, that numpy can hold.

    The element count is not bounded here, but by the data that came with it.
    """
    if not isinstance(value, list):
        raise Fault(f"{where}: expected a shape that is an array, got {shown(value)}")
    if len(value) > MAX_RANK:
        raise Fault(f"{where}: expected at most {MAX_RANK} dimensions, got {len(value)}")
    for size in value:
        if type(size) is not int or size < 0:
            raise Fault(
                f"{where}: expected dimensions that are whole numbers of 0 or more, "
                f"got {shown(size)} in the shape {shown(value)}"
            )
    # Sizes beside a zero count too: numpy multiplies them before it looks at the zero.
    if math.prod(size for size in value if size) * element_bytes(datatype) > _MAX_NBYTES:
        raise Fault(f"{where}: the shape {shown(value)} has more elements than memory has bytes")
    return tuple(value)
