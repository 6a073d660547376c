# SPDX-License-Identifier: Apache-2.0
"""Folds a per-channel affine map into the linear operator before it.

A convolution, transposed convolution or Gemm gives  z = W ∗ x + b, with one row of W and
one entry of b for each output channel. What follows it may be

    case 1, BatchNormalization:  y = γ (z − μ) / √(σ² + ε) + β: a = γ / √(σ² + ε), c = β − a μ
    case 2, Mul by a constant:   y = a z
    case 3, Add of a constant:   y = z + c

each constant holding one number for each channel. Then  y = (a W) ∗ x + (a b + c): the
same operator with other weights. The arithmetic is done in float64 and rounded once.

Source: Jacob et al. 2018 (arXiv:1712.05877), equation 14, for case 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.graph.constants import constant

_LINEAR = {"Conv", "ConvTranspose", "Gemm"}
_AFFINE = {"BatchNormalization", "Mul", "Add"}


@dataclass(frozen=True)
class Affine:
    """y = scale · z + shift for each channel, both float64 of shape (channels,)."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def fold_affine(graph: ir.Graph) -> tuple[list[str], list[tuple[str, str]]]:
    """Folds every affine map that can be, in place.

    Returns what was done, as sentences, and what was not: (node, reason), for
    BatchNormalization only, since a Mul or Add that is no affine map is nothing unusual.
    """
    done: list[str] = []
    passed: list[tuple[str, str]] = []
    for node in list(graph):
        if node.domain not in ("", "ai.onnx") or node.op_type not in _AFFINE:
            continue
        reason = _fold(graph, node)
        if reason is None:
            done.append(f"{node.op_type} {node.name} folded into the weights before it")
        elif node.op_type == "BatchNormalization":
            passed.append((str(node.name), reason))
    return done, passed


def _fold(graph: ir.Graph, node: ir.Node) -> str | None:
    """Folds one node and returns None, or returns why it cannot be folded."""
    found = _operand(node)
    if found is None:
        return "its scale and shift are not constants"
    value, position = found
    linear = value.producer()
    if linear is None or linear.op_type not in _LINEAR or linear.domain not in ("", "ai.onnx"):
        source = f"{linear.op_type} {linear.name}" if linear else f"the input {value.name}"
        return f"it follows {source}, whose weights cannot take it"
    if len(value.uses()) != 1 or value.is_graph_output():
        return f"the output of {linear.op_type} {linear.name} is used elsewhere too"
    if node.op_type == "BatchNormalization":
        if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
            return "its running statistics are used elsewhere"
        if node.attributes.get_int("training_mode", 0):
            return "it is in training mode"
    weight = _constant(linear.inputs[1])
    bias_value = linear.inputs[2] if len(linear.inputs) > 2 else None
    bias = _constant(bias_value) if bias_value is not None else None
    if weight is None or (bias_value is not None and bias is None):
        return f"the weights of {linear.op_type} {linear.name} are not constants"
    channels = _channels(linear, weight)
    if channels is None:
        return f"{linear.op_type} {linear.name} scales its terms (alpha or beta is not 1)"
    affine = _affine(node, position, channels, weight.ndim)
    if affine is None:
        return f"its constants do not hold one number for each of {channels} channels"
    if bias is not None and bias.size not in (1, channels):
        return f"the bias of {linear.op_type} {linear.name} has the shape {list(bias.shape)}"
    start = np.zeros(channels) if bias is None else bias.astype(np.float64).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        new_weight = _scaled(linear, weight.astype(np.float64), affine.scale).astype(weight.dtype)
        new_bias = (affine.scale * start + affine.shift).astype(weight.dtype)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return "folding would give weights that are not finite"
    weight_name = str(linear.inputs[1].name) if linear.inputs[1] is not None else "weight"
    bias_name = str(bias_value.name) if bias_value is not None else f"{linear.name}.bias"
    linear.replace_input_with(1, _initializer(graph, weight_name, new_weight))
    if len(linear.inputs) < 3:
        linear.resize_inputs(3)
    linear.replace_input_with(2, _initializer(graph, bias_name, new_bias))
    _bypass(graph, node, value)
    return None


def _operand(node: ir.Node) -> tuple[ir.Value, int] | None:
    """Returns the input that is computed, and its position, when all others are constants."""
    computed = [
        (value, position)
        for position, value in enumerate(node.inputs)
        if value is not None and _constant(value) is None
    ]
    return computed[0] if len(computed) == 1 else None


def _constant(value: ir.Value | None) -> NDArray[np.floating] | None:
    array = constant(value)
    return array if array is not None and np.issubdtype(array.dtype, np.floating) else None


def _channels(linear: ir.Node, weight: NDArray[np.floating]) -> int | None:
    if linear.op_type == "Conv":
        return int(weight.shape[0])
    if linear.op_type == "ConvTranspose":
        return int(weight.shape[1]) * linear.attributes.get_int("group", 1)
    if linear.attributes.get_float("alpha", 1.0) != 1.0:
        return None
    if linear.attributes.get_float("beta", 1.0) != 1.0:
        return None
    return int(weight.shape[0 if linear.attributes.get_int("transB", 0) else 1])


def _affine(node: ir.Node, position: int, channels: int, rank: int) -> Affine | None:
    if node.op_type == "BatchNormalization":
        if position != 0:
            return None
        gamma, beta, mean, variance = (_constant(value) for value in node.inputs[1:5])
        if gamma is None or beta is None or mean is None or variance is None:
            return None
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        if any(one.shape != (channels,) for one in (gamma, beta, mean, variance)):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):  # not finite, so refused
            scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
            shift = beta.astype(np.float64) - scale * mean.astype(np.float64)
        return Affine(scale, shift)
    constant = _constant(node.inputs[1 - position])
    if constant is None or constant.ndim > rank:
        return None
    shape = [1] * (rank - constant.ndim) + list(constant.shape)
    # The channel axis is 1; every other must be 1, or the map is not per channel.
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (
        1,
        channels,
    ):
        return None
    numbers = np.broadcast_to(constant.reshape(shape[1]).astype(np.float64), channels)
    ones, zeros = np.ones(channels), np.zeros(channels)
    return Affine(numbers, zeros) if node.op_type == "Mul" else Affine(ones, numbers)


def _scaled(
    linear: ir.Node, weight: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    if linear.op_type == "Conv":
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if linear.op_type == "Gemm":
        by_row = linear.attributes.get_int("transB", 0)
        return weight * (scale[:, None] if by_row else scale[None, :])
    # A transposed convolution's weight is (in, out / group, …): input channel i belongs to
    # group i // (in / group), and so do the output channels of that group.
    group = linear.attributes.get_int("group", 1)
    rows = np.repeat(scale.reshape(group, -1), weight.shape[0] // group, axis=0)
    return weight * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.floating]) -> ir.Value:
    """Returns a new initializer; an old one of that name is kept when others use it."""
    old = graph.initializers.get(name)
    if old is not None and (len(old.uses()) > 1 or old.is_graph_output()):
        count = 1
        while f"{name}.{count}" in graph.initializers:
            count += 1
        name = f"{name}.{count}"
    elif old is not None:
        graph.initializers.pop(name)
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name,
        const_value=tensor,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
    )
    graph.register_initializer(value)
    return value


def _bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Takes `node` out: what used its first output uses `value`, under the output's name."""
    output = node.outputs[0]
    # A graph's output keeps the type and shape that it declares.
    value.type = output.type if output.type is not None else value.type
    value.shape = output.shape if output.shape is not None else value.shape
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    value.name = output.name
    graph.remove(node, safe=True)
