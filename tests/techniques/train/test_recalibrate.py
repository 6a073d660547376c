# SPDX-License-Identifier: Apache-2.0
"""Recalibration gives the data's own statistics, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_models import convolutional
from technique_contract import TechniqueContract
from torch.nn import functional
from training_nets import accuracy, digits, task, untrained

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.techniques.fuse import Fuse
from burnish.techniques.train.fine_tune import FineTune
from burnish.techniques.train.recalibrate import Recalibrate


class TestRecalibrateContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional,)

    @pytest.fixture
    def technique(self) -> Recalibrate:
        return Recalibrate(samples=16)

    @pytest.fixture
    def context(self) -> Context:
        rng = np.random.default_rng(0)
        images = rng.normal(size=(20, 3, 16, 16)).astype(np.float32)
        return Context(Task("noise", calibration=ArraySamples({"image": images})))


class TestRecalibrateContractWithLayers(TestRecalibrateContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (untrained,)

    @pytest.fixture
    def context(self) -> Context:
        return Context(task())


def _statistics(model: Model, layer: str) -> tuple[np.ndarray, np.ndarray]:
    (node,) = [node for node in model.edit().graph if node.name == layer]
    return node.inputs[3].const_value.numpy(), node.inputs[4].const_value.numpy()


@pytest.mark.parametrize("size", [128, 300, 7])
def test_the_first_layers_statistics_are_those_of_all_samples_at_once(size: int) -> None:
    model = untrained()
    outcome = Recalibrate(batch_size=size, samples=300).apply(model, Context(task()))
    weight = torch.tensor(model.edit().graph.initializers["w1"].const_value.numpy())
    values = functional.conv2d(torch.from_numpy(digits()[0][:300]), weight, padding=1).double()
    mean, variance = _statistics(outcome.model, "n1")
    # 300 = 42 × 7 + 6, and no sample is left out: the last batch is smaller.
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, values.var((0, 2, 3)), rtol=1e-4)


def test_one_batch_gives_what_pytorch_computes_in_training_mode() -> None:
    model = untrained()
    outcome = Recalibrate(batch_size=256, samples=256).apply(model, Context(task()))
    weights = model.edit().graph.initializers
    tensors = {name: torch.tensor(one.const_value.numpy()) for name, one in weights.items()}
    x = functional.conv2d(torch.from_numpy(digits()[0][:256]), tensors["w1"], padding=1)
    x = functional.batch_norm(x, None, None, training=True).relu()
    x = functional.conv2d(x, tensors["w2"], stride=2, padding=1)
    layer = torch.nn.BatchNorm2d(32, momentum=None)
    layer(x)
    mean, variance = _statistics(outcome.model, "n2")
    np.testing.assert_allclose(mean, layer.running_mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, layer.running_var, rtol=1e-3)


@pytest.mark.slow
def test_stale_statistics_are_repaired() -> None:
    good = FineTune(epochs=6, batch_size=64, learning_rate=1e-2).apply(untrained(), Context(task()))
    graph, rng = good.model.edit(), np.random.default_rng(0)
    for name in ("n1.mean", "n2.mean"):
        value = graph.graph.initializers[name]
        moved = value.const_value.numpy() + rng.normal(0, 2, value.const_value.shape)
        value.const_value = ir.tensor(moved.astype(np.float32), name=name)
    stale = Model(graph)
    outcome = Recalibrate().apply(stale, Context(task()))
    assert accuracy(stale) < accuracy(good.model) - 20
    assert accuracy(outcome.model) > accuracy(good.model) - 2
    assert "statistics of 2 BatchNormalization layers from 1200 samples" in outcome.applied[0]
    assert outcome.skipped == ()


def test_without_the_layer_nothing_is_done_and_that_is_said() -> None:
    folded = Fuse().apply(untrained()).model
    outcome = Recalibrate().apply(folded, Context(task()))
    assert outcome.model.digest == folded.digest
    assert outcome.applied == ()
    assert "no BatchNormalization" in outcome.skipped[0].reason


def test_calibration_data_does_where_there_is_no_training_data() -> None:
    outcome = Recalibrate().apply(untrained(), Context(task(training=False)))
    assert "from 300 samples" in outcome.applied[0]
    assert outcome.skipped[0].place == "training data"


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(Misuse, match="batch_size must"):
        Recalibrate(batch_size=1)
    with pytest.raises(Misuse, match="calibration data"):
        Recalibrate().apply(untrained(), Context(Task("none")))
