# SPDX-License-Identifier: Apache-2.0
"""A tensor's typed contents, the alternative to raw bytes, as an array and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.serving.grpc_service import oip_pb2 as oip
from burnish.serving.oip.datatypes import BYTES, dtype_of
from burnish.serving.oip.faults import OUR_FAULT, Fault, shown

# The field of each datatype, and the dtype of its elements; FP16 and BF16 have none.
_FIELDS: dict[str, tuple[str, type[Any]]] = {
    "BOOL": ("bool_contents", np.bool_),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    BYTES: ("bytes_contents", np.object_),
}


def read_contents(
    contents: oip.InferTensorContents, datatype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[Any]:
    """Returns the array of `shape` that the contents hold.

    Raises `Fault` when they are in another datatype's field, or the count or the range of
    the elements is not what the shape and datatype say.
    """
    dtype = dtype_of(datatype, where)
    if datatype not in _FIELDS:
        raise Fault(f"{where}: {datatype} has no typed contents: send raw_input_contents")
    name, wide = _FIELDS[datatype]
    others = [field.name for field, _ in contents.ListFields() if field.name != name]
    if others:
        raise Fault(f"{where}: expected {name} for {datatype}, got {', '.join(others)}")
    values = getattr(contents, name)
    if len(values) != math.prod(shape):
        raise Fault(
            f"{where}: expected {math.prod(shape)} elements in {name} for the shape "
            f"{list(shape)}, got {len(values)}"
        )
    array = np.fromiter(values, wide, len(values))
    if array.dtype.kind in "iu" and array.size:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        for value in (int(array.min()), int(array.max())):
            if not least <= value <= most:
                raise Fault(f"{where}: expected {least} to {most} for {datatype}, got {value}")
    return array.astype(dtype, copy=False).reshape(shape)


def write_contents(array: npt.NDArray[Any], datatype: str, where: str) -> oip.InferTensorContents:
    """Returns the array as typed contents. Raises `Fault` for FP16 and BF16, which have none."""
    if datatype not in _FIELDS:
        raise Fault(f"{where}: {datatype} has no typed contents: ask for raw ones")
    name, _ = _FIELDS[datatype]
    values = array.ravel().tolist()
    if datatype == BYTES:
        values = [_as_bytes(value, where) for value in values]
    contents = oip.InferTensorContents()
    getattr(contents, name).extend(values)
    return contents


def _as_bytes(value: object, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, bytes):
        raise Fault(f"{where}: expected bytes or str, got {shown(value)}", OUR_FAULT)
    return value
