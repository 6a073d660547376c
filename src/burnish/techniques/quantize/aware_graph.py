# SPDX-License-Identifier: Apache-2.0
"""Takes a QDQ graph apart for training, and puts it together again.

    stored      integers → DequantizeLinear → Conv
    trained     float weights ─────────────→ Conv

The float form holds every quantized weight W as a float initializer; who trains it rounds
W on the way. Its start is the weight that the float model had, moved no further than it takes
for W to round to the stored integers, so that training begins at exactly the stored graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.techniques.quantize.placement import COMPUTE
from burnish.techniques.train.untie import untied

_WITHIN = 0.49  # of a step from its level: what a weight is moved to
_ALIKE = 0.5  # the most squared error, as a share of the weight's, of a rounded form


@dataclass(frozen=True)
class Weight:
    """A weight: its initializers (float here; integers and scale as stored), limits, start.

    `axis` is the channel axis, None for one scale.
    """

    name: str
    data: str
    scale: str
    axis: int | None
    low: int
    high: int
    start: NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """A step size that can be learned: its initializer, and the tensors that it rounds.

    `tensors` are activations; a weight's step has none. `high`: the largest integer.
    """

    scale: str
    tensors: tuple[str, ...]
    high: int


@dataclass(frozen=True)
class Layer:
    """A layer with a float bias: the bias, and the scales of its input and its weight."""

    bias: str
    input_scale: str
    weight_scale: str


@dataclass(frozen=True)
class FloatForm:
    """A QDQ model taken apart: `stored` as it is, `graph` to train, and what belongs together.

    `frozen`: float initializers that stay as they are.
    """

    stored: Model
    graph: ir.Model
    weights: tuple[Weight, ...]
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    frozen: frozenset[str]
    n_known: int
    skipped: tuple[Skipped, ...]

    @property
    def last(self) -> str | None:
        """The scale of the last activation in the graph's order that is rounded."""
        found = None
        for node in self.stored.edit().graph:
            if node.op_type == "QuantizeLinear" and node.inputs[1] is not None:
                found = node.inputs[1] if node.inputs[1].const_value is not None else found
        return None if found is None else str(found.name)

    def scales(self) -> dict[str, NDArray[np.float32]]:
        """Returns the stored scales of weights, steps and layers, by name."""
        names = {one.scale for one in self.weights} | {one.scale for one in self.steps}
        for layer in self.layers:
            names |= {layer.input_scale, layer.weight_scale}
        names |= {self.last} if self.last is not None else set()
        values = self.stored.edit().graph.initializers
        return {name: _array(values[name]) for name in sorted(names)}


def is_quantized(model: Model) -> bool:
    """Returns whether the graph holds QuantizeLinear or DequantizeLinear nodes."""
    names = ("QuantizeLinear", "DequantizeLinear")
    return any(node.op_type in names for node in model.edit().graph)


def take_apart(model: Model, sources: Sequence[Model], bits: int = 0) -> FloatForm:
    """Returns the float form of a QDQ model.

    `sources`: float models whose nodes may have the same names, to take weights from. `bits`: of
    the weights; 0 reads it off their integers.
    """
    stored = Model(_untied(untied(model)), model.lineage)
    graph = stored.edit()
    skipped: list[Skipped] = []
    weights: list[Weight] = []
    shared: dict[tuple[str, str], ir.Value] = {}
    known = 0
    floats = [_weights_of(source) for source in sources]
    for node in list(graph.graph):
        if not _holds_weight(node):
            continue
        reason = _refusal(node)
        if reason is not None:
            skipped.append(Skipped(f"weight {_name(node.inputs[0])}", reason))
            continue
        data, scale = _name(node.inputs[0]), _name(node.inputs[1])
        if (data, scale) not in shared:
            weight, found = _weight(node, floats, bits)
            known += found
            weights.append(weight)
            shared[data, scale] = _initializer(graph.graph, weight.name, weight.start)
        for use in list(node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, shared[data, scale])
    fixed = _fixed(stored)
    RemoveUnusedNodesPass()(graph)
    steps = [
        *_weight_steps(weights, fixed),
        *_activation_steps(stored.edit().graph, fixed),
    ]
    return FloatForm(
        stored,
        graph,
        tuple(weights),
        tuple(steps),
        tuple(_layers(stored.edit().graph)),
        _normalizing(graph.graph),
        known,
        tuple(skipped),
    )


def put_together(
    form: FloatForm,
    trained: ir.Model,
    integers: Mapping[str, NDArray[np.int8]],
    scales: Mapping[str, NDArray[np.float32]],
) -> ir.Model:
    """Returns the stored graph with the float initializers of `trained`, integers and scales.

    `integers`: by the weight's float name; `scales`: by their own.
    """
    graph = form.stored.edit()
    values = graph.graph.initializers
    for name, value in trained.graph.initializers.items():
        if name in values and value.const_value is not None:
            values[name].const_value = value.const_value
    changed: dict[str, NDArray[Any]] = dict(scales)
    changed |= {weight.data: integers[weight.name] for weight in form.weights}
    for name, array in changed.items():
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        values[name].const_value = ir.tensor(contiguous, name=name)
    return graph


def near(
    weight: NDArray[np.float32],
    integers: NDArray[np.integer],
    scale: NDArray[np.float32],
    low: int,
    high: int,
) -> NDArray[np.float32]:
    """Returns the values nearest to `weight` that round to `integers`; `scale` broadcasts.

    >>> near(np.float32([0.8, 0.2, 9.0]), np.int8([0, 0, 7]), np.float32(1.0), -7, 7)
    array([0.49, 0.2 , 9.  ], dtype=float32)
    """
    rounds = np.clip(np.rint(weight / scale), low, high) == integers
    moved = np.clip(weight, (integers - _WITHIN) * scale, (integers + _WITHIN) * scale)
    return np.where(rounds, weight, moved).astype(np.float32)


def _weight(
    node: ir.Node, floats: Sequence[Mapping[tuple[str, int], NDArray[np.float32]]], bits: int
) -> tuple[Weight, bool]:
    """Returns the weight behind a DequantizeLinear, and whether its float values are known."""
    data, scale = _array(node.inputs[0]), _array(node.inputs[1]).astype(np.float32)
    axis = None if scale.size == 1 else node.attributes.get_int("axis", 1) % data.ndim
    spread = spread_along(scale, data.ndim, axis)
    wide = data.astype(np.int32)
    largest = int(np.abs(wide).max())
    high = 2 ** ((bits or max(2, largest.bit_length() + 1)) - 1) - 1
    high = min(max(high, largest), 127)
    low = min(-high, int(wide.min()))
    rounded = (wide * spread).astype(np.float32)
    start, best = rounded, _ALIKE * float(np.square(rounded, dtype=np.float64).sum())
    known = False
    for use in node.outputs[0].uses():
        for source in floats:
            weight = source.get((str(use.node.name), use.idx))
            if weight is None or weight.shape != data.shape:
                continue
            error = float(np.square(rounded - weight, dtype=np.float64).sum())
            if error < best:
                start, best, known = near(weight, wide, spread, low, high), error, True
    name = f"{_name(node.inputs[0])}.float"
    return Weight(name, _name(node.inputs[0]), _name(node.inputs[1]), axis, low, high, start), known


def spread_along(scale: NDArray[np.float32], ndim: int, axis: int | None) -> NDArray[np.float32]:
    """Returns a scale shaped to meet a weight: scalar, or along its channel axis."""
    shape = [1] * ndim if axis is not None else []
    if axis is not None:
        shape[axis] = -1
    return scale.reshape(shape)


def _weights_of(model: Model) -> dict[tuple[str, int], NDArray[np.float32]]:
    """Returns the constant inputs of each node, by node name and position."""
    return {
        (str(node.name), position): _array(value)
        for node in model.edit().graph
        for position, value in enumerate(node.inputs)
        if value is not None
        and value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and value.const_value.size > 1
    }


def _holds_weight(node: ir.Node) -> bool:
    if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    held = node.inputs[0].const_value
    return held is not None and held.size > 1 and held.dtype != ir.DataType.INT32


def _refusal(node: ir.Node) -> str | None:
    """Returns why a stored weight cannot be trained."""
    data, scale = node.inputs[0], node.inputs[1]
    if data is None or scale is None or scale.const_value is None:
        return "its scale is computed"
    if data.const_value is None or data.const_value.dtype != ir.DataType.INT8:
        return f"only int8 weights are trained, and it is {data.dtype}"
    if scale.const_value.dtype != ir.DataType.FLOAT:
        return f"its scale is {scale.const_value.dtype}, and only FLOAT is trained"
    if node.attributes.get_int("block_size", 0):
        return "its scales are for blocks"
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and (zero.const_value is None or zero.const_value.numpy().any()):
        return "its zero point is not 0"
    return None


def _untied(model: Model) -> ir.Model:
    """Returns the graph with integers copied that weights of other scales share by chance."""
    graph = model.edit()
    owner: dict[str, str] = {}
    for number, node in enumerate(list(graph.graph)):
        if not _holds_weight(node) or _refusal(node) is not None:
            continue
        data, scale = _name(node.inputs[0]), _name(node.inputs[1])
        if owner.setdefault(data, scale) != scale:
            copy = _initializer(graph.graph, f"{data}.{number}", _array(node.inputs[0]))
            node.replace_input_with(0, copy)
    return graph


def _fixed(model: Model) -> set[str]:
    """Returns the scales that stay: of a layer whose bias is stored as integers.

    Engines take such a bias as a multiple of the other two scales, whatever its own says.
    """
    found: set[str] = set()
    for node in model.edit().graph:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.op_type in COMPUTE and bias is not None and bias.producer() is not None:
            scales = (_scale_of(value) for value in node.inputs[:2])
            found |= {scale for scale in scales if scale is not None}
    return found


def _weight_steps(weights: Sequence[Weight], fixed: set[str]) -> Iterator[Step]:
    highest: dict[str, int] = {}
    for weight in weights:
        highest[weight.scale] = max(highest.get(weight.scale, 0), weight.high)
    for scale, high in highest.items():
        if scale not in fixed:
            yield Step(scale, (), high)


def _activation_steps(graph: ir.Graph, fixed: set[str]) -> Iterator[Step]:
    """Yields the steps of computed activations; one that several share comes once.

    An input keeps its own: its range is the data's, and its levels may be its pixels'.
    """
    computed: set[ir.Value] = set()
    found: dict[str, list[ir.Node]] = {}
    for node in graph:
        if node.op_type in COMPUTE or any(value in computed for value in node.inputs if value):
            computed.update(node.outputs)
        if node.op_type == "QuantizeLinear":
            found.setdefault(_name(node.inputs[1]), []).append(node)
    for scale, nodes in found.items():
        value = graph.initializers.get(scale)
        if value is None or value.const_value is None or value.const_value.size != 1:
            continue
        activations = all(node.inputs[0] in computed for node in nodes)
        own = all(_is_activation(use.node) for use in value.uses())
        if scale not in fixed and activations and own and value.dtype == ir.DataType.FLOAT:
            yield Step(scale, tuple(_name(node.inputs[0]) for node in nodes), _highest(nodes[0]))


def _is_activation(node: ir.Node) -> bool:
    data = node.inputs[0]
    return (
        node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and data is not None
        and data.const_value is None
    )


def _highest(node: ir.Node) -> int:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = ir.DataType.UINT8 if zero is None or zero.dtype is None else zero.dtype
    return int(2 ** (dtype.bitwidth - dtype.is_signed()) - 1)


def _layers(graph: ir.Graph) -> Iterator[Layer]:
    for node in graph:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.op_type not in ("Conv", "Gemm") or bias is None or bias.const_value is None:
            continue
        scales = [_scale_of(value) for value in node.inputs[:2]]
        if scales[0] is not None and scales[1] is not None and len(bias.uses()) == 1:
            yield Layer(_name(bias), scales[0], scales[1])


def _normalizing(graph: ir.Graph) -> frozenset[str]:
    return frozenset(
        _name(value)
        for node in graph
        if node.op_type == "BatchNormalization"
        for value in node.inputs[1:3]
        if value is not None and value.const_value is not None
    )


def _scale_of(value: ir.Value | None) -> str | None:
    made = value.producer() if value is not None else None
    if made is None or made.op_type != "DequantizeLinear":
        return None
    scale = made.inputs[1]
    return None if scale is None or scale.const_value is None else str(scale.name)


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    while name in graph.initializers or name in taken:
        name += "_"
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name,
        const_value=tensor,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
    )
    graph.register_initializer(value)
    return value


def _name(value: ir.Value | None) -> str:
    return "" if value is None else str(value.name)


def _array(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None
    assert value.const_value is not None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array
