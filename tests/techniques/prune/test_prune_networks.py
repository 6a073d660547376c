# SPDX-License-Identifier: Apache-2.0
"""Real exports are pruned exactly: the technique compares each with its zeroed dense self."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.graph.cost import cost
from burnish.techniques.prune.channels import PruneChannels

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "graph"))

import torch_networks as networks  # noqa: E402 - needs torch

IMAGES = ("ResNet", "MobileNet", "DenseNet", "ShuffleNet", "Vgg", "UNet", "VisionTransformer")


@cache
def exported(name: str) -> Model:
    torch.manual_seed(0)
    network = getattr(networks, name)().eval()
    example = torch.randint(0, 50, (2, 9)) if name == "Bert" else torch.randn(2, 3, 16, 16)
    return Model.from_torch(network, example)


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l2", "taylor", "activation"])
@pytest.mark.parametrize("name", [*IMAGES, "Bert"])
def test_a_network_is_pruned_exactly(name: str, importance: str) -> None:
    model = exported(name)
    (spec,) = model.signature.inputs
    random = np.random.default_rng(0)
    if name == "Bert":
        data = random.integers(0, 50, (16, 9))
    else:
        data = random.standard_normal((16, 3, 16, 16)).astype(np.float32)
    context = Context(Task("noise", calibration=ArraySamples({spec.name: data})), seed=1)
    technique = PruneChannels(amount=0.25, of="parameters", importance=importance, align=1)  # type: ignore[arg-type]
    outcome = technique.apply(model, context)
    assert any("equals the zeroed dense model" in line for line in outcome.applied)
    assert cost(outcome.model).parameters <= 0.75 * cost(model).parameters
    assert all(one.reason for one in outcome.skipped)
