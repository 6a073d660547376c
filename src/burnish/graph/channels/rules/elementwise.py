# SPDX-License-Identifier: Apache-2.0
"""Operators that work on each element by itself, broadcast, or quantize."""

from __future__ import annotations

import onnx_ir as ir

from burnish.graph.channels.propagation import Axis, Propagation, Refusal
from burnish.graph.constants import constant

UNARY = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast"}
    | {"CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"}
    | {"Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log"}
    | {"Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"}
    | {"Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"}
    | {"ThresholdedRelu"}
)
BINARY = frozenset(
    {"Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod"}
    | {"Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"}
)


def unary(p: Propagation, node: ir.Node) -> None:
    """Each element by itself; further inputs are single numbers, or only give a type."""
    p.give(node, p.axes(node.inputs[0]))
    if node.op_type in ("Identity", "Cast"):
        p.move_origin(node)


def broadcasting(p: Propagation, node: ir.Node) -> None:
    """Elements of several tensors, broadcast to one shape."""
    p.give(node, p.broadcast(node, [p.axes(value) for value in node.inputs]))


def dropout(p: Propagation, node: ir.Node) -> None:
    """Dropout, which passes everything on; its mask has the same axes."""
    training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and (training is None or training.any()):
        raise Refusal("is in training mode")
    for index in range(len(node.outputs)):
        p.give(node, p.axes(node.inputs[0]), index)


def quantizing(p: Propagation, node: ir.Node) -> None:
    """QuantizeLinear and DequantizeLinear, by one scale or by one for each channel."""
    x = p.axes(node.inputs[0])
    if node.attributes.get_int("block_size", 0):
        raise Refusal("quantizes in blocks")
    for value in node.inputs[1:]:
        if value is None or not (scale := p.axes(value)):
            continue
        if len(scale) != 1:
            raise Refusal("quantizes in blocks")
        axis = node.attributes.get_int("axis", 1)
        if scale[0] is not None and scale[0].size == 1 and not _one_channel(x, axis):
            continue
        if not -len(x) <= axis < len(x):
            raise Refusal("has an axis that does not exist")
        p.join(node, x[axis], scale[0])
    p.give(node, x)
    p.move_origin(node)


def _one_channel(x: list[Axis], axis: int) -> bool:
    ids = x[axis] if -len(x) <= axis < len(x) else None
    return ids is not None and ids.size == 1
