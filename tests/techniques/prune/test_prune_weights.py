# SPDX-License-Identifier: Apache-2.0
"""Weights of small magnitude become zero, stay zero in training, and nothing more is claimed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import convolutional, quantized, two_inputs
from technique_contract import TechniqueContract
from training_nets import task, untrained

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context
from burnish.techniques.distill.distill import Distill
from burnish.techniques.prune.schedule import PruneIteratively
from burnish.techniques.prune.weights import PruneWeights


class TestPruneWeightsContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional, two_inputs)

    @pytest.fixture
    def technique(self) -> PruneWeights:
        return PruneWeights(amount=0.7, scope="layer", keep=())


def _weights(model: Model) -> dict[str, np.ndarray]:
    graph = model.edit().graph
    return {name: graph.initializers[name].const_value.numpy() for name in ("w1", "w2", "w3")}


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.99), st.sampled_from(["layer", "global"]), st.integers(0, 3))
def test_the_smallest_go(amount: float, scope: str, seed: int) -> None:
    before = _weights(untrained(seed))
    outcome = PruneWeights(amount=amount, scope=scope).apply(untrained(seed), Context())  # type: ignore[arg-type]
    after = _weights(outcome.model)
    if scope == "layer":
        for name, array in after.items():
            gone = array == 0
            assert gone.sum() == round(amount * array.size)
            if gone.any() and not gone.all():
                assert np.abs(before[name][gone]).max() <= np.abs(before[name][~gone]).min()
    else:
        flat = np.concatenate([array.ravel() for array in after.values()])
        old = np.concatenate([array.ravel() for array in before.values()])
        gone = flat == 0
        assert gone.sum() == round(amount * flat.size)
        if gone.any():
            assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()
    for name, array in after.items():
        np.testing.assert_array_equal(array[array != 0], before[name][array != 0])


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("1:8", 1, 8)])
def test_n_of_every_m_inputs_stay(pattern: str, n: int, m: int) -> None:
    before, outcome = _weights(untrained()), PruneWeights(pattern=pattern).apply(untrained())
    after = _weights(outcome.model)
    # conv2 sums over 16 inputs (axis 1); the classifier, transposed, over its second axis.
    for name, rows in (("w2", after["w2"].transpose(0, 2, 3, 1)), ("w3", after["w3"])):
        groups = rows.reshape(-1, m)
        assert ((groups != 0).sum(axis=1) == n).all()
        old = before[name].transpose(0, 2, 3, 1) if name == "w2" else before[name]
        left, right = np.abs(groups).sum(axis=1), np.sort(np.abs(old.reshape(-1, m)), axis=1)
        np.testing.assert_allclose(left, right[:, -n:].sum(axis=1), rtol=1e-6)
    (note,) = [one for one in outcome.skipped if one.place.startswith("conv1")]
    assert "no whole" in note.reason  # the first layer has one input
    np.testing.assert_array_equal(after["w1"], before["w1"])


def test_it_is_honest_about_speed_and_measures_the_file() -> None:
    outcome = PruneWeights(amount=0.9).apply(untrained())
    (note,) = [one for one in outcome.skipped if one.place == "speed"]
    assert "nothing runs faster" in note.reason
    (line,) = [one for one in outcome.applied if "compressed" in one]
    small = re.findall(r"[\d,]{4,}", line)
    before, after = (int(one.replace(",", "")) for one in small)
    assert after < before / 2
    assert outcome.model.size_bytes == pytest.approx(untrained().size_bytes, abs=2000)


def test_zeros_hold_through_recovery() -> None:
    recovery = Distill(epochs=1, batch_size=64, samples=256, learning_rate=1e-2)
    step = PruneWeights(amount=0.8)
    technique = PruneIteratively(step, rounds=2, recovery=recovery)
    outcome = technique.apply(untrained(), Context(task(labels=False)))
    flat = np.concatenate([array.ravel() for array in _weights(outcome.model).values()])
    assert (flat == 0).mean() == pytest.approx(0.8, abs=1e-3)
    before = np.concatenate([array.ravel() for array in _weights(untrained()).values()])
    alive = flat != 0
    assert (flat[alive] != before[alive]).mean() > 0.9  # the others were trained


def test_refusals() -> None:
    with pytest.raises(Misuse, match="quantized"):
        PruneWeights().apply(quantized())
    with pytest.raises(Misuse, match="N:M"):
        PruneWeights(pattern="4:2")
    with pytest.raises(Misuse, match=r"amount.*scope"):
        PruneWeights(amount=1.5, scope="glob")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="head"):
        PruneWeights(keep=("heed",)).apply(untrained())
    with pytest.raises(Misuse, match="rounds = 1"):
        PruneIteratively(PruneWeights(pattern="2:4"))
