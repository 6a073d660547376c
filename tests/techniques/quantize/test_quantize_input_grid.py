# SPDX-License-Identifier: Apache-2.0
"""An image input that is brought back onto its pixels' levels before it is rounded."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from quantizable_models import inferred

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.techniques.quantize.input_grid import align, find_levels
from burnish.techniques.quantize.static import QuantizeStatic

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pixels(n: int = 24, low: int = 0, high: int = 255) -> np.ndarray:
    return np.random.default_rng(5).integers(low, high + 1, (n, 3, 12, 12)).astype(np.uint8)


def normalized(raw: np.ndarray) -> np.ndarray:
    spread = (1, 3, 1, 1)
    return ((raw / 255 - MEAN.reshape(spread)) / STD.reshape(spread)).astype(np.float32)


def caffe(raw: np.ndarray) -> np.ndarray:
    return raw.astype(np.float32) - np.float32([104, 117, 123]).reshape(1, 3, 1, 1)


def network(pads: int = 0, bias: bool = True) -> Model:
    rng = np.random.default_rng(2)
    weights = {
        "w": rng.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(0, 0.2, (4, 8, 1, 1)).astype(np.float32),
    }
    if bias:
        weights["b"] = rng.normal(0, 1, 8).astype(np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["image", "w", *(["b"] if bias else [])], ["c"], "stem", pads=[pads] * 4
        ),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["out"], "head"),
    ]
    model = small_models.make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [("out", TensorProto.FLOAT, ["batch", 4, None, None])],
        weights,
    )
    return inferred(model)


def run(model: Model, images: np.ndarray) -> np.ndarray:
    with OnnxRuntime().open(model, Setting()) as session:
        return session.run({"image": images})["out"]


@pytest.mark.parametrize("prepare", [normalized, caffe])
@pytest.mark.parametrize("kind", ["u8", "s8"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_the_same_and_the_input_loses_nothing(prepare, kind, bias):
    images = prepare(pixels())
    model = network(bias=bias)
    aligned = align(model, [{"image": images}], kind)
    got, want = run(Model(aligned.graph), images), run(model, images)
    assert np.abs(got - want).max() < 2e-5 * np.abs(want).max()
    ((name, grid),) = aligned.grids.items()
    inner = aligned.graph.clone()
    inner.graph.outputs.append(next(v for n in inner.graph for v in n.outputs if v.name == name))
    with OnnxRuntime().open(Model(inner), Setting()) as session:
        levels = session.run({"image": images})[name]
    assert np.abs(grid.dequantize(grid.quantize(levels)) - levels).max() < 1e-2
    assert grid.quantize(levels).astype(int).min() == grid.low
    np.testing.assert_array_equal(
        grid.quantize(levels).astype(int) - grid.low, pixels().astype(int)
    )


def test_int8_is_closer_to_the_original_for_it():
    images = normalized(pixels(64))
    task = Task("noise", calibration=ArraySamples({"image": images}))
    want = run(network(), images)
    errors = []
    for align_input in (False, True):
        outcome = QuantizeStatic(ranges="minmax", weight_bits=8, align_input=align_input).apply(
            network(), Context(task)
        )
        errors.append(np.square(run(outcome.model, images) - want).mean())
        assert any("256 levels" in one for one in outcome.applied) is align_input
    assert errors[1] < 0.9 * errors[0]


@given(st.integers(0, 255), st.integers(0, 255), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_levels_are_found_whatever_the_step_and_offset(one, other, step, lowest):
    low, high = sorted((one, other))
    if high - low < 2:
        return
    k = np.arange(low, high + 1).reshape(1, 1, -1)
    found = find_levels(k * step + lowest)
    assert found is not None
    assert found[0][0] == pytest.approx(step, rel=1e-6)
    # Every value seen has a level from 0 to 255.
    levels = (k * step + lowest - found[1][0]) / found[0][0]
    assert levels.min() > -0.01
    assert levels.max() < 255.01


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(4, 3, 50)),
        np.zeros((4, 3, 50)),
        np.arange(300.0).reshape(1, 1, 300),
        np.array([[[0.0, 1.0, np.nan]]]),
    ],
    ids=["any values", "one value", "more than 256 levels", "not finite"],
)
def test_what_has_no_such_levels_is_left(values):
    assert find_levels(values) is None


def test_what_later_samples_do_not_fit_is_left_as_it_was():
    first, late = pixels(40, 100, 110), pixels(8, 0, 255)
    images = normalized(np.concatenate([first, late]))
    images[-1, 0, 0, 0] = 40.0  # no pixel at all
    task = Task("late", calibration=ArraySamples({"image": images}))
    outcome = QuantizeStatic(ranges="minmax", weight_bits=8).apply(network(), Context(task))
    assert not any("256 levels" in one for one in outcome.applied)
    plain = QuantizeStatic(ranges="minmax", weight_bits=8, align_input=False)
    assert outcome.model.digest == plain.apply(network(), Context(task)).model.digest


def test_a_padded_convolution_is_left_and_said_so():
    task = Task("noise", calibration=ArraySamples({"image": normalized(pixels())}))
    outcome = QuantizeStatic(weight_bits=8).apply(network(pads=1), Context(task))
    reasons = {one.place: one.reason for one in outcome.skipped}
    assert "pads with 0" in reasons["the levels of the input image"]
