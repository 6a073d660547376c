# SPDX-License-Identifier: Apache-2.0
"""The trained module starts as the stored graph, has LSQ's gradients, and becomes a graph again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quantizable_models import FLOAT, build, context, inferred, op, run, weights
from small_models import convolutional, make, random_inputs

from burnish.core.model import Model
from burnish.techniques.quantize.aware_graph import FloatForm, near, take_apart
from burnish.techniques.quantize.aware_scales import QuantizedModule, on_grid, weakened
from burnish.techniques.quantize.static import QuantizeStatic

_VALUES = st.floats(-4, 4, width=32)


def static(model: Model, bits: int = 4, **fields) -> Model:
    return QuantizeStatic(weight_bits=bits, **fields).apply(model, context(model, 16)).model


def module_of(model: Model, form: FloatForm, **settings) -> QuantizedModule:
    example = {name: torch.from_numpy(one) for name, one in random_inputs(model, 1).items()}
    module = QuantizedModule(form, example, **settings)
    module.train()
    return module


def outputs(module: QuantizedModule, inputs) -> dict[str, np.ndarray]:
    given = {name: torch.from_numpy(one) for name, one in inputs.items()}
    with torch.no_grad():
        return {name: one.numpy() for name, one in module(given).items()}


def structure(graph) -> list[tuple]:
    """Returns each node with its name, and the names of what it reads and makes."""
    return [
        (
            node.op_type,
            node.name,
            [value and value.name for value in node.inputs],
            [value.name for value in node.outputs],
            sorted(node.attributes),
        )
        for node in graph
    ]


def two_layers() -> Model:
    nodes = [op("Gemm", "x w1 b1", "a", transB=1), op("Relu", "a", "r"),
             op("Gemm", "r w2 b2", "y", transB=1)]  # fmt: skip
    return build(nodes, ["batch", 6], "y", weights(w1=(5, 6), b1=(5,), w2=(3, 5), b2=(3,)))


def residual() -> Model:
    return inferred(convolutional())


def branches() -> Model:
    """Returns two convolutions that are joined: their outputs share one grid."""
    nodes = [
        op("Conv", "x w1", "a", pads=[1] * 4),
        op("Conv", "x w2", "b", pads=[1] * 4),
        op("Concat", "a b", "c", axis=1),
        op("Conv", "c w3", "y", pads=[1] * 4),
    ]
    shapes = weights(w1=(4, 3, 3, 3), w2=(2, 3, 3, 3), w3=(5, 6, 3, 3))
    return build(nodes, ["batch", 3, 8, 8], {"y": ["batch", "c", "h", "w"]}, shapes)


@given(hnp.arrays(np.float32, (3, 4), elements=_VALUES), st.integers(2, 8))
def test_gradients_are_those_of_the_paper(w: np.ndarray, bits: int) -> None:
    """Equations 3 and 5 of Esser et al. 2020, written out in NumPy."""
    high = 2 ** (bits - 1) - 1
    s = np.array([[0.5], [0.11], [2.0]], np.float32)
    upstream = np.random.default_rng(0).normal(size=w.shape).astype(np.float32)
    v = w / s
    inside = np.abs(v) <= high
    by_step = np.where(inside, np.rint(v) - v, np.clip(v, -high, high))
    tw, ts = torch.tensor(w, requires_grad=True), torch.tensor(s, requires_grad=True)
    made = on_grid(tw, ts, -high, high)
    (made * torch.from_numpy(upstream)).sum().backward()
    np.testing.assert_array_equal(made.detach(), np.rint(np.clip(v, -high, high)) * s)
    np.testing.assert_allclose(tw.grad, upstream * inside, rtol=1e-6, atol=1e-6)
    expected = (upstream * by_step).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ts.grad, expected, rtol=1e-4, atol=1e-3)


def test_the_step_gradient_is_that_of_the_smooth_part() -> None:
    """With the rounding error r held, ŵ = s (clip(w/s) + r) is smooth: central differences."""
    rng = np.random.default_rng(1)
    w, s, high = rng.normal(size=200), 0.31, 3
    error = np.rint(np.clip(w / s, -high, high)) - np.clip(w / s, -high, high)

    def smooth(step: float) -> float:
        return float(np.sum(step * (np.clip(w / step, -high, high) + error)))

    difference = (smooth(s + 1e-6) - smooth(s - 1e-6)) / 2e-6
    step = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    on_grid(torch.from_numpy(w), step, -high, high).sum().backward()
    assert float(step.grad) == pytest.approx(difference, rel=1e-4)


def test_a_weakened_gradient_leaves_the_number() -> None:
    x = torch.tensor([0.1, 1e-7], requires_grad=True)
    y = weakened(x, 0.25)
    assert torch.equal(y, x)
    y.sum().backward()
    assert x.grad.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("relative", [True, False])
def test_steps_of_a_network_get_lsq_gradients(relative: bool) -> None:
    """The whole chain against NumPy: ŷ = Ŵ₂ x̂ + b, x̂ the rounded hidden layer, L = Σ c y."""
    model = two_layers()
    quantized = static(model)
    form = take_apart(quantized, [model])
    module = module_of(model, form, relative=relative)
    x = random_inputs(model, 7)["x"]
    found = module({"x": torch.from_numpy(x)}, ["a"])
    c = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    (found["y"] * torch.from_numpy(c)).sum().backward()

    hidden = found["a"].detach().numpy().astype(np.float64)
    held = {name: one.const_value.numpy() for name, one in
            quantized.edit().graph.initializers.items()}  # fmt: skip
    (hidden_step,) = [one for one in form.steps if one.tensors]
    (weight,) = [one for one in form.weights if one.start.shape == (3, 5)]
    s_x, s_w = float(held[hidden_step.scale]), held[weight.scale].astype(np.float64)
    v = hidden / s_x  # the zero point is 0: a Relu's
    q = np.clip(np.rint(v), 0, 255)
    by_x = np.where((v >= 0) & (v <= 255), q - v, q)
    u = weight.start / held[weight.scale][:, None]  # in float32: a weight may lie at the limit
    k = np.clip(np.rint(u), -7, 7)
    by_w = np.where(np.abs(u) <= 7, k - u, k)
    g_x = ((c @ (k * s_w[:, None])) * by_x).sum() / np.sqrt(5 * 255)
    g_w = ((c.T @ (q * s_x)) * by_w).sum(axis=1) / np.sqrt(5 * 7)

    order = [one.scale for one in form.steps]
    for scale, expected in ((hidden_step.scale, g_x), (weight.scale, g_w)):
        index = order.index(scale)
        unit = getattr(module, f"step_unit_{index}").numpy()
        got = module.steps[index].grad.numpy()
        np.testing.assert_allclose(got, expected * unit, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize("make_model", [residual, two_layers, branches])
def test_it_starts_as_the_stored_graph(make_model, rounding: str) -> None:
    model = make_model()
    quantized = static(model, rounding=rounding)
    form = take_apart(quantized, [model])
    assert form.n_known == len(form.weights)
    module = module_of(model, form)
    inputs = random_inputs(model, 5)
    for name, expected in run(quantized, inputs).items():
        np.testing.assert_allclose(outputs(module, inputs)[name], expected, atol=2e-2)
    assert Model(module.lower()).digest == quantized.digest


@pytest.mark.parametrize(
    "fields", [{}, {"per_channel": False}, {"activations": "s8"}], ids=["", "tensor", "s8"]
)
@pytest.mark.parametrize("make_model", [residual, two_layers, branches])
def test_trained_and_settled_the_engine_computes_the_same(make_model, fields) -> None:
    """Everything moved at random, as training might: the file is still what was trained."""
    model = make_model()
    quantized = static(model, **fields)
    module = module_of(model, take_apart(quantized, [model]))
    torch.manual_seed(3)
    with torch.no_grad():
        for one in module.parameters():
            one.mul_(1 + 0.1 * torch.rand_like(one)).add_(0.01 * torch.rand_like(one))
    module.settle()
    made = Model(module.lower())
    inputs = random_inputs(model, 16)
    for name, got in run(made, inputs).items():
        np.testing.assert_allclose(got, outputs(module, inputs)[name], atol=module.last_step())
    old, new = quantized.edit().graph, made.edit().graph
    assert structure(old) == structure(new)
    for name, value in new.initializers.items():
        before, after = old.initializers[name].const_value, value.const_value
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        if after.dtype.name == "INT8" and after.size > 1:
            assert np.abs(after.numpy().astype(int)).max() <= 7
    assert made.digest != quantized.digest


def test_what_shares_a_grid_learns_one_step() -> None:
    quantized = static(branches())
    form = take_apart(quantized, [branches()])
    (shared,) = [one for one in form.steps if one.tensors]
    assert set(shared.tensors) == {"a", "b", "c"}


def test_steps_stay_positive() -> None:
    model = two_layers()
    module = module_of(model, take_apart(static(model), [model]))
    before = [one.detach().clone() for one in module.steps]
    with torch.no_grad():
        for one in module.steps:
            one.fill_(-1)
    module.after_step()
    for one, start in zip(module.steps, before, strict=True):
        assert torch.equal(one.detach(), start / 16)


def test_fixed_steps_are_no_parameters() -> None:
    model = two_layers()
    quantized = static(model)
    module = module_of(model, take_apart(quantized, [model]), learn_steps=False)
    assert len(module.steps) == 0
    assert len(list(module.parameters())) == 4
    assert Model(module.lower()).digest == quantized.digest


def test_a_bias_that_would_overflow_widens_its_channel() -> None:
    model = two_layers()
    form = take_apart(static(model), [model])
    module = module_of(model, form)
    layer = form.layers[-1]
    bias = module.lifted.initializer(layer.bias)
    with torch.no_grad():
        bias[1] = 1e9
    module.settle()
    held = {n: v.const_value.numpy() for n, v in module.lower().graph.initializers.items()}
    units = held[layer.bias] / (held[layer.input_scale] * held[layer.weight_scale])
    assert np.abs(units).max() <= 2**29 * (1 + 1e-6)


@given(hnp.arrays(np.float32, 20, elements=_VALUES), st.integers(0, 2**32 - 1))
def test_near_rounds_to_the_integers_and_moves_no_more_than_needed(w, seed: int) -> None:
    scale, high = np.float32(0.3), 7
    integers = np.random.default_rng(seed).integers(-high, high + 1, w.shape).astype(np.int8)
    moved = near(w, integers, scale, -high, high)
    np.testing.assert_array_equal(np.clip(np.rint(moved / scale), -high, high), integers)
    same = np.clip(np.rint(w / scale), -high, high) == integers
    np.testing.assert_array_equal(moved[same], w[same])
    assert (np.abs(moved - integers * scale)[~same] <= 0.5 * scale).all()


def test_equal_integers_of_other_scales_are_trained_apart() -> None:
    """Equal data is stored once: two layers whose weights differ by a factor share it."""
    w = weights(w1=(6, 6))["w1"]
    nodes = [op("Gemm", "x w1", "a", transB=1), op("Relu", "a", "r"),
             op("Gemm", "r w2", "y", transB=1)]  # fmt: skip
    model = build(nodes, ["batch", 6], "y", {"w1": w, "w2": 2 * w})
    quantized = static(model, correct_bias=False)
    held = [v for v in quantized.edit().graph.initializers.values() if v.dtype.name == "INT8"]
    assert len([one for one in held if one.const_value.size > 1]) == 1
    form = take_apart(quantized, [model])
    assert len({one.data for one in form.weights}) == 2
    assert form.n_known == 2


def test_weights_of_another_model_are_not_taken() -> None:
    model = two_layers()
    other = build(
        [op("Gemm", "x w1 b1", "a", transB=1), op("Relu", "a", "r"),
         op("Gemm", "r w2 b2", "y", transB=1)],
        ["batch", 6], "y", weights(9, w1=(5, 6), b1=(5,), w2=(3, 5), b2=(3,)),
    )  # fmt: skip
    form = take_apart(static(model), [other])
    assert form.n_known == 0
    assert Model(module_of(model, form).lower()).digest == form.stored.digest


def test_a_weight_that_cannot_be_trained_is_named() -> None:
    nodes = [op("DequantizeLinear", "wq s z", "w"), op("MatMul", "x w", "y")]
    constants = {
        "wq": np.arange(6, dtype=np.uint8).reshape(3, 2),
        "s": np.float32(0.1),
        "z": np.uint8(3),
    }
    model = make(nodes, [("x", FLOAT, ["n", 3])], [("y", FLOAT, ["n", 2])], constants)
    form = take_apart(model, [])
    assert not form.weights
    assert form.skipped[0].place == "weight wq"
    assert "int8" in form.skipped[0].reason
