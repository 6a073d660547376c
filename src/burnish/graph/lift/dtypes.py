# SPDX-License-Identifier: Apache-2.0
"""ONNX's element types as PyTorch's, and constants as tensors.

Types of 4 and 2 bits are held in 8: integers as int8 or uint8. PyTorch has no arithmetic
for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from burnish.core.errors import Unsupported

_TYPES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
}

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def torch_dtype(dtype: ir.DataType | int) -> Any:
    """Returns the PyTorch type that holds an ONNX element type. Raises `Unsupported`."""
    found = _TYPES.get(ir.DataType(dtype))
    if found is None:
        raise Unsupported(f"PyTorch has no element type {ir.DataType(dtype).name}")
    return found


def as_tensor(tensor: ir.TensorProtocol) -> Any:
    """Returns a copy of an ONNX constant as a tensor on the CPU. Raises `Unsupported`."""
    dtype = torch_dtype(tensor.dtype)
    array = np.asarray(tensor.numpy())
    if tensor.dtype.bitwidth < 8:
        array = array.astype(np.int8 if tensor.dtype.is_signed() else np.uint8)
    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.isbuiltin != 1:  # a type that numpy does not know by itself
        array = array.view(np.dtype(f"u{array.dtype.itemsize}"))
        return torch.from_numpy(array.copy()).view(dtype)
    return torch.from_numpy(array.copy())


def as_array(tensor: Any, dtype: ir.DataType) -> Any:
    """Returns a tensor as the numpy array of an ONNX element type; `as_tensor`'s inverse."""
    tensor = tensor.detach().cpu().contiguous()
    wanted = dtype.numpy()
    if wanted.isbuiltin == 1:
        return tensor.numpy().astype(wanted, copy=True)
    if dtype.bitwidth < 8:
        return tensor.numpy().astype(wanted)
    width = {1: torch.uint8, 2: torch.uint16}[wanted.itemsize]
    return tensor.view(width).numpy().copy().view(wanted)
