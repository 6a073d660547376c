# SPDX-License-Identifier: Apache-2.0
"""Lifted operators against ONNX Runtime and numpy, over random attributes and shapes."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from burnish.graph.lift.module import lift

_QUICK = settings(max_examples=25, deadline=None)


def node_model(operator, inputs, constants=None, outputs=1, opset=21, **attributes):
    """Returns a model of one node: `inputs` are given, `constants` are initializers."""
    constants = constants or {}
    types = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    names = [f"y{n}" for n in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, [*inputs, *constants], names, name="node", **attributes)],
        "graph",
        [helper.make_tensor_value_info(n, types[n], a.shape) for n, a in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in names],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def both(model, inputs):
    """Returns what ONNX Runtime gives, and what the lifted graph gives."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, inputs)
    module = lift(ir.from_proto(model))
    made = module({name: torch.from_numpy(array) for name, array in inputs.items()})
    return expected, [one.detach().numpy() for one in made.values()]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def windows(draw):
    rank = draw(st.integers(1, 2))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    settings_ = {
        "kernel_shape": kernel,
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
    }
    if draw(st.booleans()):
        # Where a stride skips elements, ONNX Runtime pads by less than nothing, TensorFlow not.
        settings_["strides"] = [
            min(s, k) for s, k in zip(settings_["strides"], kernel, strict=True)
        ]
        settings_["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        settings_["pads"] = [draw(st.integers(0, k - 1)) for k in [*kernel, *kernel]]
        settings_["dilations"] = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    sizes = draw(st.lists(st.integers(6, 9), min_size=rank, max_size=rank))
    return sizes, settings_


@_QUICK
@given(windows(), st.sampled_from([1, 2, 4]), st.booleans())
def test_convolution_is_onnx_runtimes(window, groups, biased):
    sizes, attributes = window
    constants = {"w": normal(1, 4, 4 // groups, *attributes["kernel_shape"])}
    if biased:
        constants["b"] = normal(2, 4)
    x = {"x": normal(0, 2, 4, *sizes)}
    expected, got = both(node_model("Conv", x, constants, group=groups, **attributes), x)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5)


@_QUICK
@given(windows(), st.booleans())
def test_max_pooling_and_its_indices_are_onnx_runtimes(window, ceil):
    sizes, attributes = window
    if "auto_pad" in attributes:
        ceil = False
    x = {"x": normal(0, 2, 3, *sizes)}
    model = node_model("MaxPool", x, outputs=2, ceil_mode=int(ceil), **attributes)
    expected, got = both(model, x)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@_QUICK
@given(windows(), st.booleans())
def test_average_pooling_is_onnx_runtimes(window, counted):
    sizes, attributes = window
    x = {"x": normal(0, 2, 3, *sizes)}
    model = node_model("AveragePool", x, count_include_pad=int(counted), **attributes)
    expected, got = both(model, x)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-6)


@_QUICK
@given(
    st.integers(0, 8), st.integers(1, 3), st.sampled_from(["LSTM", "GRU", "RNN"]),
    st.sampled_from(["forward", "reverse", "bidirectional"]), st.booleans(),
)  # fmt: skip
def test_recurrent_layers_are_onnx_runtimes(seed, length, kind, direction, unequal):
    gates, hidden, batch = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 5, 2
    count = 2 if direction == "bidirectional" else 1
    constants = {
        "w": normal(seed, count, gates * hidden, 3),
        "r": normal(seed + 1, count, gates * hidden, hidden),
        "b": normal(seed + 2, count, 2 * gates * hidden),
    }
    if unequal:
        constants["lengths"] = np.array([length, 1], dtype=np.int32)
    x = {"x": normal(seed + 3, length, batch, 3)}
    extra = {"linear_before_reset": seed % 2} if kind == "GRU" else {}
    model = node_model(
        kind, x, constants, outputs=3 if kind == "LSTM" else 2,
        hidden_size=hidden, direction=direction, **extra,
    )  # fmt: skip
    expected, got = both(model, x)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@_QUICK
@given(
    st.lists(
        st.tuples(st.integers(-7, 7), st.integers(-9, 9), st.sampled_from([-3, -2, -1, 1, 2])),
        min_size=1,
        max_size=3,
    )
)
def test_slices_are_onnx_runtimes(cuts):
    x = {"x": normal(0, 5, 6, 4)}
    columns = [np.array(column, dtype=np.int64) for column in zip(*cuts, strict=True)]
    axes = np.arange(len(cuts), dtype=np.int64)
    constants = {"s": columns[0], "e": columns[1], "a": axes, "t": columns[2]}
    expected, got = both(node_model("Slice", x, constants), x)
    np.testing.assert_array_equal(got[0], expected[0])


@_QUICK
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]),
    st.integers(1, 9), st.integers(2, 9),
)  # fmt: skip
def test_resize_is_onnx_runtimes(mode, transform, high, wide):
    x = {"x": normal(0, 1, 2, 4, 5)}
    extra = {"nearest_mode": "floor"} if mode == "nearest" else {}
    none = np.zeros(0, np.float32)
    constants = {"roi": none, "scales": none, "sizes": np.array([1, 2, high, wide], np.int64)}
    model = node_model(
        "Resize", x, constants, mode=mode, coordinate_transformation_mode=transform, **extra
    )
    expected, got = both(model, x)
    if mode == "nearest":  # a place that lies on an edge may fall to either side
        assert (got[0] == expected[0]).mean() > 0.7
    else:
        np.testing.assert_allclose(got[0], expected[0], atol=1e-4)


@_QUICK
@given(st.integers(0, 99), st.sampled_from(["uint8", "int8", "int16"]), st.booleans())
def test_quantizing_there_and_back_is_within_half_a_step(seed, kind, per_channel):
    rng = np.random.default_rng(seed)
    info = np.iinfo(kind)
    shape = (3,) if per_channel else (1,)
    scale = rng.uniform(0.01, 1.0, shape).astype(np.float32)
    zero = rng.integers(info.min, info.max, shape, endpoint=True).astype(kind)
    x = rng.uniform(-40, 40, (3, 16)).astype(np.float32)
    step, shift = scale[:, None].astype(np.float64), zero[:, None].astype(np.int64)
    low, high = (info.min - shift) * step, (info.max - shift) * step
    if not per_channel:
        scale, zero = scale.reshape(()), zero.reshape(())
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q", axis=0),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "d", axis=0),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 16])],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    tensor = torch.from_numpy(x).requires_grad_()
    y = lift(ir.from_proto(model))({"x": tensor})["y"]
    error = np.abs(y.detach().numpy() - np.clip(x, low, high)) / step
    assert error.max() <= 0.5 + 1e-2  # half a step, in single precision
    y.sum().backward()
    gradient = tensor.grad.numpy()
    margin = step / 100
    assert np.all(gradient[(x < low - margin) | (x > high + margin)] == 0)
    np.testing.assert_allclose(gradient[(x > low + margin) & (x < high - margin)], 1, rtol=1e-5)


def test_a_learned_step_has_the_gradient_of_its_paper():
    scale, x = 0.5, torch.tensor([0.1, 0.6, 2.0, -3.0, 100.0, -100.0])
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "d"),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])],
        [
            numpy_helper.from_array(np.float32(scale), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    module = lift(ir.from_proto(model))
    assert dict(module.named_parameters()) == {}  # a scale is not trained unless asked
    step = module.train_initializer("s")
    for position, value in enumerate(x):
        step.grad = None
        module({"x": x})["y"][position].backward()
        v = float(value) / scale
        # Esser et al. 2020, equation 3: −v + round(v) inside, the limits outside.
        expected = np.clip(np.round(v), -128, 127) - (v if -128 < v < 127 else 0)
        assert float(step.grad) == pytest.approx(expected, abs=1e-5)
