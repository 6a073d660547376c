# SPDX-License-Identifier: Apache-2.0
"""The dense model that a cut one must equal.

A channel that is cut is one that nobody reads. So the same weights that a cut removes from
the layers that read a channel ("consumer" slices: columns of a matrix, input planes of a
filter) are set to zero here, and all else stays. What happens to the channel on its way,
a bias, a BatchNormalization shift, a sigmoid that makes 0.5 out of 0, is of no account, so
this holds for every operator. (Zeroing what *makes* the channel would not do: an offset
behind it would bring it to life again.) Of quantized weights, zero is their zero point.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.model import Model
from burnish.graph.channels.cut import dead_roots
from burnish.graph.channels.groups import find_groups
from burnish.graph.constants import constant


def zero(graph: Model | ir.Model, keep: Mapping[str, Sequence[int]]) -> ir.Model:
    """Returns a copy of the graph, of the same shapes, in which nothing reads other channels.

    Arguments and errors are those of `cut`, whose result computes the same outputs.
    """
    model = graph.edit() if isinstance(graph, Model) else graph.clone()
    found = find_groups(model)
    dead_roots(found, keep)  # raises what is wrong
    places: dict[tuple[str, int], set[int]] = defaultdict(set)
    for group in found.groups:
        if group.name not in keep:
            continue
        gone = sorted(set(range(group.size)) - {int(one) for one in keep[group.name]})
        for one in group.slices:
            if one.role == "consumer":
                for channel in gone:
                    places[one.initializer, one.axis].update(one.positions[channel])
    for (name, axis), gone_places in places.items():
        _clear(model.graph.initializers[name], axis, sorted(gone_places))
    return model


def _clear(value: ir.Value, axis: int, places: Sequence[int]) -> None:
    tensor = value.const_value
    if tensor is None or not places:
        return
    array = tensor.numpy().copy()
    where: tuple[Any, ...] = (slice(None),) * axis + (list(places),)
    array[where] = np.broadcast_to(_zero_point(value, array), array.shape)[where]
    value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=value.name)


def _zero_point(value: ir.Value, array: NDArray[Any]) -> NDArray[Any]:
    """Returns what stands for zero, in a shape that broadcasts to the array's."""
    for use in value.uses():
        node = use.node
        if node.op_type == "DequantizeLinear" and use.idx == 0 and len(node.inputs) > 2:
            point = constant(node.inputs[2])
            if point is not None and point.size > 1:
                shape = [1] * array.ndim
                shape[node.attributes.get_int("axis", 1)] = point.size
                return point.reshape(shape)
            if point is not None:
                return point.reshape(())
    return np.zeros((), dtype=array.dtype)
