# SPDX-License-Identifier: Apache-2.0
"""Costs of layers whose counts are known by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from burnish.core.model import Model
from burnish.graph.cost import cost


def model(body: str, **weights: tuple[int, ...]) -> Model:
    proto: onnx.ModelProto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> agraph {body}'
    )
    for name, shape in weights.items():
        array = np.ones(shape, np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return Model.load(proto.SerializeToString())


@pytest.mark.parametrize(
    ("body", "weights", "macs"),
    [
        (
            "(float[n, 3, 32, 32] x) => (float[n, 16, 16, 16] y) "
            "{ y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) }",
            {"w": (16, 3, 3, 3)},
            16 * 16 * 16 * 27,
        ),
        (
            "(float[n, 8, 9, 9] x) => (float[n, 8, 7, 7] y) { y = Conv<group=8>(x, w) }",
            {"w": (8, 1, 3, 3)},
            8 * 49 * 9,
        ),
        (
            "(float[n, 4, 5, 5] x) => (float[n, 6, 6, 6] y) { y = ConvTranspose(x, w) }",
            {"w": (4, 6, 2, 2)},
            25 * 4 * 6 * 4,
        ),
        (
            "(float[n, 10] x) => (float[n, 7] y) { y = Gemm<transB=1>(x, w) }",
            {"w": (7, 10)},
            70,
        ),
        (
            "(float[n, 12, 10] x) => (float[n, 12, 7] y) { y = MatMul(x, w) }",
            {"w": (10, 7)},
            12 * 70,
        ),
        (
            "(float[6, n, 3] x) => (float[6, 1, n, 5] y) { y = LSTM<hidden_size=5>(x, w, r) }",
            {"w": (1, 20, 3), "r": (1, 20, 5)},
            None,  # the sequence is not the first axis: n is the second, and is not known
        ),
        (
            "(float[6, 1, 3] x) => (float[6, 1, 1, 5] y) { y = LSTM<hidden_size=5>(x, w, r) }",
            {"w": (1, 20, 3), "r": (1, 20, 5)},
            6 * (60 + 100),
        ),
    ],
)
def test_macs_of_one_layer(
    body: str, weights: dict[str, tuple[int, ...]], macs: int | None
) -> None:
    got = cost(model(body, **weights))
    if macs is None:
        assert got.macs == 0
        assert "not known" in got.skipped[0].reason
        return
    assert got.skipped == ()
    assert got.macs == macs
    assert got.parameters == sum(int(np.prod(shape)) for shape in weights.values())
    assert got.weight_bytes == 4 * got.parameters


def test_a_derived_batch_is_taken_as_one() -> None:
    """Attention folds the batch into other axes, whose names inference does not keep."""
    got = cost(
        model(
            """(float[n, 4, 6] x) => (float[n, 4, 6] y) {
            to = Constant<value_ints=[-1, 6]>()
            flat = Reshape(x, to)
            h = MatMul(flat, w)
            back = Constant<value_ints=[-1, 4, 6]>()
            y = Reshape(h, back)
        }""",
            w=(6, 6),
        )
    )
    assert (got.macs, got.skipped) == (4 * 36, ())
    assert got.parameters == 36


def test_unknown_shapes_and_uncounted_operators_are_said() -> None:
    got = cost(
        model(
            """(float[n, length, 6] x) => (float[n, length, 6] y) {
            h = MatMul(x, w)
            y = Einsum<equation="bij,jk->bik">(h, w)
        }""",
            w=(6, 6),
        )
    )
    assert got.macs_by_node == {}
    assert len(got.skipped) == 2
    assert "not known" in got.skipped[0].reason
    assert "Einsum" in got.skipped[1].reason


def test_shapes_that_are_computed_from_the_batch_are_known() -> None:
    """As PyTorch's exporter writes them; shape inference alone does not follow them."""
    got = cost(
        model(
            "(float[n, 4, 6] x) => (float[n, 5] y) <int64[1] rest = {24}, int64[1] one = {-1}> "
            "{ s = Shape<start=0, end=1>(x) q = Squeeze(s) t = Reshape(q, one) "
            "c = Concat<axis=0>(t, rest) z = Reshape(x, c) y = MatMul(z, w) }",
            w=(24, 5),
        )
    )
    assert got.macs == 24 * 5
    assert got.skipped == ()
