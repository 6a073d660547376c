# SPDX-License-Identifier: Apache-2.0
"""Folding an affine map never changes what is computed, and is refused where it would."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_models import make

from burnish.core.model import Model
from burnish.graph.affine import fold_affine


def run(model: Model | onnx.ModelProto, inputs: dict) -> list:
    """Returns the outputs as ONNX Runtime computes them node by node, folding nothing itself.

    ONNX's own reference evaluator fails on grouped transposed convolutions.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    content = model.to_bytes() if isinstance(model, Model) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def folded(model: Model) -> tuple[Model, list[str], list[tuple[str, str]]]:
    graph = model.edit()
    done, passed = fold_affine(graph.graph)
    return Model(graph), done, passed


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.edit().graph]


@st.composite
def networks(draw) -> tuple[Model, np.ndarray, int]:
    """Returns a linear operator followed by affine maps, an input, and how many maps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["Conv", "ConvTranspose", "Gemm"]))
    dims = 0 if kind == "Gemm" else draw(st.integers(1, 2))
    groups = 1 if kind == "Gemm" else draw(st.integers(1, 3))
    into = draw(st.integers(1, 3)) * groups
    channels = draw(st.integers(1, 3)) * groups
    with_bias = draw(st.booleans())
    attributes: dict = {}
    if kind == "Gemm":
        by_row = draw(st.booleans())
        shape = (channels, into) if by_row else (into, channels)
        attributes["transB"] = int(by_row)
    else:
        kernel = draw(st.integers(1, 3))
        attributes |= {
            "group": groups,
            "strides": [draw(st.integers(1, 2))] * dims,
            "dilations": [draw(st.integers(1, 2))] * dims,
            "pads": [draw(st.integers(0, 1))] * (2 * dims),
        }
        first = (channels, into // groups) if kind == "Conv" else (into, channels // groups)
        shape = (*first, *[kernel] * dims)
    weights = {"w": rng.normal(size=shape).astype(np.float32)}
    if with_bias:
        weights["b"] = rng.normal(size=channels).astype(np.float32)
    names = ["x", "w", "b"] if with_bias else ["x", "w"]
    nodes = [helper.make_node(kind, names, ["v0"], "linear", **attributes)]
    maps = draw(st.lists(st.sampled_from(["BatchNormalization", "Mul", "Add"]), max_size=3))
    for place, operator in enumerate(maps):
        value, out = f"v{place}", f"v{place + 1}"
        if operator == "BatchNormalization":
            parts = [f"{part}{place}" for part in ("gamma", "beta", "mean", "var")]
            for part in parts[:3]:
                weights[part] = rng.normal(size=channels).astype(np.float32)
            weights[parts[3]] = rng.uniform(0.1, 3, channels).astype(np.float32)
            nodes.append(helper.make_node(operator, [value, *parts], [out], f"map{place}"))
        else:
            size = draw(st.sampled_from([1, channels]))
            ones = draw(st.booleans())  # broadcast from the right, or with the batch spelled out
            weights[f"c{place}"] = rng.normal(
                size=(*([1] if ones else []), size, *[1] * dims)
            ).astype(np.float32)
            operands = [value, f"c{place}"]
            if draw(st.booleans()):
                operands.reverse()
            nodes.append(helper.make_node(operator, operands, [out], f"map{place}"))
    last = f"v{len(maps)}"
    nodes.append(helper.make_node("Identity", [last], ["y"], "end"))
    x = rng.normal(size=(2, into, *[7] * dims)).astype(np.float32)
    model = make(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])],
        [("y", TensorProto.FLOAT, ["batch", *[None] * (dims + 1)])],
        weights,
    )
    return model, x, len(maps)


@settings(max_examples=80, deadline=None)
@given(networks())
def test_folding_changes_nothing(case: tuple[Model, np.ndarray, int]) -> None:
    model, x, count = case
    new, done, passed = folded(model)
    assert len(done) == count
    assert not passed
    assert operators(new)[1:] == ["Identity"]
    computed = terms(model, x)
    (expected,), (got,) = run(model, {"x": x}), run(new, {"x": x})
    assert got.shape == expected.shape
    # Relative to the largest term of the sums: an Add may cancel what came before it.
    scale = max(float(np.abs(one).max()) for one in computed)
    assert np.abs(got - expected).max() <= 1e-5 * scale


def terms(model: Model, x: np.ndarray) -> list[np.ndarray]:
    """Returns every value that the model computes on its way."""
    proto = onnx.load_from_string(model.to_bytes())
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    weights = [onnx.numpy_helper.to_array(one) for one in proto.graph.initializer]
    return [*run(proto, {"x": x}), *weights]


def batch_norm(inputs: str = "c g e m v", outputs: tuple[str, ...] = ("y",), **attributes):
    return helper.make_node(
        "BatchNormalization", inputs.split(), list(outputs), "bn", epsilon=1e-3, **attributes
    )


def weights(**more: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    given = {
        "w": rng.normal(size=(4, 3, 1, 1)),
        "g": rng.normal(size=4),
        "e": rng.normal(size=4),
        "m": rng.normal(size=4),
        "v": rng.uniform(0.5, 2, size=4),
    }
    return {name: array.astype(np.float32) for name, array in (given | more).items()}


IMAGE = ("x", TensorProto.FLOAT, ["batch", 3, 5, 5])
RESULT = ("y", TensorProto.FLOAT, ["batch", 4, 5, 5])
CONV = helper.make_node("Conv", ["x", "w"], ["c"], "conv")


def refused(nodes, constants=None, inputs=(IMAGE,), outputs=(RESULT,)) -> str:
    model = make(list(nodes), list(inputs), list(outputs), constants or weights())
    new, done, passed = folded(model)
    assert not done
    assert new.digest == model.digest
    ((node, reason),) = passed
    assert node == "bn"
    return reason


def test_two_consumers_are_refused() -> None:
    relu = helper.make_node("Relu", ["c"], ["z"], "relu")
    other = ("z", TensorProto.FLOAT, ["batch", 4, 5, 5])
    reason = refused([CONV, batch_norm(), relu], outputs=(RESULT, other))
    assert reason == "the output of Conv conv is used elsewhere too"


def test_an_output_of_the_model_is_refused() -> None:
    given = ("c", TensorProto.FLOAT, ["batch", 4, 5, 5])
    reason = refused([CONV, batch_norm()], outputs=(RESULT, given))
    assert reason == "the output of Conv conv is used elsewhere too"


def test_computed_statistics_are_refused() -> None:
    constants = weights()
    del constants["g"]
    reason = refused([CONV, batch_norm()], constants, inputs=(IMAGE, ("g", TensorProto.FLOAT, [4])))
    assert reason == "its scale and shift are not constants"


def test_training_mode_is_refused() -> None:
    reason = refused([CONV, batch_norm(outputs=("y", "rm", "rv"), training_mode=1)])
    assert reason == "it is in training mode"


def test_what_follows_no_linear_operator_is_refused() -> None:
    relu = helper.make_node("Relu", ["c0"], ["c"], "relu")
    conv = helper.make_node("Conv", ["x", "w"], ["c0"], "conv")
    assert refused([conv, relu, batch_norm()]) == (
        "it follows Relu relu, whose weights cannot take it"
    )


def test_what_follows_the_input_is_refused() -> None:
    names = ("c", TensorProto.FLOAT, ["batch", 4, 5, 5])
    constants = weights()
    del constants["w"]
    assert refused([batch_norm()], constants, inputs=(names,)) == (
        "it follows the input c, whose weights cannot take it"
    )


def test_computed_weights_are_refused() -> None:
    constants = weights()
    del constants["w"]
    given = ("w", TensorProto.FLOAT, [4, 3, 1, 1])
    assert refused([CONV, batch_norm()], constants, inputs=(IMAGE, given)) == (
        "the weights of Conv conv are not constants"
    )


@pytest.mark.filterwarnings("error")
def test_numbers_that_are_not_finite_are_refused() -> None:
    broken = weights(v=np.array([-1, 1, 1, 1]))
    assert refused([CONV, batch_norm()], broken) == "folding would give weights that are not finite"


def test_a_scaled_gemm_is_refused() -> None:
    gemm = helper.make_node("Gemm", ["x", "w"], ["c"], "gemm", alpha=2.0)
    constants = weights(w=np.ones((3, 4)))
    reason = refused(
        [gemm, batch_norm()],
        constants,
        inputs=(("x", TensorProto.FLOAT, ["batch", 3]),),
        outputs=(("y", TensorProto.FLOAT, ["batch", 4]),),
    )
    assert reason == "Gemm gemm scales its terms (alpha or beta is not 1)"


def test_a_bias_by_row_is_refused() -> None:
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["c"], "gemm")
    reason = refused(
        [gemm, batch_norm()],
        weights(w=np.ones((3, 4)), b=np.ones((2, 4))),
        inputs=(("x", TensorProto.FLOAT, [2, 3]),),
        outputs=(("y", TensorProto.FLOAT, [2, 4]),),
    )
    assert reason == "the bias of Gemm gemm has the shape [2, 4]"


@pytest.mark.parametrize("shape", [(5,), (4, 5, 5), (2, 4, 1, 1), (1, 1, 1, 1, 1)])
def test_a_constant_that_is_not_per_channel_stays(shape: tuple[int, ...]) -> None:
    node = helper.make_node("Mul", ["c", "k"], ["y"], "mul")
    out = ("y", TensorProto.FLOAT, [None] * max(4, len(shape)))
    constants = {"w": weights()["w"], "k": np.ones(shape, np.float32)}
    new, done, passed = folded(make([CONV, node], [IMAGE], [out], constants))
    assert (done, passed) == ([], [])
    assert operators(new) == ["Conv", "Mul"]


def test_shared_weights_are_scaled_for_one_user_only() -> None:
    nodes = [
        CONV,
        helper.make_node("Conv", ["x", "w"], ["d"], "other"),
        batch_norm("c g e m v", ("n",)),
        helper.make_node("Add", ["n", "d"], ["y"], "add"),
    ]
    model = make(nodes, [IMAGE], [RESULT], weights())
    new, done, _ = folded(model)
    assert len(done) == 1
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(run(new, {"x": x})[0], run(model, {"x": x})[0], atol=1e-5)


def test_the_output_keeps_its_name_and_shape() -> None:
    model = make([CONV, batch_norm()], [IMAGE], [RESULT], weights())
    new, done, _ = folded(model)
    assert len(done) == 1
    assert new.signature == model.signature
