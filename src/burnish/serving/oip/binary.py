# SPDX-License-Identifier: Apache-2.0
"""A tensor as bytes: little-endian, row-major, no padding; a view both ways where it can be."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.serving.oip.datatypes import BYTES, LENGTH_BYTES, dtype_of, element_bytes
from burnish.serving.oip.faults import OUR_FAULT, Fault, shown

_LENGTH = struct.Struct("<I")


def read_binary(
    section: memoryview, datatype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[Any]:
    """Returns the array that `section` holds; all but BYTES are views of it, not copies.

    A view may be unaligned and is read-only when the section is. Raises `Fault` when the
    section's size is not what the shape and datatype need.
    """
    dtype = dtype_of(datatype, where)
    count = math.prod(shape)
    if datatype == BYTES:
        return _strings(section, count, where).reshape(shape)
    expected = count * element_bytes(datatype)
    if len(section) != expected:
        raise Fault(
            f"{where}: expected {expected} bytes for {datatype} of shape {list(shape)}, "
            f"got {len(section)}"
        )
    if datatype == "BOOL" and count:
        most = int(np.frombuffer(section, np.uint8).max())
        if most > 1:
            raise Fault(f"{where}: expected bytes 0 and 1 for BOOL, got {most}")
    return np.frombuffer(section, dtype).reshape(shape)


def write_binary(array: npt.NDArray[Any], datatype: str, where: str) -> memoryview:
    """Returns the tensor's bytes: the array's own where it lies in row-major order."""
    if datatype == BYTES:
        return memoryview(b"".join(_prefixed(array, where)))
    # bfloat16 has no buffer of its own, and an empty one cannot be cast: hence uint8.
    flat = np.ascontiguousarray(array, dtype_of(datatype, where)).reshape(-1)
    return flat.view(np.uint8).data


def _strings(section: memoryview, count: int, where: str) -> npt.NDArray[Any]:
    if count * LENGTH_BYTES > len(section):
        raise Fault(
            f"{where}: expected {count} elements with a length of {LENGTH_BYTES} bytes each, "
            f"got {len(section)} bytes in all"
        )
    array = np.empty(count, object)
    start = 0
    for i in range(count):
        if start + LENGTH_BYTES > len(section):
            raise Fault(f"{where}: the bytes end before the length of element {i} of {count}")
        (size,) = _LENGTH.unpack_from(section, start)
        start += LENGTH_BYTES
        if size > len(section) - start:
            raise Fault(
                f"{where}: element {i} says that it has {size} bytes, "
                f"and {len(section) - start} are left"
            )
        array[i] = bytes(section[start : start + size])
        start += size
    if start != len(section):
        raise Fault(f"{where}: expected {start} bytes for {count} elements, got {len(section)}")
    return array


def _prefixed(array: npt.NDArray[Any], where: str) -> list[bytes]:
    pieces: list[bytes] = []
    for i, value in enumerate(array.ravel().tolist()):
        if isinstance(value, str):
            try:
                value = value.encode()
            except UnicodeEncodeError as error:
                raise Fault(
                    f"{where}: expected Unicode text, got half a surrogate pair at element {i}",
                    OUR_FAULT,
                ) from error
        if not isinstance(value, bytes):
            raise Fault(
                f"{where}: expected bytes or str, got {shown(value)} at element {i}", OUR_FAULT
            )
        if len(value) >= 2**32:
            raise Fault(
                f"{where}: element {i} has {len(value)} bytes, and BYTES holds less than 2**32",
                OUR_FAULT,
            )
        pieces += (_LENGTH.pack(len(value)), value)
    return pieces
