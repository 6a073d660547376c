# SPDX-License-Identifier: Apache-2.0
"""Pruning in rounds: shares, recovery, rewinding, and going on from the store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from small_models import convolutional
from technique_contract import TechniqueContract
from training_nets import accuracy, task, untrained

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.graph.channels.cut import cut
from burnish.graph.cost import cost
from burnish.techniques.distill.distill import Distill
from burnish.techniques.prune.channels import PruneChannels
from burnish.techniques.prune.schedule import PruneIteratively
from burnish.techniques.train.fine_tune import FineTune

STEP = PruneChannels(amount=0.6, align=1)
QUICK = Distill(epochs=1, batch_size=64, samples=256, learning_rate=1e-2)


class TestPruneIterativelyContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional,)

    @pytest.fixture
    def technique(self) -> PruneIteratively:
        step = PruneChannels(amount=0.5, of="channels", align=1)
        return PruneIteratively(step, rounds=2, recovery=replace(QUICK, batch_size=8))

    @pytest.fixture
    def context(self) -> Context:
        images = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype(np.float32)
        task = Task("noise", training=ArraySamples({"image": images}))
        return Context(task, original=convolutional(seed=1))


def test_the_cubic_schedule_is_zhu_and_guptas() -> None:
    """Their equation 1 from initial sparsity 0 in steps of 1."""
    technique = PruneIteratively(STEP, rounds=5)
    final = 0.6
    for step in range(6):
        expected = final + (0 - final) * (1 - step / 5) ** 3
        assert final * technique.share(step) == pytest.approx(expected)


def test_all_rounds_together_hold_the_budget() -> None:
    model = untrained()
    outcome = PruneIteratively(STEP, rounds=3, recovery=Recipe()).apply(model, Context(task()))
    ratio = cost(outcome.model).macs / cost(model).macs
    assert 0.3 < ratio <= 0.4
    assert {line.split(":")[0] for line in outcome.applied} == {
        f"round {i} of 3" for i in (1, 2, 3)
    }
    removed = outcome.model.lineage.steps[-1]["notes"]["removal"]
    assert Model(cut(model, removed)).digest == outcome.model.digest


def test_a_share_of_the_channels_goes_in_rounds() -> None:
    step = PruneChannels(amount=0.5, of="channels", align=1)
    outcome = PruneIteratively(step, rounds=3, recovery=Recipe()).apply(
        untrained(), Context(task())
    )
    removed = outcome.model.lineage.steps[-1]["notes"]["removal"]
    assert {name: len(kept) for name, kept in removed.items()} == {"conv1": 8, "conv2": 16}


def test_coarse_widths_may_be_done_early() -> None:
    step = PruneChannels(amount=0.3, align=16, keep=("conv1",))
    outcome = PruneIteratively(step, rounds=3, recovery=Recipe()).apply(
        untrained(), Context(task())
    )
    assert any("earlier rounds" in one.reason for one in outcome.skipped)


def test_recovery_sees_the_model_that_all_began_with() -> None:
    """Distill without a teacher of its own is refused without one."""
    outcome = PruneIteratively(STEP, rounds=2, recovery=QUICK).apply(
        untrained(), Context(task(labels=False))
    )
    assert sum("distilled" in line for line in outcome.applied) == 2
    assert all("without labels" in one for one in outcome.applied if "soft" in one)


def test_rewinding_starts_each_round_at_the_first_weights() -> None:
    model, context = untrained(), Context(task(labels=False))
    step = replace(STEP, importance="random")
    outcome = PruneIteratively(step, rounds=2, recovery=QUICK, rewind=True).apply(model, context)
    removed = outcome.model.lineage.steps[-1]["notes"]["removal"]
    # The last round trained the first weights of the channels that were left, nothing else.
    again = QUICK.apply(Model(cut(model, removed)), replace(context, original=model))
    assert again.model.digest == outcome.model.digest
    assert cost(outcome.model).macs <= 0.4 * cost(model).macs


def test_a_killed_run_goes_on_from_its_last_round(tmp_path) -> None:
    class Killed(Exception):
        pass

    def stop_in_round_two(work: str, done: int, total: int) -> None:
        if work == "pruning rounds" and done == 1:
            raise Killed

    model, technique = untrained(), PruneIteratively(STEP, rounds=2, recovery=QUICK)
    context = Context(task(labels=False), store=Store(tmp_path))
    with pytest.raises(Killed):
        technique.apply(model, replace(context, progress=stop_in_round_two))
    (first,) = (tmp_path / "pruned").glob("*/model.onnx")
    written = first.stat().st_mtime_ns
    outcome = technique.apply(model, context)
    assert first.stat().st_mtime_ns == written
    assert len(list((tmp_path / "pruned").iterdir())) == 2
    again = technique.apply(model, context)
    assert again.model.digest == outcome.model.digest
    assert (again.applied, again.skipped) == (outcome.applied, outcome.skipped)
    fresh = technique.apply(model, replace(context, store=None))
    assert fresh.model.digest == outcome.model.digest


def test_refusals() -> None:
    with pytest.raises(Misuse, match="step must be"):
        PruneIteratively(Recipe())
    with pytest.raises(Misuse, match="rounds = 1"):
        PruneIteratively(schedule="one_shot")
    with pytest.raises(Misuse, match=r"rounds.*schedule"):
        PruneIteratively(rounds=0, schedule="cubical")  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="needs data"):
        PruneIteratively().apply(untrained())


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l2", "taylor", "activation", "batch_norm"])
def test_digits_at_half_the_work_and_without_labels(importance: str) -> None:
    """Half of the multiply-accumulates go, and a point of accuracy at most with them."""
    tune = FineTune(epochs=10, batch_size=64, learning_rate=1e-2)
    model = tune.apply(untrained(), Context(task())).model
    unlabelled = Context(task(labels=False))
    step = PruneChannels(amount=0.5, importance=importance)  # type: ignore[arg-type]
    recovery = Distill(epochs=8, batch_size=64, learning_rate=1e-2)
    outcome = PruneIteratively(step, rounds=2, recovery=recovery).apply(model, unlabelled)
    assert cost(outcome.model).macs <= 0.5 * cost(model).macs
    assert accuracy(outcome.model) >= accuracy(model) - 1.5


def test_the_techniques_are_known_without_pytorch() -> None:
    code = (
        "import sys; from burnish.core import catalogue; "
        "[catalogue.find('techniques', one)() for one in catalogue.names('techniques')]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
