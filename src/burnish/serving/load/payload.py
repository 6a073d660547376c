# SPDX-License-Identifier: Apache-2.0
"""A request's body: random values in the shapes that a model's metadata asks for, or as given.

Floats are uniform in [0, 1) and 8-bit integers span their range, as pixels do. All other
integers are 0 or 1: indices and masks alike may hold those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.core.errors import Misuse
from burnish.serving.load.address import Address, infer_path, post
from burnish.serving.oip.datatypes import BYTES, FLOATS, dtype_of, element_bytes
from burnish.serving.oip.framing import HEADER, Encoded, Limits, entries
from burnish.serving.oip.request import InferRequest, encode_request
from burnish.serving.oip.tensors import Tensor

MOST_BYTES = 2**30
"""Of a body."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of dimensions that vary, which metadata gives as -1.

    axes: by input, or by (input, dimension); an input alone stands for all that vary but
        the first.
    shapes: whole shapes by input, instead.
    """

    rows: int = 1
    axes: Mapping[tuple[str, int | None], int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Payload:
    """What every request of a run says: its path, body and the headers that go with it."""

    model: str
    encoded: Encoded = field(repr=False)
    rows: int | None = None
    """Samples in one request, where it is known."""

    def wire(self, where: Address, headers: Mapping[str, str] | None = None) -> bytes:
        """Returns the request as bytes, with further headers."""
        return post(
            where,
            infer_path(where.prefix, self.model),
            self.encoded.headers | dict(headers or {}),
            self.encoded.buffers,
        )


_GIVEN_BY_METADATA = Sizes()


def random_payload(
    metadata: Mapping[str, Any], sizes: Sizes = _GIVEN_BY_METADATA, seed: int = 0
) -> Payload:
    """Returns a binary request for the model that `metadata` (its document) is about.

    >>> payload = random_payload(
    ...     {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]},
    ...     Sizes(rows=2),
    ... )
    >>> payload.rows, len(payload.encoded.buffers[1])
    (2, 32)
    """
    model = metadata.get("name")
    inputs = entries(metadata.get("inputs"), "input", Limits())
    if not isinstance(model, str) or not inputs:
        raise Misuse("the model's metadata names no inputs: give the request with --body")
    _known({name for name, _ in sizes.axes} | set(sizes.shapes), [one["name"] for one in inputs])
    rng = np.random.default_rng(seed)
    shapes = [_shape(one, sizes) for one in inputs]
    total = sum(
        math.prod(shape) * element_bytes(one["datatype"])
        for one, shape in zip(inputs, shapes, strict=True)
    )
    if total > MOST_BYTES:
        raise Misuse(f"a request has at most {MOST_BYTES:,} bytes, and this one {total:,}")
    tensors = tuple(
        Tensor(one["name"], _values(one["datatype"], shape, rng), binary=True)
        for one, shape in zip(inputs, shapes, strict=True)
    )
    rows = {shape[0] for shape in shapes if shape}
    encoded = encode_request(InferRequest(tensors, binary_outputs=True))
    return Payload(model, encoded, rows.pop() if len(rows) == 1 else None)


def given_payload(model: str, body: bytes, header_length: int | None) -> Payload:
    """Returns a request whose body is given; `header_length` is that of its JSON, if binary
    tensors follow it.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise Misuse(
            f"{HEADER}: expected 0 to {len(body)}, the length of the body, got {header_length}"
        )
    return Payload(model, Encoded((body,), header_length))


def _known(names: set[str], inputs: Sequence[str]) -> None:
    for name in sorted(names - set(inputs)):
        raise Misuse(f"the model has no input {name!r}: it has {', '.join(inputs)}")


def _shape(entry: Mapping[str, Any], sizes: Sizes) -> tuple[int, ...]:
    name, listed = entry["name"], entry.get("shape")
    dtype_of(entry.get("datatype"), f"input {name!r}")
    if not isinstance(listed, list) or not all(type(one) is int and one >= -1 for one in listed):
        raise Misuse(f"input {name!r}: expected a shape of whole numbers, got {str(listed)[:80]}")
    given = sizes.shapes.get(name)
    if given is not None:
        if len(given) != len(listed) or any(
            want not in (-1, got) for want, got in zip(listed, given, strict=True)
        ):
            raise Misuse(f"input {name!r}: the model takes the shape {listed}, got {list(given)}")
        return given
    for other, dim in sizes.axes:
        if other == name and dim is not None and (dim >= len(listed) or listed[dim] != -1):
            raise Misuse(f"input {name!r}: dimension {dim} does not vary in the shape {listed}")
    return tuple(
        _varying(name, dim, listed, sizes) if size == -1 else size
        for dim, size in enumerate(listed)
    )


def _varying(name: str, dim: int, listed: list[int], sizes: Sizes) -> int:
    named = sizes.axes.get((name, dim))
    if named is not None:
        return named
    if dim == 0:
        return sizes.rows
    every = sizes.axes.get((name, None))
    if every is None:
        raise Misuse(
            f"input {name!r}: dimension {dim} of the shape {listed} varies: give its size, as "
            f"--axis {name}:{dim}=128"
        )
    return every


def _values(datatype: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    dtype = dtype_of(datatype, "input")
    if datatype == BYTES:
        words = np.empty(math.prod(shape), object)
        words[:] = [rng.bytes(4).hex().encode() for _ in words]
        return words.reshape(shape)
    if datatype in FLOATS:
        return rng.random(shape, np.float32).astype(dtype)
    if datatype in ("UINT8", "INT8"):
        return np.frombuffer(rng.bytes(math.prod(shape)), dtype).reshape(shape)
    return rng.integers(0, 2, shape).astype(dtype)
