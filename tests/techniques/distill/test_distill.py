# SPDX-License-Identifier: Apache-2.0
"""Distillation keeps the contract of techniques and recovers a damaged model without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from small_models import convolutional, quantized, two_inputs
from technique_contract import TechniqueContract
from training_nets import accuracy, answers, damaged, task, untrained

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.losses import loss
from burnish.data.samples import ArraySamples
from burnish.techniques.distill.distill import Distill
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic
from burnish.techniques.train.fine_tune import FineTune

RECOVER = Distill(epochs=5, batch_size=64, learning_rate=1e-2)


class TestDistillContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional,)

    @pytest.fixture
    def technique(self) -> Distill:
        return Distill(epochs=2, batch_size=8, hints=(("b", "b"),), soft_weight=0.9, patience=0)

    @pytest.fixture
    def context(self) -> Context:
        rng = np.random.default_rng(0)
        images = rng.normal(size=(20, 3, 16, 16)).astype(np.float32)
        samples = ArraySamples({"image": images}, rng.integers(0, 10, 20))
        task = Task("noise", training=samples, loss=loss("cross_entropy"))
        return Context(task, original=convolutional(seed=1))


class TestDistillContractOfText(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (two_inputs,)

    @pytest.fixture
    def technique(self) -> Distill:
        return Distill(epochs=2, batch_size=8)

    @pytest.fixture
    def context(self) -> Context:
        rng = np.random.default_rng(0)
        samples = ArraySamples(
            {"ids": rng.integers(0, 20, (20, 5)), "mask": rng.random((20, 5)) < 0.7}
        )
        graph = two_inputs().edit()
        table = graph.graph.initializers["table"]
        table.const_value = ir.tensor(table.const_value.numpy() + 1, name="table")
        return Context(Task("text", calibration=samples), original=Model(graph))


class TestDistillContractOfIntegers(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (quantized,)

    @pytest.fixture
    def technique(self) -> Distill:
        return Distill(epochs=1)

    @pytest.fixture
    def context(self) -> Context:
        images = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)
        task = Task("noise", calibration=ArraySamples({"image": images}))
        return Context(task, original=quantized(seed=1))


@pytest.fixture(scope="module")
def good() -> Model:
    return (
        FineTune(epochs=6, batch_size=64, learning_rate=1e-2)
        .apply(untrained(), Context(task()))
        .model
    )


@pytest.fixture(scope="module")
def bad(good: Model) -> Model:
    return damaged(good, 0.3)


def _agreement(one: Model, other: Model) -> float:
    return 100 * float((answers(one) == answers(other)).mean())


def test_a_damaged_model_is_recovered_without_labels(good: Model, bad: Model) -> None:
    """30 % of all channels are gone and stay gone."""
    unlabelled = Context(task(labels=False), original=good)
    outcome = replace(RECOVER, hold_zeros=True).apply(bad, unlabelled)
    lost = 100 - _agreement(bad, good)
    assert lost > 8
    assert 100 - _agreement(outcome.model, good) < lost / 3
    assert "without labels" in outcome.applied[1]
    assert outcome.skipped == ()


@pytest.mark.parametrize(
    "kind",
    ["kd"]
    + [pytest.param(one, marks=pytest.mark.slow) for one in ("standardized", "dkd", "dist", "mse")],
)
def test_every_loss_recovers(kind: str, good: Model, bad: Model) -> None:
    context = Context(task(labels=False), original=good)
    outcome = replace(RECOVER, loss=kind).apply(bad, context)  # type: ignore[arg-type]
    assert 100 - _agreement(outcome.model, good) < (100 - _agreement(bad, good)) / 2
    assert f"logits by {kind}" in outcome.applied[0]


def test_the_recipes_first_model_teaches(good: Model, bad: Model) -> None:
    folded = Recipe((Fuse(), RECOVER)).apply(good, Context(task()))
    assert "original model" in " ".join(folded.applied)
    with pytest.raises(Misuse, match="no teacher"):
        RECOVER.apply(bad, Context(task()))


def test_the_classic_is_one_call(good: Model, bad: Model) -> None:
    classic = replace(RECOVER, temperature=3, soft_weight=0.9)
    outcome = classic.apply(bad, Context(task(), original=good))
    assert outcome.applied[1] == "0.9 soft and 0.1 hard (cross_entropy)"
    assert accuracy(outcome.model) > accuracy(bad)
    unlabelled = classic.apply(bad, Context(task(labels=False), original=good))
    assert [one.place for one in unlabelled.skipped] == ["labels"]
    assert "1 soft, without labels" in unlabelled.applied


def test_calibration_data_does_where_there_is_no_training_data(good: Model, bad: Model) -> None:
    outcome = RECOVER.apply(bad, Context(task(training=False), original=good))
    assert [one.place for one in outcome.skipped] == ["training data"]
    assert "of 300 samples" in outcome.applied[2]
    assert _agreement(outcome.model, good) > _agreement(bad, good)


def test_a_model_is_not_taught_by_itself(good: Model) -> None:
    outcome = RECOVER.apply(good, Context(task(), original=good))
    assert outcome.model.digest == good.digest
    assert "the model itself" in outcome.skipped[0].reason


@pytest.mark.slow
def test_teachers_may_be_files_of_another_shape_and_several(
    good: Model, bad: Model, tmp_path: Path
) -> None:
    wide = FineTune(epochs=5, batch_size=64, learning_rate=1e-2).apply(
        untrained(seed=3, width=24), Context(task())
    )
    paths = (str(good.save(tmp_path / "a.onnx")), str(wide.model.save(tmp_path / "b.onnx")))
    technique = replace(RECOVER, teachers=paths, hints=(("r2", "r2"),), hint_loss="cosine")
    with pytest.raises(Misuse, match="differ in shape"):
        technique.apply(bad, Context(task()))
    outcome = replace(technique, hints=()).apply(bad, Context(task()))
    assert accuracy(outcome.model) > accuracy(bad) + 3
    # A hint of another width: a map is learned, and no trace of it stays.
    hinted = replace(technique, teachers=paths[1:]).apply(bad, Context(task()))
    assert "1 hints by cosine" in hinted.applied
    assert accuracy(hinted.model) > accuracy(bad) + 3
    assert len(list(hinted.model.edit().graph)) == len(list(bad.edit().graph))


@pytest.mark.parametrize("engine", ["lifted", pytest.param("fastest", marks=pytest.mark.slow)])
def test_the_teacher_runs_on_any_engine(
    engine: str, good: Model, bad: Model, tmp_path: Path
) -> None:
    context = Context(task(labels=False), original=good, store=Store(tmp_path))
    technique = replace(RECOVER, epochs=1, teacher_engine=engine)
    outcome = technique.apply(bad, context)
    plain = replace(RECOVER, epochs=1).apply(bad, replace(context, store=None))
    for name, value in outcome.model.edit().graph.initializers.items():
        expected = plain.model.edit().graph.initializers[name].const_value.numpy()
        np.testing.assert_allclose(value.const_value.numpy(), expected, atol=2e-2)
    if engine != "fastest":
        assert f"on {engine}" in outcome.applied[0]


@pytest.mark.slow
def test_a_quantized_graph_learns_what_is_float_in_it(good: Model, bad: Model) -> None:
    int8 = Recipe((Fuse(), QuantizeStatic(activations="u8", weight_bits=8, correct_bias=False)))
    before = int8.apply(bad, Context(task())).model
    technique = replace(RECOVER, learning_rate=1e-3)
    outcome = technique.apply(before, Context(task(labels=False), original=good))
    assert _agreement(outcome.model, good) > _agreement(before, good)
    assert "stored as integers" in outcome.skipped[0].reason


def test_what_does_not_exist_is_named(good: Model, bad: Model, tmp_path: Path) -> None:
    context = Context(task(), original=good)
    for wrong, words in (
        ({"outputs": ("logit",)}, "did you mean 'logits'"),
        ({"hints": (("r3", "r2"),)}, "unknown value of the graph 'r3'"),
        ({"hints": (("r2", "r3"),)}, "unknown value of the teacher, in hints 'r3'"),
        ({"teacher_engine": "onnxruntim"}, "did you mean 'onnxruntime'"),
    ):
        with pytest.raises(Misuse, match=words):
            replace(RECOVER, **wrong).apply(bad, context)  # type: ignore[arg-type]
    other = str(convolutional().save(tmp_path / "other.onnx"))
    with pytest.raises(Misuse, match="the teacher takes image"):
        replace(RECOVER, teachers=(other,)).apply(bad, context)
