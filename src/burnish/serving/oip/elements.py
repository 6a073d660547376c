# SPDX-License-Identifier: Apache-2.0
"""A tensor's elements as a JSON array, flat or nested, and back."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.serving.oip.datatypes import BYTES, FLOATS, dtype_of
from burnish.serving.oip.faults import OUR_FAULT, Fault, shown

_KINDS: dict[str, tuple[frozenset[type], str]] = {
    "BOOL": (frozenset({bool}), "true or false"),
    BYTES: (frozenset({str}), "strings"),
} | {name: (frozenset({int, float}), "numbers") for name in FLOATS}
_WHOLE = (frozenset({int}), "whole numbers")


def read_elements(
    data: object, datatype: str, shape: tuple[int, ...], where: str
) -> npt.NDArray[Any]:
    """Returns the array of `shape` that a JSON array holds; BYTES elements become `bytes`.

    Raises `Fault` when the count, the nesting, the type or the range of an element is not
    what the shape and datatype say; nothing is allocated before the count was found right.
    """
    dtype = dtype_of(datatype, where)
    if not isinstance(data, list):
        raise Fault(f"{where}: expected data that is an array, got {shown(data)}")
    flat = _flat(data, shape, where)
    if len(flat) != math.prod(shape):
        raise Fault(
            f"{where}: expected {math.prod(shape)} elements for the shape {list(shape)}, "
            f"got {len(flat)}"
        )
    allowed, words = _KINDS.get(datatype, _WHOLE)
    if not set(map(type, flat)) <= allowed:
        i, value = next((i, v) for i, v in enumerate(flat) if type(v) not in allowed)
        raise Fault(f"{where}: expected {words} for {datatype}, got {shown(value)} at element {i}")
    if datatype == BYTES:
        return _strings(flat, shape, where)
    if datatype in FLOATS:
        return _floats(flat, dtype, datatype, where).reshape(shape)
    if datatype != "BOOL" and flat:
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        for value in (min(flat), max(flat)):
            if not least <= value <= most:
                raise Fault(
                    f"{where}: expected {least} to {most} for {datatype}, got {shown(value)}"
                )
    return np.array(flat, dtype).reshape(shape)


def write_elements(array: npt.NDArray[Any], datatype: str, where: str) -> list[Any]:
    """Returns the elements as a flat list that JSON can hold, in row-major order.

    Raises `Fault` for NaN and infinities, and for BYTES that are not UTF-8.
    """
    if datatype == BYTES:
        return [_text(value, i, where) for i, value in enumerate(array.ravel().tolist())]
    if datatype in FLOATS:
        with np.errstate(invalid="ignore"):  # a signalling NaN would warn
            wide = array.astype(np.float32) if datatype == "BF16" else array
            finite = np.isfinite(wide)
        if not finite.all():
            raise Fault(
                f"{where}: expected finite values, got {wide[~finite].flat[0]}, which "
                "JSON cannot hold: ask for it with binary_data true"
            )
        array = wide
    values: list[Any] = array.ravel().tolist()
    return values


def _flat(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    """Returns the elements of data that is flat, or nested just as `shape` says."""
    if list not in set(map(type, data)):
        return data
    level: list[Any] = [data]
    for axis, size in enumerate(shape):
        if set(map(type, level)) - {list}:
            raise Fault(
                f"{where}: expected arrays nested {len(shape)} deep or one flat array, "
                f"got both arrays and elements {axis} deep"
            )
        for length in set(map(len, level)) - {size}:
            raise Fault(
                f"{where}: expected {size} entries along dimension {axis} of the shape "
                f"{list(shape)}, got {length}"
            )
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise Fault(f"{where}: expected arrays nested {len(shape)} deep, got deeper ones")
    return level


def _floats(flat: list[Any], dtype: np.dtype[Any], datatype: str, where: str) -> npt.NDArray[Any]:
    try:
        values = np.array(flat, np.float64)
    except OverflowError as error:
        raise Fault(f"{where}: a whole number is out of the range of {datatype}") from error
    with np.errstate(all="ignore"):
        narrow = values.astype(dtype)
        finite = np.isfinite(narrow.astype(np.float64))
    if not finite.all():
        i = int(np.argmin(finite))
        raise Fault(f"{where}: {shown(flat[i])} at element {i} is out of the range of {datatype}")
    return narrow


def _strings(flat: list[str], shape: tuple[int, ...], where: str) -> npt.NDArray[Any]:
    array = np.empty(len(flat), object)
    for i, text in enumerate(flat):
        try:
            array[i] = text.encode()
        except UnicodeEncodeError as error:
            raise Fault(
                f"{where}: expected Unicode text, got half a surrogate pair at element {i}"
            ) from error
    return array.reshape(shape)


def _text(value: object, i: int, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise Fault(f"{where}: expected bytes or str, got {shown(value)} at element {i}", OUR_FAULT)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Fault(
            f"{where}: element {i} is not UTF-8, which JSON needs: ask for it with binary_data true"
        ) from error
