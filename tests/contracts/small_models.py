# SPDX-License-Identifier: Apache-2.0
"""Small models that every engine must run, built node by node."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from burnish.core.model import OPSET, Model


def make(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
    weights: dict[str, np.ndarray] | None = None,
    domains: tuple[str, ...] = (),
) -> Model:
    """Returns a Model of these nodes; inputs and outputs are (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(d, 1) for d in domains)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Model(ir.serde.deserialize_model(proto))


def convolutional(seed: int = 0) -> Model:
    """Returns a residual network: image (n, 3, 16, 16) to logits (n, 10)."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (10, 8)).astype(np.float32),
        "b3": rng.normal(0, 0.3, 10).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], "add"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], "head", transB=1),
    ]
    return make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )


def two_inputs() -> Model:
    """Returns a text-like model with integer ids, a mask and two free dimensions."""
    table = np.random.default_rng(1).normal(0, 1, (20, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"], "embed"),
        helper.make_node("Cast", ["mask"], ["m"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["m3"], "expand"),
        helper.make_node("Mul", ["a", "m3"], ["masked"], "mask_out"),
        helper.make_node("ReduceSum", ["masked", "middle"], ["pooled"], "sum", keepdims=0),
        helper.make_node("ArgMax", ["pooled"], ["answer"], "answer_of", axis=1, keepdims=0),
    ]
    return make(
        nodes,
        [
            ("ids", TensorProto.INT64, ["batch", "length"]),
            ("mask", TensorProto.BOOL, ["batch", "length"]),
        ],
        [
            ("pooled", TensorProto.FLOAT, ["batch", 6]),
            ("answer", TensorProto.INT64, ["batch"]),
        ],
        {"table": table, "last": np.array([2]), "middle": np.array([1])},
    )


def quantized(seed: int = 0) -> Model:
    """Returns an int8 QDQ convolution: u8 activations, s8 weights with a scale per channel."""
    rng = np.random.default_rng(seed)
    float_weights = rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
    scales = (np.abs(float_weights).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    integer = np.rint(float_weights / scales[:, None, None, None]).astype(np.int8)
    weights = {
        "xs": np.float32(4 / 255),
        "xz": np.uint8(128),
        "w": integer,
        "ws": scales,
        "wz": np.zeros(8, np.int8),
        "ys": np.float32(8 / 255),
        "yz": np.uint8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "xs", "xz"], ["xq"], "q_in"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], "dq_in"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "dq_w", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "ys", "yz"], ["yq"], "q_out"),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["features"], "dq_out"),
    ]
    return make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [("features", TensorProto.FLOAT, ["batch", 8, 8, 8])],
        weights,
    )


def unknown_operator() -> Model:
    """Returns a model whose second node no engine knows."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "first"),
        helper.make_node("Wobble", ["a"], ["y"], "strange_7", domain="com.example"),
    ]
    return make(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        domains=("com.example",),
    )


def random_inputs(model: Model, batch: int, seed: int = 0, length: int = 5) -> dict:
    """Returns inputs that fit the model's signature; a free dimension after the first is `length`.

    Floats are standard normal, integers below 20.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for spec in model.signature.inputs:
        shape = [
            size if isinstance(size, int) else (batch if axis == 0 else length)
            for axis, size in enumerate(spec.shape)
        ]
        if spec.dtype == "bool":
            made[spec.name] = rng.random(shape) < 0.7
        elif np.dtype(spec.dtype).kind in "iu":
            made[spec.name] = rng.integers(0, 20, shape).astype(spec.dtype)
        else:
            made[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return made
