# SPDX-License-Identifier: Apache-2.0
"""Quantized models are sound, small, the same on every engine, and near the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from quantizable_models import (
    FLOAT,
    build,
    context,
    convolutional_classifier,
    inferred,
    op,
    run,
    signal_to_noise,
    task,
    weights,
)
from small_models import convolutional, make, random_inputs
from technique_contract import TechniqueContract

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context
from burnish.engines.openvino import OpenVino
from burnish.techniques.quantize.grid import Grid
from burnish.techniques.quantize.static import QuantizeStatic

MAP = ["batch", 4, 8, 8]
OUT = {"y": ["batch", "c", "h", "w"]}


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.edit().graph]


def constants(model: Model) -> dict[str, np.ndarray]:
    values = model.edit().graph.initializers.values()
    return {str(v.name): v.const_value.numpy() for v in values if v.const_value is not None}


def proto(model: Model) -> onnx.ModelProto:
    return onnx.load_from_string(model.to_bytes())


def quantize(model: Model, n: int = 16, **fields: Any) -> Model:
    return QuantizeStatic(weight_bits=8, **fields).apply(model, context(model, n)).model


def typed(model: Model) -> Model:
    return inferred(model)


class OneModel(TechniqueContract):
    models = (lambda: typed(convolutional()),)

    @pytest.fixture
    def context(self) -> Context:
        return context(convolutional(), 9)


class TestDefault(OneModel):
    @pytest.fixture
    def technique(self) -> QuantizeStatic:
        return QuantizeStatic()


class TestGptq(OneModel):
    @pytest.fixture
    def technique(self) -> QuantizeStatic:
        return QuantizeStatic(rounding="gptq", ranges="entropy", weight_bits=7, samples=5)


class TestPlain(OneModel):
    @pytest.fixture
    def technique(self) -> QuantizeStatic:
        return QuantizeStatic(
            ranges="percentile",
            percentile=99.9,
            activations="s8",
            per_channel=False,
            correct_bias=False,
            keep_float=("head",),
        )


CASES: dict[str, tuple[list[onnx.NodeProto], list[int | str], dict[str, tuple[int, ...]]]] = {
    "no bias": ([op("Conv", "x w", "y")], MAP, {"w": (6, 4, 3, 3)}),
    "bias": ([op("Conv", "x w b", "y")], MAP, {"w": (6, 4, 3, 3), "b": (6,)}),
    "grouped": ([op("Conv", "x w", "y", group=2)], MAP, {"w": (6, 2, 3, 3)}),
    "depthwise": (
        [op("Conv", "x w b", "y", group=4, pads=[1, 1, 1, 1], strides=[2, 2])],
        MAP,
        {"w": (4, 1, 3, 3), "b": (4,)},
    ),
    "dilated": ([op("Conv", "x w", "y", dilations=[2, 2])], MAP, {"w": (6, 4, 3, 3)}),
    "1-D": ([op("Conv", "x w", "y", pads=[1, 1])], ["batch", 4, 20], {"w": (6, 4, 3)}),
    "transposed": (
        [op("ConvTranspose", "x w b", "y", strides=[2, 2])],
        MAP,
        {"w": (4, 6, 2, 2), "b": (6,)},
    ),
    "Gemm": ([op("Gemm", "x w", "y")], ["batch", 12], {"w": (12, 7)}),
    "Gemm transposed": (
        [op("Gemm", "x w b", "y", transB=1)],
        ["batch", 12],
        {"w": (7, 12), "b": (7,)},
    ),
    "Gemm row bias": ([op("Gemm", "x w b", "y")], ["batch", 12], {"w": (12, 7), "b": (1, 7)}),
    "Gemm matrix bias": ([op("Gemm", "x w b", "y")], [4, 12], {"w": (12, 7), "b": (4, 7)}),
    "MatMul rank 3": ([op("MatMul", "x w", "y")], ["batch", 5, 12], {"w": (12, 7)}),
    "shared weight": (
        [op("Conv", "x w", "a"), op("Relu", "a", "r"), op("Conv", "r w", "y")],
        MAP,
        {"w": (4, 4, 1, 1)},
    ),
    "concat of what it reads": (
        [
            op("Conv", "x w", "a"),
            op("Conv", "a u", "b"),
            op("Concat", "a b", "c", axis=1),
            op("Conv", "c v", "y"),
        ],
        MAP,
        {"w": (4, 4, 1, 1), "u": (4, 4, 1, 1), "v": (2, 8, 1, 1)},
    ),
    "output inside": (
        [op("Conv", "x w", "a"), op("Conv", "a v", "y")],
        MAP,
        {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1)},
    ),
}


def case(name: str) -> Model:
    nodes, shape, shapes = CASES[name]
    batch = shape[0]
    outputs: dict[str, Any] = {"y": [batch, *"abc"[: len(shape) - 1]]}
    if name == "output inside":
        outputs["a"] = [batch, 4, 8, 8]
    made = weights(**shapes)
    if name == "concat of what it reads":
        made["u"] *= 8  # its range is far wider than that of what it reads
    return build(nodes, shape, outputs, made)


@pytest.mark.parametrize("rounding", ["nearest", pytest.param("gptq", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_each_operator_is_sound_and_near(name: str, rounding: str) -> None:
    model = case(name)
    made = quantize(model, rounding=rounding)
    onnx.checker.check_model(proto(made), full_check=True)
    batch = CASES[name][1][0]
    n = batch if isinstance(batch, int) else 3
    inputs = {
        "x": np.random.default_rng(8).standard_normal((n, *model.signature.inputs[0].shape[1:]))
    }
    inputs = {"x": np.clip(inputs["x"], -2.5, 2.5).astype(np.float32)}
    expected, got = run(model, inputs), run(made, inputs)
    names = [spec.name for spec in model.signature.outputs]
    simulated = dict(zip(names, ReferenceEvaluator(proto(made)).run(None, inputs), strict=True))
    with OpenVino().open(made, Setting()) as session:
        elsewhere = session.run(inputs)
    for out in names:
        assert signal_to_noise(expected[out], got[out]) > 28
        # int8 kernels round bias and sums a little differently: at most a level at a tensor.
        assert signal_to_noise(simulated[out], got[out]) > 35
        assert signal_to_noise(simulated[out], elsewhere[out]) > 35
    assert {a.dtype for k, a in constants(made).items() if k.endswith((".q", ".q.1"))} == {
        np.dtype(np.int8)
    }


def test_a_shared_weight_is_stored_once() -> None:
    stored = [a for a in constants(quantize(case("shared weight"))).values() if a.size == 16]
    assert [a.dtype for a in stored] == [np.dtype(np.int8)]


def test_the_reference_evaluator_simulates_the_whole_network() -> None:
    model = convolutional_classifier()
    for fields in ({}, {"rounding": "gptq"}, {"activations": "s8"}, {"per_channel": False}):
        made = quantize(model, **fields)
        inputs = task(model, 8, seed=9).split("calibration").inputs
        expected = ReferenceEvaluator(proto(made)).run(None, inputs)[0]
        assert signal_to_noise(expected, run(made, inputs)["y"]) > 30
        assert signal_to_noise(run(model, inputs)["y"], expected) > 20
        with OpenVino().open(made, Setting()) as session:
            assert signal_to_noise(expected, session.run(inputs)["y"]) > 25


def test_weights_are_int8_with_a_scale_for_each_channel_and_small() -> None:
    model = convolutional_classifier(64)
    made = quantize(model)
    assert made.size_bytes <= 0.3 * model.size_bytes
    held = constants(made)
    assert held["w2.q"].dtype == np.int8
    assert held["w2.scale"].shape == (64,)
    assert constants(quantize(model, per_channel=False))["w2.scale"].shape == ()


@pytest.mark.parametrize("kind", ["u8", "s8"])
@pytest.mark.parametrize("top", [None, 0.5, 100.0])
def test_a_clamp_is_absorbed_only_when_the_grid_clamps_the_same(
    kind: str, top: float | None
) -> None:
    nodes = [
        op("Conv", "x w", "a"),
        op("Relu", "a", "b") if top is None else op("Clip", "a low top", "b"),
        op("Conv", "b v", "y"),
    ]
    made = weights(w=(4, 4, 1, 1), v=(4, 4, 1, 1))
    if top is not None:
        made |= {"low": np.float32(0), "top": np.float32(top)}
    model = build(nodes, MAP, OUT, made)
    got = quantize(model, activations=kind, ranges="minmax")
    clamps = [kind for kind in operators(got) if kind in ("Relu", "Clip")]
    assert (not clamps) == (kind == "u8")
    # Far outside of what calibration saw, the clamp still holds.
    inputs = {"x": 50 * np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)}
    if top is not None:
        scales = [a for k, a in constants(got).items() if "scale" in k and a.ndim == 0]
        assert len(scales) == 2
    assert np.isfinite(run(got, inputs)["y"]).all()


def test_a_clip_with_a_computed_bound_stays() -> None:
    nodes = [
        op("Conv", "x w", "a"),
        op("ReduceMax", "x", "top", keepdims=0),
        op("Clip", "a low top", "b"),
        op("Conv", "b v", "y"),
    ]
    made = weights(w=(4, 4, 1, 1), v=(4, 4, 1, 1)) | {"low": np.float32(0)}
    assert "Clip" in operators(quantize(build(nodes, MAP, OUT, made)))


@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_survive_dead_channels_and_dead_inputs(per_channel: bool) -> None:
    # Engines round a bias to the product of the scales of input and weight, in 32 bits.
    nodes = [
        op("Conv", "x w b", "a"),
        op("Relu", "a", "r"),
        op("Conv", "r v c", "d"),
        op("Relu", "d", "e"),
        op("Conv", "e u c", "y"),
    ]
    made = weights(w=(4, 4, 3, 3), b=(4,), v=(4, 4, 1, 1), u=(4, 4, 1, 1))
    made["w"][1] = 0
    made["w"][2] *= 1e-9
    made["b"] = np.float32([0.5, 1.5, 1.2, 0.2])
    made["c"] = np.float32([0.5, -1.5, 2.0, 0.1])
    made["v"][:] = 0
    model = build(nodes, MAP, OUT, made)
    got = quantize(model, per_channel=per_channel)
    inputs = task(model, 4, seed=1).split("calibration").inputs
    assert signal_to_noise(run(model, inputs)["y"], run(got, inputs)["y"]) > 25
    dead = build([op("Relu", "x", "r"), op("Conv", "r w b", "y")], MAP, OUT, made)
    below = {"x": -np.abs(inputs["x"])}
    applied = QuantizeStatic(weight_bits=8).apply(dead, context(dead, 4, **below))
    expected = run(dead, below)["y"]
    np.testing.assert_allclose(run(applied.model, below)["y"], expected, atol=0.01)


def test_bias_correction_takes_off_the_mean_error() -> None:
    rng = np.random.default_rng(0)
    x = (2 + rng.standard_normal((64, 40))).astype(np.float32)
    model = build([op("Gemm", "x w b", "y")], ["batch", 40], "y", weights(w=(40, 9), b=(9,)))
    expected = run(model, {"x": x})["y"]
    errors = {}
    for correct in (True, False):
        for rounding in ("nearest", "gptq"):
            step = QuantizeStatic(weight_bits=4, correct_bias=correct, rounding=rounding)
            made = step.apply(model, context(model, x=x)).model
            got = ReferenceEvaluator(proto(made)).run(None, {"x": x})[0]
            errors[correct, rounding] = np.abs((got - expected).mean(axis=0)).max()
    for rounding in ("nearest", "gptq"):
        assert errors[True, rounding] < 0.01
        assert errors[True, rounding] < errors[False, rounding] / 5


def test_values_that_are_not_finite_are_noted_and_do_no_harm() -> None:
    nodes = [op("Sqrt", "x", "s"), op("Conv", "s w b", "y")]
    model = build(nodes, MAP, OUT, weights(w=(6, 4, 1, 1), b=(6,)))
    x = np.random.default_rng(0).uniform(0, 4, (6, 4, 8, 8)).astype(np.float32)
    x[0, 0, 0, 0], x[1, 1, 1, 1] = -1, np.inf
    for rounding in ("nearest", "gptq"):
        step = QuantizeStatic(weight_bits=8, rounding=rounding)
        outcome = step.apply(model, context(model, x=x))
        assert [(one.place, one.reason) for one in outcome.skipped] == [
            ("s", "2 values were not finite")
        ]
        good = {"x": x[2:]}
        assert signal_to_noise(run(model, good)["y"], run(outcome.model, good)["y"]) > 30


def test_a_tensor_that_is_never_finite_is_named() -> None:
    model = build(
        [op("Sqrt", "x", "root"), op("MatMul", "root w", "y")], ["batch", 4], "y", weights(w=(4, 2))
    )
    with pytest.raises(Misuse, match="tensor root"):
        QuantizeStatic().apply(model, context(model, x=np.full((3, 4), -1, np.float32)))


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_a_model_of_fixed_batch_size(batch: int, n: int, rounding: str) -> None:
    model = convolutional_classifier(batch=batch)
    made = quantize(model, n, rounding=rounding)
    inputs = random_inputs(model, batch)
    assert signal_to_noise(run(model, inputs)["y"], run(made, inputs)["y"]) > 15


def test_two_inputs_share_nothing_and_both_are_rounded() -> None:
    nodes = [
        op("MatMul", "a w", "p"),
        op("MatMul", "b v", "q"),
        op("Add", "p q", "s"),
        op("MatMul", "s u", "y"),
    ]
    model = typed(
        make(
            nodes,
            [("a", FLOAT, ["batch", 5]), ("b", FLOAT, ["batch", 7])],
            [("y", FLOAT, ["batch", 3])],
            weights(w=(5, 6), v=(7, 6), u=(6, 3)),
        )
    )
    made = quantize(model, 400)
    assert operators(made).count("QuantizeLinear") == 5
    inputs = random_inputs(model, 6)
    assert signal_to_noise(run(model, inputs)["y"], run(made, inputs)["y"]) > 25


def test_an_axis_that_is_no_batch_and_a_length_that_varies() -> None:
    nodes = [op("Transpose", "x", "t", perm=[1, 0, 2]), op("MatMul", "t w", "y")]
    model = build(nodes, ["batch", "length", 6], {"y": ["length", "batch", 4]}, weights(w=(6, 4)))
    made = quantize(model, 5)
    inputs = random_inputs(model, 2, length=9)
    assert signal_to_noise(run(model, inputs)["y"], run(made, inputs)["y"]) > 28


def test_a_name_that_is_taken_gets_a_number() -> None:
    nodes = [op("Relu", "x", "x.q"), op("Sigmoid", "x.q", "w.dq"), op("MatMul", "w.dq w", "y")]
    model = build(nodes, ["batch", 4], "y", weights(w=(4, 3)))
    onnx.checker.check_model(proto(quantize(model)), full_check=True)


def test_an_embedding_reads_integers() -> None:
    nodes = [op("Gather", "table ids", "e"), op("MatMul", "e w", "y")]
    made = make(
        nodes,
        [("ids", TensorProto.INT64, ["batch", "t"])],
        [("y", FLOAT, ["batch", "t", 3])],
        weights(table=(20, 6), w=(6, 3)),
    )
    model = typed(made)
    ids = np.random.default_rng(0).integers(0, 20, (8, 4))
    got = QuantizeStatic(weight_bits=8).apply(model, context(model, ids=ids)).model
    assert signal_to_noise(run(model, {"ids": ids})["y"], run(got, {"ids": ids})["y"]) > 28


def test_weights_beside_the_model_are_read(tmp_path) -> None:
    model = convolutional_classifier(32)
    path = tmp_path / "beside.onnx"
    onnx.save(proto(model), path, save_as_external_data=True, location="w.bin", size_threshold=64)
    loaded = Model.load(path)
    step = QuantizeStatic(weight_bits=8)
    assert step.apply(loaded, context(model)).model.digest == quantize(model).digest


def test_a_grid_is_what_the_file_says() -> None:
    held = constants(quantize(case("bias")))
    grid = Grid(held["w.scale"], np.zeros(6, np.int8), -127, 127)
    original = constants(case("bias"))["w"]
    step = held["w.scale"].reshape(-1, 1, 1, 1)
    inside = np.abs(original) <= 127 * step
    error = np.abs(grid.dequantize(held["w.q"], 0) - original)
    assert (error <= np.where(inside, step / 2 * 1.0001, np.inf)).all()
