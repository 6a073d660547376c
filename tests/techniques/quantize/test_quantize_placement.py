# SPDX-License-Identifier: Apache-2.0
"""Which tensors are quantized, and which share a grid, in small graphs written out."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from quantizable_models import FLOAT, build, convolutional_classifier, inferred, op, weights
from small_models import make

from burnish.core.model import Model
from burnish.techniques.quantize.placement import Plan, plan

MAP = ["batch", 3, 8, 8]


def names(model: Model, keep_float: tuple[str, ...] = ()) -> tuple[list[str], list[list[str]]]:
    found = planned(model, keep_float)
    return [str(one.node.name) for one in found.compute], [
        [str(value.name) for value in group] for group in found.groups
    ]


def planned(model: Model, keep_float: tuple[str, ...] = ()) -> Plan:
    return plan(model.edit().graph, keep_float)


def test_residual_network() -> None:
    assert names(convolutional_classifier()) == (
        ["c1", "c2", "y"],
        [["x"], ["r1", "p1"], ["c2"], ["r2"], ["g", "f"]],
    )


def test_what_a_relu_reads_is_left_to_the_operator_before_it() -> None:
    nodes = [op("Conv", "x w1", "a"), op("Relu", "a", "b"), op("Conv", "b w2", "y")]
    constants = weights(w1=(4, 3, 3, 3), w2=(4, 4, 1, 1))
    model = build(nodes, MAP, {"y": ["batch", 4, 6, 6]}, constants)
    assert names(model) == (["a", "y"], [["x"], ["b"]])


def test_what_follows_the_last_compute_operator_is_float() -> None:
    nodes = [
        op("Conv", "x w", "a"),
        op("MaxPool", "a", "b", kernel_shape=[2, 2]),
        op("Softmax", "b", "y", axis=1),
    ]
    model = build(nodes, MAP, {"y": ["batch", 4, 5, 5]}, weights(w=(4, 3, 3, 3)))
    assert names(model) == (["a"], [["x"]])


def test_concat_shares_one_grid() -> None:
    nodes = [
        op("Conv", "x w1", "a"),
        op("Relu", "a", "ra"),
        op("Conv", "x w2", "b"),
        op("Concat", "ra b", "c", axis=1),
        op("Conv", "c w3", "y"),
    ]
    constants = weights(w1=(2, 3, 1, 1), w2=(3, 3, 1, 1), w3=(4, 5, 1, 1))
    model = build(nodes, MAP, {"y": ["batch", 4, 8, 8]}, constants)
    assert names(model) == (["a", "b", "y"], [["x"], ["ra", "b", "c"]])


def test_concat_with_a_constant_shares_nothing() -> None:
    nodes = [op("Concat", "x k", "c", axis=1), op("Conv", "c w", "y")]
    constants = weights(w=(4, 5, 1, 1), k=(1, 2, 8, 8))
    model = build(nodes, [1, 3, 8, 8], {"y": [1, 4, 8, 8]}, constants)
    assert names(model) == (["y"], [["c"]])


def test_squeeze_and_excitation() -> None:
    nodes = [
        op("Conv", "x w1", "a"),
        op("GlobalAveragePool", "a", "g"),
        op("Conv", "g w2", "b"),
        op("Sigmoid", "b", "s"),
        op("Mul", "a s", "m"),
        op("Conv", "m w3", "y"),
    ]
    constants = weights(w1=(4, 3, 1, 1), w2=(4, 4, 1, 1), w3=(2, 4, 1, 1))
    model = build(nodes, MAP, {"y": ["batch", 2, 8, 8]}, constants)
    # The sigmoid is a float island: what it reads is not rounded.
    assert names(model) == (["a", "b", "y"], [["x"], ["a"], ["g"], ["s"], ["m"]])


def attention() -> Model:
    nodes = [
        op("LayerNormalization", "x g", "n"),
        op("MatMul", "n wq", "q"),
        op("MatMul", "n wk", "k"),
        op("Transpose", "k", "kt", perm=[0, 2, 1]),
        op("MatMul", "q kt", "scores"),
        op("Softmax", "scores", "p"),
        op("MatMul", "p n", "o"),
        op("MatMul", "o wo", "h"),
        op("Add", "h x", "y"),
    ]
    constants = weights(wq=(6, 6), wk=(6, 6), wo=(6, 6), g=(6,))
    return build(nodes, ["batch", 5, 6], {"y": ["batch", 5, 6]}, constants)


def test_attention_and_normalization_stay_in_float() -> None:
    model = attention()
    assert names(model) == (["q", "k", "h"], [["n"], ["o"]])
    reasons = {one.place: one.reason for one in planned(model).skipped}
    assert set(reasons) == {"MatMul scores", "MatMul o"}
    assert "computed" in reasons["MatMul scores"]


def test_keep_float_leaves_nodes_and_what_only_they_wanted() -> None:
    compute, groups = names(convolutional_classifier(), ("c2", "s"))
    assert compute == ["c1", "y"]
    assert groups == [["x"], ["r2"], ["g", "f"]]
    skipped = planned(convolutional_classifier(), ("c2",)).skipped
    assert [(one.place, one.reason) for one in skipped] == [("Conv c2", "left in float as asked")]


def pad(fill: float | None, mode: str = "constant") -> Model:
    nodes = [
        op("Conv", "x w1", "a"),
        op("Pad", "a pads" + ("" if fill is None else " fill"), "p", mode=mode),
        op("Conv", "p w2", "y"),
    ]
    constants = weights(w1=(4, 3, 1, 1), w2=(4, 4, 3, 3))
    constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    if fill is not None:
        constants["fill"] = np.float32(fill)
    return build(nodes, MAP, {"y": ["batch", 4, 8, 8]}, constants)


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        (pad(None), [["x"], ["a", "p"]]),
        (pad(0.0), [["x"], ["a", "p"]]),
        (pad(None, "reflect"), [["x"], ["a", "p"]]),
        (pad(-3.0), [["x"], ["p"]]),
    ],
)
def test_padding_moves_only_when_it_fills_with_zero(model: Model, groups) -> None:
    assert names(model)[1] == groups


@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_an_average_has_a_grid_of_its_own(count_include_pad: int) -> None:
    nodes = [
        op("Conv", "x w1", "a"),
        op(
            "AveragePool",
            "a",
            "p",
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            count_include_pad=count_include_pad,
        ),
        op("Conv", "p w2", "y"),
    ]
    constants = weights(w1=(4, 3, 1, 1), w2=(4, 4, 1, 1))
    model = build(nodes, MAP, {"y": ["batch", 4, 8, 8]}, constants)
    assert names(model)[1] == [["x"], ["a"], ["p"]]


def test_an_output_that_a_convolution_reads_is_rounded_for_it_alone() -> None:
    nodes = [op("Conv", "x w1", "features"), op("Conv", "features w2", "y")]
    constants = weights(w1=(4, 3, 1, 1), w2=(4, 4, 1, 1))
    sizes = ["batch", 4, 8, 8]
    model = build(nodes, MAP, {"features": sizes, "y": sizes}, constants)
    assert names(model) == (["features", "y"], [["x"], ["features"]])


def test_integer_inputs_stay_as_they_are() -> None:
    constants = weights(table=(20, 6), w=(6, 3))
    nodes = [op("Gather", "table ids", "e"), op("MatMul", "e w", "y")]
    made = make(
        nodes,
        [("ids", TensorProto.INT64, ["batch", "t"])],
        [("y", FLOAT, ["batch", "t", 3])],
        constants,
    )
    assert names(inferred(made)) == (["y"], [["e"]])


@pytest.mark.parametrize(
    ("node", "shape", "shapes", "reason"),
    [
        (op("Gemm", "x w", "y", transA=1), [6, 6], {"w": (6, 4)}, "transposed"),
        (op("Gemm", "x w", "y", alpha=0.5), ["b", 6], {"w": (6, 4)}, "alpha or beta"),
        (op("MatMul", "x w", "y"), [2, 5, 6], {"w": (2, 6, 4)}, "not a matrix"),
        (op("MatMul", "w x", "y"), [6, 5], {"w": (3, 6)}, "computed"),
        (
            op("ConvTranspose", "x w", "y", group=2),
            ["b", 4, 8, 8],
            {"w": (4, 2, 2, 2)},
            "grouped transposed",
        ),
    ],
)
def test_each_refusal_has_its_reason(node, shape, shapes, reason) -> None:
    after = helper.make_node("Identity", ["y"], ["z"], "z")
    model = make([node, after], [("x", FLOAT, shape)], [("z", FLOAT, None)], weights(**shapes))
    found = planned(model)
    assert not found.compute
    assert [one.place for one in found.skipped] == [f"{node.op_type} y"]
    assert reason in found.skipped[0].reason
