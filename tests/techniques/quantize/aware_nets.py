# SPDX-License-Identifier: Apache-2.0
"""A network with depthwise convolutions for the digits, whose channels differ a hundredfold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper
from small_models import make

from burnish.core.model import Model

WIDTH = 16


def depthwise(seed: int = 0) -> Model:
    """Returns an untrained MobileNet of two blocks: depthwise 3×3, Relu, 1×1, with a residual."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes = []

    def conv(x: str, y: str, c_in: int, c_out: int, k: int, **attributes: int) -> str:
        fan = k * k * c_in // attributes.get("group", 1)
        shape = (c_out, c_in // attributes.get("group", 1), k, k)
        weights[f"{y}.w"] = rng.normal(0, np.sqrt(2 / fan), shape)
        parts = {"scale": np.ones, "bias": np.zeros, "mean": np.zeros, "var": np.ones}
        weights.update({f"{y}.{key}": fill(c_out) for key, fill in parts.items()})
        stride = attributes.pop("stride", 1)
        nodes.append(
            helper.make_node(
                "Conv", [x, f"{y}.w"], [f"{y}.c"], f"{y}.conv",
                pads=[k // 2] * 4, strides=[stride, stride], **attributes,
            )
        )  # fmt: skip
        names = [f"{y}.{key}" for key in parts]
        nodes.append(
            helper.make_node("BatchNormalization", [f"{y}.c", *names], [f"{y}.n"], f"{y}.norm")
        )
        return f"{y}.n"

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.r"], f"{x}.relu"))
        return f"{x}.r"

    x = relu(conv("image", "stem", 1, WIDTH, 3))
    inner = relu(conv(x, "dw1", WIDTH, WIDTH, 3, group=WIDTH))
    inner = conv(inner, "pw1", WIDTH, WIDTH, 1)
    nodes.append(helper.make_node("Add", [x, inner], ["sum"], "add"))
    inner = relu(conv("sum", "dw2", WIDTH, WIDTH, 3, group=WIDTH, stride=2))
    x = relu(conv(inner, "pw2", WIDTH, 2 * WIDTH, 1))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    weights |= {"head.w": rng.normal(0, 0.2, (10, 2 * WIDTH)), "head.b": np.zeros(10)}
    nodes.append(
        helper.make_node("Gemm", ["flat", "head.w", "head.b"], ["logits"], "head", transB=1)
    )
    return make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [("logits", TensorProto.FLOAT, ["batch", 10])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )


def stretched(model: Model, largest: float, seed: int = 0) -> Model:
    """Returns the same function with channels between depthwise and 1×1 scaled by up to `largest`.

    Relu lets a positive factor pass, so what one normalization multiplies the next
    convolution divides; only quantization with one scale for a tensor notices.
    """
    graph, rng = model.edit(), np.random.default_rng(seed)
    values = graph.graph.initializers

    def change(name: str, factor: np.ndarray) -> None:
        array = values[name].const_value.numpy()
        changed = (array * factor).astype(np.float32)
        values[name].const_value = ir.tensor(changed, name=name)

    for block in ("1", "2"):
        factor = largest ** rng.uniform(-0.5, 0.5, WIDTH)
        change(f"dw{block}.scale", factor)
        change(f"dw{block}.bias", factor)
        change(f"pw{block}.w", 1 / factor[None, :, None, None])
    return Model(graph)
