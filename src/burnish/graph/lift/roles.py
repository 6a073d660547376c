# SPDX-License-Identifier: Apache-2.0
"""Which initializers are trained.

An ONNX file does not say which of its constants were parameters. Trained is what

1. is a floating-point tensor;
2. is read as a weight: by an operator whose input is one (`_WEIGHTS`: a convolution's or
   a recurrent layer's weights and biases, an affine scale, an embedding table), or as an
   operand of MatMul, Add, Mul, Concat or Where with more than one element (a bias, a layer
   scale, a class token), directly or moved first (`_MOVES`: reshaped, sliced, quantized…);
3. is finite and everywhere below 10,000: an attention mask is neither.

Not trained is a convolution's bias of zeros before a BatchNormalization, which exporters
fill in: the normalization cancels it. Running means and variances, quantization scales,
epsilons, limits and single factors are not weights by rule 2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_MASK = 1e4
_FLOATS = (
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16,
)  # fmt: skip

_WEIGHTS: dict[str, frozenset[int]] = {
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "DeformConv": frozenset({1, 3}),
    "CausalConvWithState": frozenset({1, 2}),
    "Gemm": frozenset({0, 1, 2}),
    "BatchNormalization": frozenset({1, 2}),
    "InstanceNormalization": frozenset({1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
    "PRelu": frozenset({1}),
    "LSTM": frozenset({1, 2, 3, 7}),
    "GRU": frozenset({1, 2, 3}),
    "RNN": frozenset({1, 2, 3}),
    "Gather": frozenset({0}),
}
_OPERANDS = ("MatMul", "Einsum", "Add", "Mul", "Sum", "Concat", "Where")
_MOVES = (
    "Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Tile",
    "Flatten", "Identity", "Cast", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip


def is_trained(value: ir.Value) -> bool:
    """Returns whether an initializer is a parameter by the rule above."""
    tensor = value.const_value
    if tensor is None or tensor.dtype not in _FLOATS or value.is_graph_input():
        return False
    if tensor.size == 0 or not _is_weight(value, tensor.size):
        return False
    array = np.asarray(tensor.numpy())
    if not array.any() and _is_cancelled(value):
        return False
    return bool(np.isfinite(array).all() and np.abs(array).max() < _MASK)


def _is_weight(value: ir.Value, size: int) -> bool:
    for use in value.uses():
        node, position = use.node, use.idx
        if node.domain not in ("", "ai.onnx"):
            continue
        if position in _WEIGHTS.get(node.op_type, ()):
            return True
        if node.op_type in _OPERANDS and size > 1:
            return True
        if node.op_type in _MOVES and position == 0 and _is_weight(node.outputs[0], size):
            return True
    return False


def _is_cancelled(value: ir.Value) -> bool:
    """Returns whether the value is only a bias whose sum goes only to BatchNormalization."""
    return all(
        use.idx == 2
        and use.node.op_type in ("Conv", "ConvTranspose")
        and not use.node.outputs[0].is_graph_output()
        and all(
            after.node.op_type == "BatchNormalization" and after.idx == 0
            for after in use.node.outputs[0].uses()
        )
        for use in value.uses()
    )
