# SPDX-License-Identifier: Apache-2.0
"""Fuse keeps its contract, gives the graphs in tests/golden, and refuses to change a model.

Write the golden graphs anew, then review them as a diff:

    PYTHONPATH=tests/contracts python tests/techniques/test_fuse.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import convolutional, make, random_inputs, two_inputs
from technique_contract import TechniqueContract

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Misuse
from burnish.core.model import Model
from burnish.core.technique import Context, Skipped
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.techniques.fuse import Fuse

GOLDEN = Path(__file__).parents[1] / "golden"
FLOAT = TensorProto.FLOAT


def residual() -> Model:
    """Returns a block with BatchNormalization, a shortcut, a mean and a classifier."""
    rng = np.random.default_rng(3)
    weights = {
        "stem.weight": rng.normal(0, 0.3, (4, 3, 3, 3)),
        "block.weight": rng.normal(0, 0.3, (4, 4, 3, 3)),
        "head.weight": rng.normal(0, 0.5, (5, 4)),
        "head.bias": rng.normal(0, 0.5, 5),
    }
    for name in ("stem.bn", "block.bn"):
        weights |= {f"{name}.{part}": rng.normal(size=4) for part in ("weight", "bias", "mean")}
        weights[f"{name}.var"] = rng.uniform(0.5, 2, 4)
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    constants |= {
        "axes": np.array([2, 3]),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "zero": np.float32(0),
    }

    def norm(name: str, value: str, out: str):
        parts = [f"{name}.{part}" for part in ("weight", "bias", "mean", "var")]
        return helper.make_node("BatchNormalization", [value, *parts], [out], name)

    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["padded"], "pad"),
        helper.make_node("Conv", ["padded", "stem.weight"], ["a"], "stem", strides=[2, 2]),
        norm("stem.bn", "a", "b"),
        helper.make_node("Clip", ["b", "zero"], ["c"], "clip"),
        helper.make_node("Conv", ["c", "block.weight"], ["d"], "block", pads=[1, 1, 1, 1]),
        norm("block.bn", "d", "e"),
        helper.make_node("Add", ["e", "c"], ["f"], "shortcut"),
        helper.make_node("Dropout", ["f"], ["g"], "dropout"),
        helper.make_node("ReduceMean", ["g", "axes"], ["h"], "mean", keepdims=0),
        helper.make_node("Gemm", ["h", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    return typed(
        nodes, ("image", FLOAT, ["batch", 3, 8, 8]), ("logits", FLOAT, ["batch", 5]), constants
    )


def response() -> Model:
    """Returns local response normalization as PyTorch's exporter writes it."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], "square"),
        helper.make_node("Shape", ["x"], ["n"], "batch", start=0, end=1),
        helper.make_node("Concat", ["n", "rest"], ["to"], "shape", axis=0),
        helper.make_node("Reshape", ["square", "to"], ["view"], "view", allowzero=1),
        helper.make_node("Pad", ["view", "pads"], ["padded"], "pad"),
        helper.make_node("AveragePool", ["padded"], ["mean"], "mean", kernel_shape=[3, 1, 1]),
        helper.make_node("Squeeze", ["mean", "one"], ["back"], "back"),
        helper.make_node("Mul", ["back", "alpha"], ["scaled"], "scaled"),
        helper.make_node("Add", ["scaled", "k"], ["total"], "total"),
        helper.make_node("Pow", ["total", "beta"], ["power"], "power"),
        helper.make_node("Div", ["x", "power"], ["y"], "divide"),
    ]
    constants = {
        "rest": np.array([1, 4, 6, 6]),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0]),
        "one": np.array([1]),
        "alpha": np.float32(0.1),
        "k": np.float32(1),
        "beta": np.float32(0.75),
    }
    shape = ["batch", 4, 6, 6]
    return typed(nodes, ("x", FLOAT, shape), ("y", FLOAT, shape), constants)


def typed(nodes, given, result, constants) -> Model:
    """Returns the model as it is after import: types and shapes inferred."""
    return Model.load(make(nodes, [given], [result], constants).to_bytes())


CASES = {
    "residual": (residual, Fuse()),
    "response_sums": (response, Fuse()),
    "response_operator": (response, Fuse(local_response="operator")),
    "two_inputs": (two_inputs, Fuse()),
}


def text(model: Model) -> str:
    """Returns the graph as text, its constants first; numbers only of the small ones."""
    proto = ir.to_proto(model.edit())
    lines = []
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        numbers = f" = {array.tolist()}" if array.size <= 2 else ""
        lines.append(f"{array.dtype.name}{list(array.shape)} {tensor.name}{numbers}")
    proto.graph.ClearField("initializer")
    return "\n".join([*lines, onnx.printer.to_text(proto.graph), ""])


@pytest.mark.parametrize("name", CASES)
def test_gives_the_golden_graph(name: str) -> None:
    build, technique = CASES[name]
    got = text(technique.apply(build()).model)
    assert got == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


class TestFuse(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Fuse:
        return Fuse()

    models = (*TechniqueContract.models, residual, response)


class TestFuseForOpenVino(TechniqueContract):
    @pytest.fixture
    def technique(self) -> Fuse:
        return Fuse(tolerance=1e-3, local_response="operator")

    models = (residual, response)


@pytest.mark.parametrize("build", [residual, response, convolutional, two_inputs])
@pytest.mark.parametrize("batch", [1, 4])
def test_computes_the_same(build, batch: int) -> None:
    model = build()
    fused = Fuse().apply(model).model
    inputs = random_inputs(model, batch, seed=11)
    with OnnxRuntime().open(model, Setting()) as session:
        expected = session.run(inputs)
    with OnnxRuntime().open(fused, Setting()) as session:
        got = session.run(inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-5)


def test_accounts_for_what_it_did() -> None:
    outcome = Fuse().apply(residual())
    assert outcome.skipped == ()
    assert outcome.applied[:5] == (
        "BatchNormalization stem.bn folded into the weights before it",
        "BatchNormalization block.bn folded into the weights before it",
        "Conv stem: takes the Pad before it",
        "Clip clip: to Relu",
        "ReduceMean mean: to GlobalAveragePool",
    )
    check, total, went, came = outcome.applied[5:]
    assert check.startswith("checked against the original: largest relative difference ")
    assert float(check.split()[-1]) < 1e-6
    assert total == "10 operators became 7"
    assert went == "went: 2 BatchNormalization, 1 Clip, 1 Dropout, 1 Pad, 1 ReduceMean"
    assert came == "came: 1 Flatten, 1 GlobalAveragePool, 1 Relu"


def test_the_file_is_no_larger_than_it_needs() -> None:
    before = residual()
    after = Fuse().apply(before).model
    sizes = {
        name: value.const_value.nbytes for name, value in after.edit().graph.initializers.items()
    }
    # Two convolutions with a bias of four each, and the classifier.
    assert sum(sizes.values()) == 4 * (4 * 27 + 4 + 4 * 36 + 4 + 5 * 4 + 5)
    assert after.size_bytes < before.size_bytes


def test_a_large_mask_stays_computed() -> None:
    nodes = [
        helper.make_node("Expand", ["one", "to"], ["mask"], "mask"),
        helper.make_node("Add", ["x", "mask"], ["y"], "add"),
    ]
    constants = {"one": np.float32(1), "to": np.array([300, 300])}
    shape = ["batch", 300, 300]
    model = typed(nodes, ("x", FLOAT, shape), ("y", FLOAT, shape), constants)
    fused = Fuse().apply(model).model
    assert fused.size_bytes < 2000
    assert [node.op_type for node in fused.edit().graph] == ["Expand", "Add"]


def test_a_second_time_there_is_nothing_to_do() -> None:
    once = Fuse().apply(residual()).model
    twice = Fuse().apply(once)
    assert twice.model.digest == once.digest
    assert twice.applied == (
        "checked against the original: largest relative difference 0.0e+00",
        "7 operators became 7",
    )


def test_int8_weights_stay_int8() -> None:
    from small_models import quantized

    fused = Fuse().apply(quantized()).model
    counts = Counter(node.op_type for node in fused.edit().graph)
    assert counts["DequantizeLinear"] == 3
    assert {str(value.dtype) for value in fused.edit().graph.initializers.values()} >= {"INT8"}


def batch_norm_first() -> Model:
    nodes = [helper.make_node("BatchNormalization", ["x", *"gemv"], ["y"], "first")]
    constants = {name: np.ones(3, np.float32) for name in "gemv"}
    shape = ["batch", 3, 4, 4]
    return typed(nodes, ("x", FLOAT, shape), ("y", FLOAT, shape), constants)


def test_what_stays_is_named() -> None:
    outcome = Fuse().apply(batch_norm_first())
    assert outcome.skipped == (
        Skipped("BatchNormalization first", "it follows the input x, whose weights cannot take it"),
    )


def test_a_change_of_the_outputs_is_broken() -> None:
    # Rounding alone is above a tolerance this small, which shows that the check looks.
    with pytest.raises(Broken, match="fuse changed the output 'logits' by"):
        Fuse(tolerance=1e-12).apply(residual())


def test_a_wrong_rewrite_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from burnish.graph.rewrite import Rule
    from burnish.techniques import fuse

    wrong = Rule("to Neg", frozenset({"Clip"}), lambda node, tape: tape.op("Neg", node.inputs[:1]))
    monkeypatch.setattr(fuse, "rules", lambda form: (wrong,))
    with pytest.raises(Broken, match="of its largest value, and 1e-04 is allowed"):
        Fuse().apply(residual())


def test_a_result_that_does_not_run_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    from burnish.graph.rewrite import Rule
    from burnish.techniques import fuse

    # ONNX allows an even window; ONNX Runtime does not.
    wrong = Rule(
        "to nonsense",
        frozenset({"Clip"}),
        lambda node, tape: tape.op("LRN", node.inputs[:1], {"size": 2}),
    )
    monkeypatch.setattr(fuse, "rules", lambda form: (wrong,))
    with pytest.raises(Broken, match="fuse made a model that does not run"):
        Fuse().apply(residual())


def test_outputs_that_are_not_finite_are_not_checked_in_silence() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "x"], ["zero"], "zero"),
        helper.make_node("Div", ["zero", "zero"], ["y"], "nothing"),
    ]
    model = typed(nodes, ("x", FLOAT, ["batch", 3]), ("y", FLOAT, ["batch", 3]), {})
    outcome = Fuse().apply(model)
    assert outcome.skipped == (
        Skipped("numerical check", "the original's outputs on random inputs are not finite"),
    )
    assert not [line for line in outcome.applied if "checked" in line]


def test_a_model_that_does_not_run_is_said() -> None:
    # Ids up to 20 are no positions in a table of one, so no random input is right.
    nodes = [
        helper.make_node("Add", ["ids", "far"], ["moved"], "moved"),
        helper.make_node("Gather", ["table", "moved"], ["y"], "look_up"),
    ]
    constants = {"table": np.ones((4, 2), np.float32), "far": np.array([100])}
    model = typed(
        nodes, ("ids", TensorProto.INT64, ["batch"]), ("y", FLOAT, ["batch", 2]), constants
    )
    (skipped,) = Fuse().apply(model).skipped
    assert skipped.place == "numerical check"
    assert "does not run the original on random inputs" in skipped.reason


def test_free_sizes_grow_until_the_model_runs() -> None:
    # A picture of 8 by 8 is too small for this convolution, one of 32 by 32 is not.
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "wide")]
    weights = {"w": np.ones((1, 1, 17, 17), np.float32)}
    free = ["batch", 1, "height", "width"]
    model = typed(nodes, ("x", FLOAT, free), ("y", FLOAT, ["batch", 1, "h", "w"]), weights)
    outcome = Fuse().apply(model)
    assert outcome.skipped == ()
    assert "checked against the original" in outcome.applied[0]


def test_whole_numbers_are_compared_too() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "zero"], ["a"], "clip"),
        helper.make_node("ArgMax", ["a"], ["y"], "best", axis=1, keepdims=0),
    ]
    model = typed(
        nodes,
        ("x", FLOAT, ["batch", 6]),
        ("y", TensorProto.INT64, ["batch"]),
        {"zero": np.float32(0)},
    )
    outcome = Fuse().apply(model)
    assert "largest relative difference 0.0e+00" in outcome.applied[1]


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_without_meaning_is_refused(tolerance: float) -> None:
    with pytest.raises(Misuse, match="fuse's tolerance must be a positive number"):
        Fuse(tolerance=tolerance).apply(convolutional())


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(Misuse, match="unknown local_response of fuse 'sum': did you mean 'sums'"):
        Fuse(local_response="sum").apply(convolutional())  # type: ignore[arg-type]


def test_seeds_change_the_check_only() -> None:
    models = {Fuse().apply(residual(), Context(seed=seed)).model.digest for seed in (0, 1)}
    assert len(models) == 1


@pytest.mark.slow
def test_what_pytorch_exports_is_fused() -> None:
    # Guards against an exporter that begins to write these patterns in another way.
    torch = pytest.importorskip("torch")
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False))
            self.norm = nn.BatchNorm2d(8)
            self.response = nn.LocalResponseNorm(5, 1e-2, 0.75, 1.0)
            self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, image):
            x = nn.functional.hardswish(self.norm(self.stem(image)))
            x = self.response(x)
            tokens = self.attention(x.flatten(2).transpose(1, 2))
            x = x + tokens.transpose(1, 2).reshape(-1, 8, 8, 8)
            return self.head(nn.functional.dropout(x, 0.1, self.training).mean((2, 3)))

    torch.manual_seed(0)
    model = Model.from_torch(Network().eval(), torch.randn(2, 3, 16, 16))
    for form, response in (("operator", {"LRN": 1}), ("sums", {"Sum": 1, "Sqrt": 2})):
        outcome = Fuse(local_response=form).apply(model)
        counts = Counter(node.op_type for node in outcome.model.edit().graph)
        expected = {"Conv": 1, "HardSwish": 1, "GlobalAveragePool": 1, "Flatten": 1, **response}
        assert {name: counts[name] for name in expected} == expected
        for gone in ("BatchNormalization", "ReduceMean", "AveragePool", "Pow", "Shape", "Concat"):
            assert counts[gone] == 0, gone
        assert outcome.skipped == ()


if __name__ == "__main__":
    for case, (build, technique) in CASES.items():
        path = GOLDEN / f"{case}.txt"
        path.write_text(text(technique.apply(build()).model), encoding="utf-8")
