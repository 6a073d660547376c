# SPDX-License-Identifier: Apache-2.0
"""A goal that int8 alone does not meet: pruning, recovery and int8 together, on real digits."""

from __future__ import annotations

import json
from dataclasses import replace

import digits_net
import numpy as np
import pytest
from digits_run import INT8

from burnish.core.candidate import Setting
from burnish.core.goal import Goal
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.optimizing.bench import Bench
from burnish.optimizing.budget import Budget
from burnish.optimizing.candidates import make_candidate
from burnish.optimizing.entries import Entry
from burnish.optimizing.forms import Form, pruned
from burnish.optimizing.report.html import html
from burnish.optimizing.report.markdown import markdown
from burnish.optimizing.result import Result
from burnish.optimizing.run import optimize
from burnish.optimizing.search import Search
from burnish.optimizing.structures import shortfall
from burnish.optimizing.teaching import aware
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

GOAL = Goal(max_drop=8, max_size_ratio=0.18, objective="size")  # int8 alone is 31 %


def trainable():
    """Returns the digits' task with 700 unlabelled images to learn from."""
    images, _ = digits_net.digits()
    return replace(digits_net.task(), training=ArraySamples({"image": images[:700]}))


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """A run that had to train, the same again, and how many steps the store held after each."""
    store = Store(tmp_path_factory.mktemp("composed"))

    def run():
        done = optimize(
            digits_net.network(),
            trainable(),
            GOAL,
            budget=120,
            engines=[OnnxRuntime()],
            threads=1,
            store=store,
        )
        return done, sum(1 for _ in store.root.glob("*/*"))

    return run(), run()


def test_a_smaller_network_is_taught_and_meets_the_goal(composed):
    (done, _), _ = composed
    best, result = done.best, done.result
    assert best.measured["size"].value <= 0.18 * result.fp32.measured["size"].value
    assert best.measured["drop"].value <= 8
    assert done.model.digest == best.model
    names = [step["technique"] for step in best.recipe]
    assert names[0] in ("prune_channels", "prune_blocks")
    assert "distill" in names
    assert names[-1].startswith("quantize")


def test_what_each_stage_gave_is_told(composed):
    (done, _), _ = composed
    stages = dict(done.result.stages)
    assert list(stages)[:4] == ["baseline", "+ quantization", "+ pruning", "+ distillation"]
    baseline, quantized = stages["baseline"], stages["+ quantization"]
    cut, taught = stages["+ pruning"], stages["+ distillation"]
    assert baseline == done.result.fp32
    assert quantized.measured["size"].value < baseline.measured["size"].value
    assert cut.measured["size"].value < quantized.measured["size"].value
    assert cut.detail["macs"] < quantized.detail["macs"] == baseline.detail["macs"]
    assert taught.measured["drop"].value < cut.measured["drop"].value
    assert cut.status == "not met"
    assert "+ distillation" in done.table()
    assert "Stage by stage" in markdown(done.result)
    assert "Stage by stage" in html(done.result)
    again = Result.from_dict(json.loads(json.dumps(done.result.to_dict())))
    assert again.stages == done.result.stages


def test_the_same_command_trains_nothing_twice(composed):
    (first, steps), (again, steps_again) = composed
    assert again.best.model == first.best.model
    assert again.result.stages == first.result.stages
    assert steps_again == steps


def test_without_training_data_it_says_what_is_missing(tmp_path):
    done = optimize(
        digits_net.network(),
        digits_net.task(),
        GOAL,
        budget=4,
        engines=[OnnxRuntime()],
        store=Store(tmp_path),
    )
    assert done.status == "not met"
    assert done.result.stages == ()
    assert any("add a [training] table" in one.reason for one in done.result.passed_over)


def test_a_budget_too_small_to_train_in_says_so(tmp_path):
    done = optimize(
        digits_net.network(),
        trainable(),
        GOAL,
        budget=4,
        engines=[OnnxRuntime()],
        store=Store(tmp_path),
    )
    assert done.result.stages == ()
    assert any("give a larger budget" in one.reason for one in done.result.passed_over)


def test_the_first_structure_is_cut_however_little_time_there_is(tmp_path):
    bench = Bench(digits_net.network(), trainable(), Store(tmp_path), 0, lambda *_: None)
    search = Search(bench, GOAL, Budget(100), [OnnxRuntime()], [1])
    recipe = Recipe((Fuse(), QuantizeStatic()))
    outcome = bench.build(recipe)
    lead = Entry("int8", outcome.model, OnnxRuntime(), Setting(1), recipe, outcome)
    fp32 = Entry("fp32", bench.original, OnnxRuntime(), Setting(1))
    timed = search.race("racing", [fp32, lead], fp32.key, 0.01)
    base, measured = (make_candidate(one, timed[one.key], fp32, {}, None) for one in (fp32, lead))
    short = shortfall(measured, base, GOAL)
    (form,) = pruned(search, fp32, base, lead, short, seconds=0.0)
    assert form.name.startswith("channels −45 % size")
    late = [one.place for one in search.passed if "time for structures" in one.reason]
    assert late == ["channels −50 % MACs int8", "channels −70 % MACs int8"]
    every = pruned(search, fp32, base, lead, short, seconds=60.0)
    assert [one.name for one in every] == [form.name]  # it was decided once


def test_a_quantized_form_is_trained_as_long_as_the_seconds_allow(tmp_path):
    bench = Bench(digits_net.network(), trainable(), Store(tmp_path), 0, lambda *_: None)
    search = Search(bench, Goal(), Budget(100), [OnnxRuntime()], [1])
    recipe = Recipe((Fuse(), QuantizeStatic(weight_bits=3)))
    outcome = bench.build(recipe)
    entry = Entry("int8", outcome.model, OnnxRuntime(), Setting(1), recipe, outcome)
    form = Form("", (), entry)
    fp32 = Entry("fp32", bench.original, OnnxRuntime(), Setting(1))
    trained = aware(search, form, 8.0, bench.task.training)
    step = trained.recipe.steps()[-1].to_dict()
    assert (step["technique"], step["weight_bits"]) == ("quantize_aware", 3)
    assert bench.fidelity(trained, fp32, 64)[0] < bench.fidelity(entry, fp32, 64)[0]
    assert aware(search, form, 0.0, bench.task.training) is None
    assert "give a larger budget" in search.passed[-1].reason


def test_without_labels_the_originals_answers_judge(tmp_path):
    images, _ = digits_net.digits()
    task = replace(digits_net.task(), validation=ArraySamples({"image": images[800:1200]}))
    done = optimize(
        digits_net.network(),
        task,
        Goal(max_drop=5, objective="size"),
        budget=2,
        recipes=[INT8],
        engines=[OnnxRuntime()],
        store=Store(tmp_path),
    )
    assert done.result.fp32.measured["metric"].value == 100
    assert any("no labels" in one for one in done.result.warnings)
    drop, agreement = done.best.measured["drop"], done.best.measured["agreement"]
    assert done.status == "met"
    assert drop.value == pytest.approx(100 - agreement.value)
    assert np.isfinite(drop.high)


def test_a_limit_on_memory_that_int8_misses_is_seen(tmp_path):
    done = optimize(
        digits_net.network(),
        trainable(),
        Goal(max_drop=None, max_memory_bytes=1_000_000, objective="memory"),
        budget=90,
        engines=[OnnxRuntime()],
        store=Store(tmp_path),
    )
    assert done.status == "not met"
    reasons = [one.reason for one in done.result.passed_over]
    assert any("less memory" in one for one in reasons)
    assert any("no smaller structure comes near enough" in one for one in reasons)
