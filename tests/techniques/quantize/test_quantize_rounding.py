# SPDX-License-Identifier: Apache-2.0
"""GPTQ changes a layer's output less than rounding to the nearest does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quantizable_models import build, op, weights

from burnish.techniques.quantize.grid import weight_grid
from burnish.techniques.quantize.placement import plan
from burnish.techniques.quantize.rounding import Layer, Moments, best_grid, gptq, round_nearest


def form(error: np.ndarray, moment: np.ndarray) -> float:
    return float(np.einsum("oi,ij,oj->", error, moment, error))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [20, 200])
def test_gptq_has_the_smaller_output_error(bits: int, inputs: int) -> None:
    ratios = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weight = rng.standard_normal((12, inputs)).astype(np.float32)
        mixing = rng.standard_normal((inputs, max(inputs // 4, 4)))
        moment = mixing @ mixing.T + 0.1 * np.eye(inputs)
        grid = weight_grid(weight, 0, bits)
        scale = grid.scale.astype(np.float64)
        ours = gptq(weight.astype(np.float64), moment, scale, grid.low, grid.high)
        assert np.abs(ours).max() <= grid.high
        nearest = grid.quantize(weight, 0)
        after, before = (form(q * scale[:, None] - weight, moment) for q in (ours, nearest))
        ratios.append(after / before)
    assert max(ratios) < 1
    assert np.mean(ratios) < 0.6


def test_gptq_is_nearest_where_inputs_are_independent() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 150)).astype(np.float32)
    grid = weight_grid(weight, 0)
    scale = grid.scale.astype(np.float64)
    ours = gptq(weight.astype(np.float64), 3.0 * np.eye(150), scale, grid.low, grid.high)
    np.testing.assert_array_equal(ours, grid.quantize(weight, 0))


def test_gptq_takes_inputs_that_never_vary() -> None:
    weight = np.random.default_rng(0).standard_normal((3, 6))
    got = gptq(weight, np.zeros((6, 6)), np.full(3, 0.02), -127, 127)
    np.testing.assert_array_equal(got, np.clip(np.rint(weight / 0.02), -127, 127))


def test_moments_of_inputs_far_from_zero() -> None:
    rng = np.random.default_rng(2)
    rows = (1e4 + rng.standard_normal((2, 300, 5))).astype(np.float32)
    moments = Moments.around(rows[:, :50].mean(axis=1))
    for part in np.split(rows, 6, axis=1):
        moments.add(part)
    off = moments.first / moments.n
    for group in range(2):
        covariance = moments.second[group] / moments.n - np.outer(off[group], off[group])
        exact = np.cov(rows[group].astype(np.float64).T, bias=True)
        np.testing.assert_allclose(covariance, exact, atol=1e-4)
        mean = rows[group].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(moments.centre[group] + off[group], mean, rtol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_the_best_grid_is_no_worse_than_the_whole_range(axis: int | None) -> None:
    weight = np.random.default_rng(1).standard_t(3, (16, 40)).astype(np.float32)
    for bits in (3, 8):
        best, whole = best_grid(weight, axis, bits), weight_grid(weight, axis, bits)
        errors = [
            np.square(grid.dequantize(grid.quantize(weight, axis), axis) - weight).sum()
            for grid in (best, whole)
        ]
        assert errors[0] <= errors[1]
    assert round_nearest(weight, axis, 8).integers.dtype == np.int8


@pytest.mark.parametrize(
    ("group", "strides", "pads", "kernel"),
    [
        (1, [1, 1], [0, 0, 0, 0], (3, 3)),
        (2, [2, 1], [1, 0, 1, 0], (3, 2)),
        (4, [2, 2], [1, 1, 1, 1], (3, 3)),
        (1, [1, 1], [0, 0, 0, 0], (1, 1)),
    ],
)
def test_a_convolutions_rows_are_its_patches(group, strides, pads, kernel) -> None:
    constants = weights(w=(8, 4 // group, *kernel))
    node = op("Conv", "x w", "y", group=group, strides=strides, pads=pads)
    model = build([node], ["batch", 4, 7, 6], {"y": ["batch", 8, "h", "v"]}, constants)
    graph = model.edit().graph
    (one,) = plan(graph).compute
    layer = Layer.of(one, constants["w"])
    assert layer is not None
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 6)).astype(np.float32)
    rows = layer.sample(x, np.random.default_rng(1))
    unfolded = torch.nn.functional.unfold(
        torch.from_numpy(x), kernel, padding=tuple(pads[:2]), stride=tuple(strides)
    )
    patches = unfolded.numpy().transpose(0, 2, 1).reshape(-1, group, layer.width)
    assert rows.shape == (group, rows.shape[1], layer.width)
    whole = {tuple(patch.ravel()) for patch in patches}
    for row in rows.transpose(1, 0, 2):
        assert tuple(row.ravel()) in whole
    # Random places: most patches are seen.
    assert len({tuple(row.ravel()) for row in rows.transpose(1, 0, 2)}) > len(whole) / 3


def test_dilated_and_transposed_convolutions_have_no_rows() -> None:
    constants = weights(w=(4, 4, 3, 3))
    for node in (op("Conv", "x w", "y", dilations=[2, 2]), op("ConvTranspose", "x w", "y")):
        model = build([node], ["batch", 4, 8, 8], {"y": ["batch", 4, "h", "v"]}, constants)
        graph = model.edit().graph
        (one,) = plan(graph).compute
        assert Layer.of(one, constants["w"]) is None
