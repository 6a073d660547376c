# SPDX-License-Identifier: Apache-2.0
"""What a model costs on paper: parameters, weight bytes and multiply-accumulates.

Such counts describe a network; they do not predict its latency, which is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx
import onnx_ir as ir

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.graph.canonical import first_lines, infer_types
from burnish.graph.folding import fold
from burnish.graph.opset import ONNX_ERRORS
from burnish.graph.skeleton import skeleton

_NO_PARAMETERS = frozenset({ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING})
# These multiply too, in ways that are not counted here.
_UNCOUNTED = frozenset(
    {"Einsum", "If", "Loop", "Scan", "DeformConv", "ConvInteger", "MatMulInteger"}
    | {"QLinearConv", "QLinearMatMul", "DFT"}
)


@dataclass(frozen=True)
class Cost:
    """Counts for a batch of one.

    `parameters` counts the elements of all weights (BatchNormalization's statistics and
    quantization scales too; shapes and indices, which are int64, not). `macs_by_node`
    holds the multiply-accumulates of convolutions, matrix products and recurrent layers;
    a node that multiplies but could not be counted is in `skipped`.
    """

    parameters: int
    weight_bytes: int
    macs_by_node: Mapping[str, int]
    skipped: tuple[Skipped, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates in all; a lower bound when something was skipped."""
        return sum(self.macs_by_node.values())


def cost(model: Model) -> Cost:
    """Returns what the model costs for one sample, from shapes inferred at batch 1."""
    graph = model.edit()
    tensors = [
        value.const_value
        for one in graph.graphs()
        for value in one.initializers.values()
        if value.const_value is not None
    ]
    shapes = _shapes(graph)
    macs: dict[str, int] = {}
    skipped: list[Skipped] = []
    for node in graph.graph:
        place = f"{node.name} ({node.op_type})"
        if node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx.ml"):
            skipped.append(Skipped(place, f"the products of {node.op_type} are not counted"))
        elif node.op_type in _COUNTS:
            try:
                macs[str(node.name)] = _COUNTS[node.op_type](node, shapes)
            except _Unknown as unknown:
                skipped.append(Skipped(place, f"the shape of {unknown} is not known"))
    return Cost(
        parameters=sum(one.size for one in tensors if one.dtype not in _NO_PARAMETERS),
        weight_bytes=sum(one.nbytes for one in tensors),
        macs_by_node=macs,
        skipped=tuple(skipped),
    )


class _Unknown(Exception):
    """A shape that inference did not find."""


class _Shapes(dict[str, tuple[int, ...]]):
    def of(self, value: ir.Value | None) -> tuple[int, ...]:
        name = "an absent input" if value is None else str(value.name)
        if name not in self:
            raise _Unknown(name)
        return self[name]


def _shapes(graph: ir.Model) -> _Shapes:
    """Returns the shapes that are known entirely when each input's first axis, if dynamic, is 1."""
    for value in graph.graph.inputs:
        if value.shape is not None and value.shape.rank() and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *list(value.shape)[1:]])
    for node in graph.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    shapes = _inferred(graph)
    if any(value.name not in shapes for node in graph.graph for value in node.outputs):
        # Sizes that are computed from the batch, as exporters write them, are constants now.
        folded = graph.clone()
        infer_types(folded, "the model")
        fold(folded)
        shapes = _Shapes(_inferred(folded) | shapes)
    for name, value in graph.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple(value.const_value.shape.numpy())
    return shapes


def _inferred(graph: ir.Model) -> _Shapes:
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(graph), data_prop=True)
    except ONNX_ERRORS as error:
        raise Misuse(f"the model's shapes cannot be inferred: {first_lines(error)}") from error
    shapes = _Shapes()
    for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        tensor = info.type.tensor_type
        dims = [one.dim_value if one.HasField("dim_value") else None for one in tensor.shape.dim]
        if tensor.HasField("shape") and None not in dims:
            shapes[info.name] = tuple(one for one in dims if one is not None)
    return shapes


def _conv(node: ir.Node, shapes: _Shapes) -> int:
    weight = shapes.of(node.inputs[1])  # (out channels, in channels / group, *kernel)
    return prod(shapes.of(node.outputs[0])) * prod(weight[1:])


def _conv_transpose(node: ir.Node, shapes: _Shapes) -> int:
    weight = shapes.of(node.inputs[1])  # (in channels, out channels / group, *kernel)
    return prod(shapes.of(node.inputs[0])) * prod(weight[1:])


def _gemm(node: ir.Node, shapes: _Shapes) -> int:
    left = shapes.of(node.inputs[0])
    inner = left[0] if node.attributes.get_int("transA", 0) else left[1]
    return prod(shapes.of(node.outputs[0])) * inner


def _matmul(node: ir.Node, shapes: _Shapes) -> int:
    return prod(shapes.of(node.outputs[0])) * shapes.of(node.inputs[0])[-1]


def _recurrent(node: ir.Node, shapes: _Shapes) -> int:
    steps, batch, _ = shapes.of(node.inputs[0])  # either order: only their product counts
    weight = shapes.of(node.inputs[1])  # (directions, gates × hidden, inputs)
    recurrence = shapes.of(node.inputs[2])  # (directions, gates × hidden, hidden)
    return steps * batch * (prod(weight) + prod(recurrence))


_COUNTS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
