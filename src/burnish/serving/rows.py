# SPDX-License-Identifier: Apache-2.0
"""Requests as rows: what of a request runs in a batch, gathered into one and taken out again.

The first dimension of all inputs and outputs is the batch, where all leave it free under one
name. A model that does not is run as it is asked, one request at a time: one row each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from burnish.core.model import Signature, TensorSpec
from burnish.serving.oip.faults import Fault
from burnish.serving.request import Axes

Arrays = Mapping[str, NDArray[Any]]
_MOST_KNOWN = 512
TEXT = "object"
"""The dtype of strings in a signature."""


class Shape(NamedTuple):
    """How a request's arrays are rows of a batch."""

    rows: int
    axes: Axes
    """The sizes of the free axes but the batch, by name."""
    size_bytes: int


class Piece(NamedTuple):
    """Rows of one request, and where they stand in the batch."""

    inputs: Arrays
    first_row: int
    rows: int
    batch_row: int


@dataclass(frozen=True)
class Rows:
    """What a model's signature says about rows; `fill` is what padding holds, by input (0)."""

    signature: Signature
    fill: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def batched(self) -> bool:
        """Whether several rows can run together."""
        specs = (*self.signature.inputs, *self.signature.outputs)
        firsts = {spec.shape[0] if spec.shape else 0 for spec in specs}
        return len(firsts) == 1 and isinstance(next(iter(firsts)), str)

    def shape(self, inputs: Arrays) -> Shape:
        """Returns the rows and free axes of inputs that fit the signature.

        Raises `Fault` that lists every way in which they do not.
        """
        asked = tuple([(name, array.dtype, array.shape) for name, array in inputs.items()])
        known = self._known.get(asked)
        if known is None:
            known = self._checked(inputs)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[asked] = known
        return known

    def _checked(self, inputs: Arrays) -> Shape:
        faults: list[str] = []
        sizes: dict[str, tuple[int, str]] = {}
        size_bytes = 0
        specs = self.signature.inputs
        if len(inputs) != len(specs) or any(spec.name not in inputs for spec in specs):
            known = {spec.name for spec in specs}
            faults += [f"unknown input {name!r}" for name in sorted(set(inputs) - known)]
            faults += [f"missing input {spec}" for spec in specs if spec.name not in inputs]
        for spec in specs:
            array = inputs.get(spec.name)
            if array is None:
                continue
            size_bytes += array.nbytes
            faults += _misfits(spec, array)
            for place, (got, size) in enumerate(zip(array.shape, spec.shape, strict=False)):
                if isinstance(size, int):
                    continue
                axis = size or f"{spec.name}.{place}"
                first, where = sizes.setdefault(axis, (got, spec.name))
                if first != got:
                    faults.append(f"{spec.name} has {axis}={got}, but {where} has {axis}={first}")
        if faults:
            raise Fault("the inputs do not fit the model: " + "; ".join(faults))
        rows = 1
        if self.batched:
            rows, _ = sizes.pop(str(specs[0].shape[0]))
            if rows < 1:
                raise Fault(f"input {specs[0].name}: expected 1 row or more, got {rows}")
        axes = tuple(sorted((axis, size) for axis, (size, _) in sizes.items()))
        return Shape(rows, axes, size_bytes)

    def readable(self, inputs: Arrays) -> Arrays:
        """Returns the inputs with the bytes of strings as text. Raises `Fault` for others."""
        if not self._texts:
            return inputs
        return {
            name: _texts(name, array) if name in self._texts else array
            for name, array in inputs.items()
        }

    def row_bytes(self, bucket: Axes) -> int:
        """Returns what the inputs and outputs of one row hold, padded to `bucket`."""
        return sum(
            _bytes(spec, _dims(spec.name, spec.shape, bucket)[1 if self.batched else 0 :])
            for spec in (*self.signature.inputs, *self.signature.outputs)
        )

    def zeros(self, rows: int, bucket: Axes) -> dict[str, NDArray[Any]]:
        """Returns inputs of zeros, as many rows as are asked for."""
        return {
            spec.name: np.full(self._shape(spec, rows, bucket), _empty(spec), _dtype(spec))
            for spec in self.signature.inputs
        }

    def gather(
        self, pieces: Sequence[Piece], bucket: Axes, buffers: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Returns the inputs of a batch: one copy into `buffers`, which grow as they must.

        One request that fills the batch as it is stays where it is.
        """
        if len(pieces) == 1 and self._as_it_is(pieces[0], bucket):
            return dict(pieces[0].inputs)
        rows = sum(piece.rows for piece in pieces)
        return {
            spec.name: self._gathered(spec, pieces, rows, bucket, buffers)
            for spec in self.signature.inputs
        }

    def take(self, outputs: Arrays, piece: Piece, axes: Axes) -> Arrays:
        """Returns a request's rows of a batch's outputs, without padding: views, not copies."""
        if not self.batched:
            return outputs
        first, end = piece.batch_row, piece.batch_row + piece.rows
        if not self._padded:
            return {name: array[first:end] for name, array in outputs.items()}
        rows = slice(first, end)
        sizes = dict(axes)
        return {
            spec.name: outputs[spec.name][(rows, *(_part(size, sizes) for size in spec.shape[1:]))]
            for spec in self.signature.outputs
        }

    @cached_property
    def _known(self) -> dict[tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...], Shape]:
        """What inputs of these names, dtypes and shapes are; those that fit, and not too many."""
        return {}

    @cached_property
    def _texts(self) -> frozenset[str]:
        """The inputs that hold strings."""
        return frozenset(spec.name for spec in self.signature.inputs if spec.dtype == TEXT)

    @cached_property
    def _padded(self) -> bool:
        """Whether any axis but the batch is free."""
        specs = (*self.signature.inputs, *self.signature.outputs)
        return any(not isinstance(size, int) for spec in specs for size in spec.shape[1:])

    def _as_it_is(self, piece: Piece, bucket: Axes) -> bool:
        for spec in self.signature.inputs:
            array = piece.inputs[spec.name]
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                return False
            if self.batched and array.shape != self._shape(spec, piece.rows, bucket):
                return False
        return True

    def _gathered(
        self,
        spec: TensorSpec,
        pieces: Sequence[Piece],
        rows: int,
        bucket: Axes,
        buffers: dict[str, NDArray[Any]],
    ) -> NDArray[Any]:
        if not self.batched:
            return np.require(pieces[0].inputs[spec.name], requirements=["C", "A", "W"])
        dims = _dims(spec.name, spec.shape, bucket)[1:]
        buffer = buffers.get(spec.name)
        if buffer is None or buffer.shape[1:] != dims or len(buffer) < rows:
            buffer = buffers[spec.name] = np.empty((rows, *dims), _dtype(spec))
        whole = buffer[:rows]
        for piece in pieces:
            own = piece.inputs[spec.name][piece.first_row : piece.first_row + piece.rows]
            place = whole[piece.batch_row : piece.batch_row + piece.rows]
            if own.shape != place.shape:
                place[...] = self.fill.get(spec.name, _empty(spec))
                place = place[tuple(slice(size) for size in own.shape)]
            np.copyto(place, own)
        return whole

    def _shape(self, spec: TensorSpec, rows: int, bucket: Axes) -> tuple[int, ...]:
        dims = _dims(spec.name, spec.shape, bucket)
        return (rows, *dims[1:]) if self.batched else dims


@lru_cache(4096)
def _dims(name: str, shape: tuple[int | str | None, ...], bucket: Axes) -> tuple[int, ...]:
    """Returns the sizes of a tensor in a bucket; what is not known, as in outputs, is 1."""
    sizes = dict(bucket)
    return tuple(
        size if isinstance(size, int) else sizes.get(size or f"{name}.{place}", 1)
        for place, size in enumerate(shape)
    )


def _misfits(spec: TensorSpec, array: NDArray[Any]) -> list[str]:
    faults = []
    if array.dtype != _dtype(spec):
        faults.append(f"{spec.name} must have dtype {spec.dtype}, got {array.dtype}")
    fits = len(array.shape) == len(spec.shape) and all(
        got == size if isinstance(size, int) else got > 0
        for got, size in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        shape = list(array.shape)
        faults.append(f"{spec.name} must have shape {list(spec.shape)}, got {shape}")
    return faults


def _bytes(spec: TensorSpec, dims: Sequence[int]) -> int:
    return int(np.prod(dims, dtype=np.int64)) * _dtype(spec).itemsize


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    """Returns what holds the tensor: texts are objects."""
    return np.dtype(object if spec.dtype == TEXT else spec.dtype)


def _empty(spec: TensorSpec) -> Any:
    return "" if spec.dtype == TEXT else 0


def _texts(name: str, array: NDArray[Any]) -> NDArray[Any]:
    texts = np.empty(array.shape, object)
    for place, value in enumerate(array.flat):
        try:
            texts.flat[place] = value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError as error:
            raise Fault(
                f"{name}: expected UTF-8 text, got a byte that does not belong at {error.start} "
                f"of element {place}"
            ) from error
    return texts


def _part(size: int | str | None, sizes: Mapping[str, int]) -> slice:
    return slice(sizes[size]) if isinstance(size, str) and size in sizes else slice(None)
