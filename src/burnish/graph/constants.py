# SPDX-License-Identifier: Apache-2.0
"""What a value always is: the array of a constant, the number in it, a known size."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Returns the array that a value always holds, or None when it is computed or given."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def number(value: ir.Value | None) -> float | None:
    """Returns the one number that a constant holds, whatever its rank; None otherwise."""
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(()))


def integers(value: ir.Value | None) -> list[int] | None:
    """Returns a constant vector of integers (axes, pads, a shape) as a list."""
    array = constant(value)
    if array is None or not np.issubdtype(array.dtype, np.integer):
        return None
    return [int(one) for one in array.reshape(-1)]


def sizes(value: ir.Value | None) -> list[int | None] | None:
    """Returns the dimensions of a value, None for each that varies; None for unknown rank."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else None for size in value.shape]


def private(value: ir.Value) -> bool:
    """Returns whether exactly one node reads the value, and the caller of the model does not."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def made_by(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """Returns the node that makes the value as its first output, if its operator is listed."""
    node = value.producer() if value is not None else None
    if node is None or node.domain != "" or node.op_type not in operators:
        return None
    return node if node.outputs[0] is value else None
