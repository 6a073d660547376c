# SPDX-License-Identifier: Apache-2.0
"""Which rule follows which operator of the default domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from burnish.graph.channels.propagation import Propagation
from burnish.graph.channels.rules import (
    elementwise,
    linear,
    moving,
    normalizing,
    reducing,
    reshaping,
)

Rule = Callable[[Propagation, ir.Node], None]

_POOLING = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool"} | {"MaxPool"}
)
_REDUCTIONS = frozenset(
    {"ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(elementwise.UNARY, elementwise.unary),
    **dict.fromkeys(elementwise.BINARY, elementwise.broadcasting),
    **dict.fromkeys(_POOLING, reducing.pooling),
    **dict.fromkeys(_REDUCTIONS, reducing.reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), normalizing.over_axis),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), linear.recurrent),
    **dict.fromkeys(("Reshape", "Flatten"), reshaping.reshape),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), elementwise.quantizing),
    "Conv": linear.conv,
    "ConvTranspose": linear.conv_transpose,
    "Gemm": linear.gemm,
    "MatMul": linear.matmul,
    "Dropout": elementwise.dropout,
    "BatchNormalization": normalizing.batch_normalization,
    "InstanceNormalization": normalizing.instance_normalization,
    "GroupNormalization": normalizing.group_normalization,
    "LayerNormalization": normalizing.layer_normalization,
    "MeanVarianceNormalization": normalizing.mean_variance_normalization,
    "LRN": normalizing.local_response,
    "Resize": reducing.resize,
    "Concat": moving.concat,
    "Split": moving.split,
    "Slice": moving.slicing,
    "Gather": moving.gather,
    "Pad": moving.pad,
    "Tile": moving.tile,
    "Expand": moving.expand,
    "Transpose": moving.transpose,
    "Squeeze": moving.squeeze,
    "Unsqueeze": moving.unsqueeze,
    "DepthToSpace": moving.depth_to_space,
    "SpaceToDepth": moving.space_to_depth,
    "Shape": moving.shape,
}
