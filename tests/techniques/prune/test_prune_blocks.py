# SPDX-License-Identifier: Apache-2.0
"""Residual blocks are found, ranked by what they change, and dropped whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import convolutional, make
from technique_contract import TechniqueContract

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.cost import cost
from burnish.techniques.prune.blocks import PruneBlocks, drop, residual_blocks
from burnish.techniques.prune.schedule import PruneIteratively

IMAGES = np.random.default_rng(0).normal(size=(24, 3, 16, 16)).astype(np.float32)
CONTEXT = Context(Task("noise", calibration=ArraySamples({"image": IMAGES})), seed=7)


class TestPruneBlocksContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional,)

    @pytest.fixture
    def technique(self) -> PruneBlocks:
        return PruneBlocks(amount=1, samples=16)

    @pytest.fixture
    def context(self) -> Context:
        return CONTEXT


def _network(scales: tuple[float, ...] = (0.1, 0.01, 0.2)) -> Model:
    """Returns blocks of Conv-Relu-Conv added to their input, Relu after each sum; then one that
    widens, whose shortcut is a convolution; the second convolution of each is scaled."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(0, 0.3, (8, 3, 3, 3)), "head": rng.normal(0, 0.3, (10, 16))}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["x0"], "stem.relu"),
    ]
    for i, scale in enumerate(scales):
        weights[f"w{i}.1"] = rng.normal(0, 0.2, (8, 8, 3, 3))
        weights[f"w{i}.2"] = scale * rng.normal(0, 1, (8, 8, 3, 3))
        nodes += [
            helper.make_node("Conv", [f"x{i}", f"w{i}.1"], [f"a{i}"], f"b{i}.conv1", pads=[1] * 4),
            helper.make_node("Relu", [f"a{i}"], [f"r{i}"], f"b{i}.relu"),
            helper.make_node("Conv", [f"r{i}", f"w{i}.2"], [f"y{i}"], f"b{i}.conv2", pads=[1] * 4),
            helper.make_node("Add", [f"y{i}", f"x{i}"], [f"s{i}"], f"b{i}.add"),
            helper.make_node("Relu", [f"s{i}"], [f"x{i + 1}"], f"b{i}.out"),
        ]
    last = f"x{len(scales)}"
    weights |= {"wide": rng.normal(0, 0.2, (16, 8, 3, 3)), "short": rng.normal(0, 1, (16, 8, 1, 1))}
    nodes += [
        helper.make_node("Conv", [last, "wide"], ["wa"], "wide.conv", pads=[1] * 4),
        helper.make_node("Conv", [last, "short"], ["wb"], "wide.short"),
        helper.make_node("Add", ["wa", "wb"], ["ws"], "wide.add"),
        helper.make_node("GlobalAveragePool", ["ws"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head"], ["logits"], "classifier", transB=1),
    ]
    return make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [("logits", TensorProto.FLOAT, ["batch", 10])],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )


def _run(model: Model) -> np.ndarray:
    with OnnxRuntime().open(model, Setting()) as session:
        return session.run({"image": IMAGES})["logits"]


def test_only_what_is_added_to_its_own_input_is_a_block() -> None:
    blocks = residual_blocks(_network())
    assert [one.name for one in blocks] == ["b0.add", "b1.add", "b2.add"]
    assert blocks[0].nodes == ("b0.conv1", "b0.relu", "b0.conv2")


@pytest.mark.parametrize(
    "names", [["b0.add"], ["b2.add", "b0.add"], ["b0.add", "b1.add", "b2.add"]]
)
def test_a_dropped_block_adds_nothing(names: list[str]) -> None:
    """The same as a branch whose last convolution is zero; its Relu of a Relu goes as well."""
    model = _network()
    graph = model.edit()
    for name in names:
        value = graph.graph.initializers[f"w{name[1]}.2"]
        value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=value.name)
    dropped = Model(drop(model, names))
    np.testing.assert_allclose(_run(dropped), _run(Model(graph)), rtol=1e-5, atol=1e-6)
    assert len(dropped.edit().graph) == len(model.edit().graph) - 5 * len(names)


def test_the_block_that_changes_least_goes_first() -> None:
    outcome = PruneBlocks(amount=2).apply(_network(), CONTEXT)
    assert outcome.model.lineage.steps[-1]["notes"]["removal"] == {"blocks": ["b1.add", "b0.add"]}
    assert "dropped b1.add (3 nodes)" in outcome.applied[0]
    before, after = _run(_network()).astype(np.float64), _run(Model(drop(_network(), ["b1.add"])))
    change = 100 * ((after - before) ** 2).sum() / (before**2).sum()
    assert f"{change:.2g} %" in outcome.applied[0]


def test_a_share_of_the_work_goes() -> None:
    model = _network()
    outcome = PruneBlocks(amount=0.4, of="macs").apply(model, CONTEXT)
    assert cost(outcome.model).macs <= 0.6 * cost(model).macs
    assert len(residual_blocks(outcome.model)) == 1


def test_keep_and_too_much_are_reported() -> None:
    outcome = PruneBlocks(amount=3, keep=("b1.add",)).apply(_network(), CONTEXT)
    reasons = {one.place: one.reason for one in outcome.skipped}
    assert reasons["b1.add"] == "it is in keep"
    assert "no residual block is left" in reasons["3 of the blocks"]
    assert [one.name for one in residual_blocks(outcome.model)] == ["b1.add"]


def test_in_rounds_it_drops_that_many_in_all() -> None:
    from burnish.core.recipe import Recipe

    for rewind in (False, True):
        technique = PruneIteratively(
            PruneBlocks(amount=3), rounds=2, recovery=Recipe(), rewind=rewind
        )
        outcome = technique.apply(_network(), CONTEXT)
        assert residual_blocks(outcome.model) == ()
        removed = outcome.model.lineage.steps[-1]["notes"]["removal"]["blocks"]
        assert sorted(removed) == ["b0.add", "b1.add", "b2.add"]


def test_refusals() -> None:
    with pytest.raises(Misuse, match="whole number of blocks"):
        PruneBlocks(amount=0.5)
    with pytest.raises(Misuse, match=r"b1\.add"):
        PruneBlocks(keep=("b1.ad",)).apply(_network(), CONTEXT)
    with pytest.raises(Misuse, match="needs data"):
        PruneBlocks().apply(_network())


@pytest.mark.slow
def test_blocks_go_until_the_int8_network_is_that_much_faster() -> None:
    outcome = PruneBlocks(amount=0.1, of="latency", seconds=0.5).apply(_network(), CONTEXT)
    assert len(residual_blocks(outcome.model)) < 3
