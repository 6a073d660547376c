# SPDX-License-Identifier: Apache-2.0
"""Decides which tensors are quantized, and which of them must share a grid.

Operators are of four kinds.

1. Compute (Conv, Gemm, MatMul, ConvTranspose with constant weights): their inputs must be
   quantized to run on int8 kernels.
2. Pass-through (MaxPool, Reshape, Concat, …): they only move values, so input and output
   share one grid, and they run on integers for free.
3. Element-wise and averaging (Add, GlobalAveragePool, …): they have int8 kernels, worth it
   only where their output is quantized anyway.
4. All others stay in float: what they read is dequantized, what they give is quantized
   again only when a compute operator reads it.

So a tensor is quantized when a compute operator downstream demands it; what follows the
last compute operator is never quantized, since its rounding would buy no speed.

Every such tensor is rounded, the one between a convolution and an Add too: ONNX Runtime
needs it so to use its int8 kernels at all, and OpenVINO then computes the Add inside the
convolution. (Leaving that tensor in float, as some quantizers do, was measured: equal on
OpenVINO, slower than fp32 on ONNX Runtime.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from burnish.core.technique import Skipped

_WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1}
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASS = {
    "MaxPool",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Concat",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
}
_ELEMENT = {"Add", "Mul", "AveragePool", "GlobalAveragePool"}
_CLAMPS = {"Relu", "Clip"}


@dataclass(frozen=True)
class Compute:
    """A compute node to quantize: its weight, and the channel axis of the weight's scales."""

    node: ir.Node
    weight: ir.Value
    axis: int


@dataclass(frozen=True)
class Plan:
    """What to quantize: the compute nodes, and groups of tensors that share a grid.

    Tensors and groups are in the order of the graph, so that the result is the same each
    time.
    """

    compute: tuple[Compute, ...]
    groups: tuple[tuple[ir.Value, ...], ...]
    skipped: tuple[Skipped, ...]

    @property
    def tensors(self) -> list[ir.Value]:
        """All tensors to quantize."""
        return [value for group in self.groups for value in group]


def plan(graph: ir.Graph, keep_float: Iterable[str] = ()) -> Plan:
    """Returns what to quantize in a fused graph; `keep_float` are names of nodes to leave."""
    kept = set(keep_float)
    compute: list[Compute] = []
    skipped: list[Skipped] = []
    for node in graph:
        if node.op_type not in COMPUTE or node.domain not in ("", "ai.onnx"):
            continue
        found = _compute(node)
        if node.name in kept:
            skipped.append(Skipped(f"{node.op_type} {node.name}", "left in float as asked"))
        elif isinstance(found, str):
            skipped.append(Skipped(f"{node.op_type} {node.name}", found))
        else:
            compute.append(found)
    demanded = _demanded(graph, {one.node for one in compute}, kept)
    return Plan(tuple(compute), tuple(_groups(graph, demanded)), tuple(skipped))


def _compute(node: ir.Node) -> Compute | str:
    """Returns how to quantize a compute node, or why it cannot be."""
    data, weight = node.inputs[0], node.inputs[1]
    if weight is None or weight.const_value is None:
        return "its second operand is computed, not a constant weight"
    if data is None or data.const_value is not None:
        return "its first operand is a constant"
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.const_value.dtype}, and only FLOAT is quantized"
    if weight.is_graph_output() or data.shape is None:
        return "the shape of its input is not known"
    if node.op_type == "Gemm":
        if node.attributes.get_int("transA", 0):
            return "its input is transposed"
        if (
            node.attributes.get_float("alpha", 1.0) != 1
            or node.attributes.get_float("beta", 1.0) != 1
        ):
            return "it scales its terms (alpha or beta is not 1)"
        return Compute(node, weight, 0 if node.attributes.get_int("transB", 0) else 1)
    if node.op_type == "MatMul":
        if len(weight.const_value.shape) != 2:
            return "its weight is not a matrix"
        return Compute(node, weight, 1)
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) != 1:
        return "a grouped transposed convolution has no per-channel int8 kernel"
    return Compute(node, weight, _WEIGHT_AXIS[node.op_type])


def _demanded(graph: ir.Graph, compute: set[ir.Node], kept: set[str]) -> set[ir.Value]:
    """Returns the tensors to quantize: one walk from the outputs to the inputs."""
    demanded: set[ir.Value] = set()
    # What a Relu or Clip in front of a quantizer reads is wanted too: the clamp belongs to
    # the operator before it, and only its output is rounded.
    clamped: set[ir.Value] = set()
    for node in reversed(list(graph)):
        inputs = [v for v in node.inputs if v is not None and v.const_value is None]
        wanted = any(output in demanded or output in clamped for output in node.outputs)
        if node in compute:
            demanded.add(inputs[0])
        elif wanted and node.name not in kept and all(_is_float(v) for v in inputs):
            if node.op_type in _CLAMPS:
                clamped.update(inputs)
            elif _on_integers(node, inputs):
                demanded.update(inputs)
    return {value for value in demanded if _is_float(value)}


def _on_integers(node: ir.Node, inputs: list[ir.Value]) -> bool:
    """Returns whether the node has an int8 form: it moves values, or combines computed ones."""
    if node.op_type in _PASS:
        return moves_only(node)
    return node.op_type in _ELEMENT and len(inputs) == len(node.inputs)


def moves_only(node: ir.Node) -> bool:
    """Returns whether a node's values all are those of its computed inputs (or a padding of 0)."""
    if node.op_type == "Concat":
        return all(value is not None and value.const_value is None for value in node.inputs)
    if node.op_type != "Pad":
        return node.op_type in _PASS
    if node.attributes.get_string("mode", "constant") != "constant":
        return True
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return fill is None or (fill.const_value is not None and not fill.const_value.numpy().any())


def _groups(graph: ir.Graph, demanded: set[ir.Value]) -> list[tuple[ir.Value, ...]]:
    """Returns the tensors, those joined by pass-through operators together."""
    leader: dict[ir.Value, ir.Value] = {}

    def find(value: ir.Value) -> ir.Value:
        while leader.get(value, value) is not value:
            value = leader[value]
        return value

    for node in graph:
        if not moves_only(node):
            continue
        inputs = [value for value in node.inputs if value in demanded]
        output = node.outputs[0]
        if inputs and output in demanded:
            for value in inputs:
                leader[find(value)] = find(output)
    ordered = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    groups: dict[ir.Value, list[ir.Value]] = {}
    for value in ordered:
        if value in demanded:
            groups.setdefault(find(value), []).append(value)
    return [tuple(group) for group in groups.values()]


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT
