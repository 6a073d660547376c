# SPDX-License-Identifier: Apache-2.0
"""Grids round by at most half a step, keep 0, clip, and equal ONNX bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from burnish.techniques.quantize.grid import Grid, activation_grid, weight_grid

FLOATS = st.floats(-1e6, 1e6, width=32)
KINDS = st.sampled_from(["u8", "s8"])


@settings(max_examples=200, deadline=None)
@given(x=hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS), kind=KINDS)
def test_a_value_in_the_range_moves_by_at_most_half_a_step(x, kind) -> None:
    grid = activation_grid(float(x.min()), float(x.max()), kind)
    moved = np.abs(grid.dequantize(grid.quantize(x)).astype(np.float64) - x)
    assert (moved <= float(grid.scale) / 2 + 1e-6 * np.abs(x)).all()


@settings(max_examples=100, deadline=None)
@given(low=FLOATS, high=FLOATS, kind=KINDS)
def test_zero_is_exact(low: float, high: float, kind) -> None:
    grid = activation_grid(min(low, high), max(low, high), kind)
    zero = np.zeros(1, np.float32)
    assert grid.dequantize(grid.quantize(zero))[0] == 0
    assert np.isfinite(grid.scale)
    assert grid.scale > 0


@pytest.mark.parametrize(("kind", "ends"), [("u8", (0, 255)), ("s8", (-128, 127))])
def test_clips_outside_the_range(kind, ends) -> None:
    grid = activation_grid(-1.0, 1.0, kind)
    x = np.array([-np.inf, -3e38, 3e38, np.inf], np.float32)
    assert grid.quantize(x).tolist() == [ends[0], ends[0], ends[1], ends[1]]


def test_the_grid_of_nothing_but_zeros_is_ordinary() -> None:
    # A tiny scale would make engines' 32-bit biases overflow.
    for kind in ("u8", "s8"):
        assert float(activation_grid(0.0, 0.0, kind).scale) == 1.0


@settings(max_examples=100, deadline=None)
@given(
    w=hnp.arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    bits=st.integers(2, 8),
    axis=st.sampled_from([None, 0, 1]),
)
def test_weights_stay_in_their_bits_and_move_by_half_a_step(w, bits, axis) -> None:
    grid = weight_grid(w, axis, bits)
    q = grid.quantize(w, axis)
    limit = 2 ** (bits - 1) - 1
    assert q.dtype == np.int8
    assert np.abs(q.astype(int)).max() <= limit
    step = grid.scale if axis is None else np.expand_dims(grid.scale, 1 - axis)
    assert (np.abs(grid.dequantize(q, axis) - w) <= step / 2 + 1e-4).all()


def test_seven_bits_fit_int16_sums() -> None:
    grid = weight_grid(np.array([1.0, -1.0], np.float32), None, 7)
    q = grid.quantize(np.array([1.0, -1.0], np.float32)).astype(int)
    assert 2 * 255 * np.abs(q).max() < 2**15


def _onnx(grid: Grid, x: np.ndarray, axis: int | None) -> onnx.ModelProto:
    zero = grid.zero_point
    attributes = {} if axis is None else {"axis": axis}
    kind = TensorProto.UINT8 if zero.dtype == np.uint8 else TensorProto.INT8
    shape = list(x.shape)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
        ],
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("q", kind, shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(grid.scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("case", ["u8", "s8", "axis 0", "axis 1"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_onnx_bit_for_bit(case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((6, 5, 4)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    axis = int(case[-1]) if case.startswith("axis") else None
    if axis is None:
        grid = activation_grid(float(x.min()) / 2, float(x.max()) / 2, case)
        # Ties and values far outside the range as well.
        x[0, 0] = grid.scale * np.array([0.5, 1.5, -2.5, 1e6], np.float32)
    else:
        grid = weight_grid(x, axis)
    model = _onnx(grid, x, axis)
    ours_q = grid.quantize(x, axis)
    ours = grid.dequantize(ours_q, axis)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for q, y in (ReferenceEvaluator(model).run(None, {"x": x}), session.run(None, {"x": x})):
        np.testing.assert_array_equal(q, ours_q)
        np.testing.assert_array_equal(y, ours)
