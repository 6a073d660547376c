# SPDX-License-Identifier: Apache-2.0
"""A message's body: a JSON document, then the bytes of the tensors that are sent as binary."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from burnish.serving.oip.faults import OUR_FAULT, TOO_LARGE, Fault, shown

HEADER = "Inference-Header-Content-Length"
"""The HTTP header with the length of the JSON document, given when bytes follow it."""

Buffer = bytes | bytearray | memoryview
Parameter = str | bool | int | float
NO_PARAMETERS: Mapping[str, Parameter] = {}

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1


@dataclass(frozen=True)
class Limits:
    """What a message may hold. The size of the body is for the transport to bound.

    json_bytes: the JSON document alone, which takes many times its size when it is parsed.
    tensors: inputs, and requested outputs.
    """

    json_bytes: int = 64 * 2**20
    tensors: int = 1024


class Encoded(NamedTuple):
    """A body in pieces, to be written one after the other, and what its headers say."""

    buffers: tuple[bytes | memoryview, ...]
    header_length: int | None

    @property
    def nbytes(self) -> int:
        """The length of the body."""
        return sum(map(len, self.buffers))

    @property
    def headers(self) -> dict[str, str]:
        """Content-Type, Content-Length and, where bytes follow the JSON, its length."""
        if self.header_length is None:
            return {"Content-Type": "application/json", "Content-Length": str(self.nbytes)}
        return {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self.nbytes),
            HEADER: str(self.header_length),
        }


class Sections:
    """The bytes after the JSON document, taken in the order in which tensors are listed."""

    def __init__(self, rest: memoryview | None) -> None:
        self._rest = rest
        self._start = 0

    def take(self, size: object, where: str) -> memoryview:
        """Returns the next `size` bytes, a view."""
        if type(size) is not int or size < 0:
            raise Fault(
                f"{where}: expected a binary_data_size that is a whole number of 0 or more, "
                f"got {shown(size)}"
            )
        if self._rest is None:
            raise Fault(f"{where}: binary_data_size is given and the header {HEADER} is not")
        left = len(self._rest) - self._start
        if size > left:
            raise Fault(
                f"{where}: binary_data_size is {shown(size)}, and {left} bytes are left of the body"
            )
        self._start += size
        return self._rest[self._start - size : self._start]

    def finish(self) -> None:
        """Raises `Fault` unless every byte was taken."""
        if self._rest is not None and self._start != len(self._rest):
            raise Fault(
                f"expected {self._start} bytes after the JSON, which is what the tensors' "
                f"binary_data_size add up to, got {len(self._rest)}"
            )


def split(
    body: Buffer,
    header_length: str | bytes | int | None,
    limits: Limits,
    behind: memoryview | None = None,
) -> tuple[memoryview, Sections]:
    """Returns the JSON at the start of `body`, for `parse`, and the bytes behind it: views.

    behind: those bytes, where `body` has only the JSON.
    """
    whole = memoryview(body)
    length = None if header_length is None else _length(header_length, len(whole))
    size = len(whole) if length is None else length
    if size > limits.json_bytes:
        raise Fault(
            f"the JSON has {size} bytes, and at most {limits.json_bytes} are taken: "
            "send the tensors as binary data",
            TOO_LARGE,
        )
    if behind is None and length is not None:
        behind = whole[length:]
    return whole[:size], Sections(behind)


def parse(raw: Buffer) -> dict[str, Any]:
    """Returns a JSON object from UTF-8 bytes, or raises `Fault`: no NaN, no key twice."""
    try:
        document = json.loads(str(raw, "utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise Fault(f"the JSON is not UTF-8: byte {error.start} does not belong there") from error
    except RecursionError as error:
        raise Fault("the JSON is nested too deep") from error
    except ValueError as error:
        raise Fault(f"the body does not start with valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise Fault(f"expected a JSON object, got {shown(document)}")
    return document


def join(document: Mapping[str, Any], sections: Sequence[memoryview] | None) -> Encoded:
    """Returns the body of a document and its tensors' bytes (None: no tensor is binary)."""
    header = as_json(document)
    if sections is None:
        return Encoded((header,), None)
    return Encoded((header, *(section for section in sections if len(section))), len(header))


def as_json(value: object) -> bytes:
    """Returns a value as JSON, or raises `Fault`."""
    try:
        return _JSON.encode(value).encode()
    except (ValueError, TypeError) as error:
        raise Fault(f"the message cannot be written as JSON: {error}", OUR_FAULT) from error


def text(value: object, where: str) -> str:
    """Returns a string from JSON that is text, or raises `Fault`."""
    if not isinstance(value, str):
        raise Fault(f"{where}: expected a string, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Fault(
            f"{where}: expected Unicode text, got half a surrogate pair in {shown(value)}"
        ) from error
    return value


def parameters(value: object, where: str) -> dict[str, Parameter]:
    """Returns the parameters of a message or tensor: strings, numbers and booleans by name."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Fault(f"{where}: expected parameters that are an object, got {shown(value)}")
    for key, entry in value.items():
        text(key, f"{where}: the name of a parameter")
        if isinstance(entry, str):
            text(entry, f"{where}: parameter {shown(key)}")
        elif not isinstance(entry, bool | int | float):
            raise Fault(
                f"{where}: expected a string, number or boolean for parameter {shown(key)}, "
                f"got {shown(entry)}"
            )
        elif not (
            math.isfinite(entry) if isinstance(entry, float) else _INT64_MIN <= entry <= _UINT64_MAX
        ):
            raise Fault(f"{where}: parameter {shown(key)} is out of range: {shown(entry)}")
    return value


def flag(parameters: Mapping[str, Parameter], key: str, default: bool, where: str) -> bool:
    """Returns a parameter that has to be a boolean."""
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise Fault(f"{where}: expected true or false for {key}, got {shown(value)}")
    return value


def entries(value: object, what: str, limits: Limits) -> list[dict[str, Any]]:
    """Returns a list of objects with a name each, no name twice."""
    if not isinstance(value, list):
        raise Fault(f"{what}s: expected an array, got {shown(value)}")
    if len(value) > limits.tensors:
        raise Fault(f"{what}s: expected at most {limits.tensors}, got {len(value)}", TOO_LARGE)
    names = set()
    for i, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise Fault(f"{what} {i}: expected an object, got {shown(entry)}")
        name = text(entry.get("name"), f"{what} {i}: name")
        if not name:
            raise Fault(f"{what} {i}: expected a name, got an empty string")
        if name in names:
            raise Fault(f"{what} {shown(name)} is given twice")
        names.add(name)
    return value


def _length(value: str | bytes | int, body_bytes: int) -> int:
    """Returns the header's value as a number of bytes that the body has."""
    digits = str(value, "latin-1") if isinstance(value, bytes) else str(value)
    digits = digits.strip(" \t")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise Fault(f"{HEADER}: expected a whole number of 0 or more, got {shown(value)}")
    if int(digits) > body_bytes:
        raise Fault(f"{HEADER}: expected at most the body's {body_bytes} bytes, got {digits}")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise Fault(f"the JSON has the key {shown(twice)} twice in one object")
    return document


def _refuse(word: str) -> NoReturn:
    raise Fault(f"{word} is no JSON: send tensors that hold it as binary data")
