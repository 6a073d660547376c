# SPDX-License-Identifier: Apache-2.0
"""Shapes in which dimensions that vary are primes, so that products can be told apart.

A dimension that varies (batch, length) is given a prime that divides no other dimension of
the graph. Then every shape can be inferred, and what a Reshape does to each axis follows
from arithmetic: a size that is divisible by the prime varies, one that is not does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.optimizer import fold_constants

from burnish.graph.constants import sizes
from burnish.graph.opset import ONNX_ERRORS
from burnish.graph.skeleton import skeleton

Shape = tuple[int | None, ...]
_SMALL, _LARGE = 11, 211  # small first: a length must fit a table of positions
_SMALL_BYTES = 1024


@dataclass(frozen=True)
class Shapes:
    """Shapes by value name (None for a size that is not known), and the primes in them."""

    by_name: dict[str, Shape]
    primes: tuple[int, ...]

    def of(self, value: ir.Value) -> Shape | None:
        """Returns the shape of a value, None when not even its rank is known."""
        return self.by_name.get(str(value.name))

    def varies(self, size: int) -> bool:
        """Returns whether a size depends on the input's dimensions."""
        return any(size % prime == 0 for prime in self.primes)


def concrete_shapes(model: ir.Model) -> Shapes:
    """Returns the shapes of all values of the main graph; `model` stays as it is.

    Where the graph does not admit arbitrary sizes, those that the model itself knows.
    """
    for start in (_SMALL, _LARGE):
        copy = model.clone()
        primes = _substitute(copy, start)
        for node in copy.graph.all_nodes():
            for value in node.outputs:
                value.shape = None
            if node.op_type == "GroupNormalization" and node.domain == "":
                # The onnx package infers no shape for it; this has the same.
                node.op_type = "InstanceNormalization"
                node.attributes.clear()
        try:
            # Shapes that are computed from the input's become constants. Values that this
            # drops need no shape.
            fold_constants(copy, input_size_limit=_SMALL_BYTES, output_size_limit=_SMALL_BYTES)
            inferred = onnx.shape_inference.infer_shapes(
                skeleton(copy), strict_mode=True, data_prop=True
            )
        except ONNX_ERRORS:
            continue
        return Shapes(_read(inferred, model), primes)
    return Shapes(_own(model), ())


def _own(model: ir.Model) -> dict[str, Shape]:
    """Returns the shapes that the model itself knows."""
    own: dict[str, Shape] = {}
    for one in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
        found = sizes(one)
        if found is not None:
            own[str(one.name)] = tuple(found)
    return own


def _substitute(model: ir.Model, start: int) -> tuple[int, ...]:
    """Puts primes for the dimensions of the inputs that vary, and returns them."""
    taken = _numbers(model)
    primes = (
        one for one in _primes(start) if not any(number % one == 0 for number in taken if number)
    )
    by_symbol: dict[str, int] = {}
    given: list[int] = []
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        dims: list[int] = []
        for size in value.shape:
            if isinstance(size, int):
                dims.append(size)
                continue
            known = by_symbol.get(size.value) if size.value is not None else None
            prime = known or next(primes)
            if known is None:
                given.append(prime)
                if size.value is not None:
                    by_symbol[size.value] = prime
            dims.append(prime)
        value.shape = ir.Shape(dims)
    return tuple(given)


def _numbers(model: ir.Model) -> set[int]:
    """Returns every size that the graph holds, as dimension or in a constant of integers."""
    found: set[int] = set()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        found.update(tensor.shape.numpy())
        if tensor.dtype == ir.DataType.INT64 and tensor.size <= 16:
            found.update(abs(int(one)) for one in tensor.numpy().reshape(-1))
    for one in (*model.graph.inputs, *(v for node in model.graph for v in node.outputs)):
        found.update(size for size in sizes(one) or () if size is not None)
    return {one for one in found if one < np.iinfo(np.int32).max}  # not "to the end"


def _primes(start: int) -> Iterator[int]:
    number = start
    while True:
        if all(number % one for one in range(2, int(number**0.5) + 1)):
            yield number
        number += 1


def _read(inferred: onnx.ModelProto, model: ir.Model) -> dict[str, Shape]:
    # What folding dropped has a shape still, when it is the same for all inputs.
    shapes = {name: shape for name, shape in _own(model).items() if None not in shape}
    graph = inferred.graph
    for info in (*graph.value_info, *graph.input, *graph.output):
        tensor = info.type.tensor_type
        if tensor.HasField("shape"):
            shapes[info.name] = tuple(
                one.dim_value if one.HasField("dim_value") else None for one in tensor.shape.dim
            )
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple(value.const_value.shape.numpy())
    return shapes
