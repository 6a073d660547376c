# SPDX-License-Identifier: Apache-2.0
"""An optimization from end to end, on a real network, real data and real engines."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import digits_net
import numpy as np
import pytest
import small_models
from digits_run import INT8, SMALL, Failing, Refusing, optimize
from onnx import TensorProto, helper

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.core.goal import Goal
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Skipped
from burnish.data.metrics import metric
from burnish.data.samples import ArraySamples
from burnish.engines.engine import Engine
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.machine import machine
from burnish.optimizing import bench, entries, finals, run
from burnish.optimizing.result import Result
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic


def test_the_smallest_that_keeps_the_accuracy_is_chosen(done):
    result = done.first.result
    assert result.status == done.first.status == "met"
    best = result.best
    assert best.name == str(INT8)
    assert best.measured["size"].value < 0.45 * result.fp32.measured["size"].value
    assert abs(best.measured["drop"].value) <= 3
    assert best.measured["agreement"].value >= 95
    assert result.fp32.measured["metric"].value > 85
    assert done.first.model.digest == best.model != done.first.original.digest
    assert [step["technique"] for step in best.recipe] == ["fuse", "quantize_static"]
    assert any("int8" in what for what in best.applied)


def test_baselines_come_first_and_every_row_is_measured(done):
    result = done.first.result
    assert [one.name for one in result.baselines] == ["fp32"]
    assert result.baselines[0] == result.fp32
    assert result.fp32.model == done.first.original.digest
    every = {"latency", "size", "metric", "drop", "agreement", "load", "memory", "throughput"}
    for one in (result.fp32, *result.candidates):
        assert set(one.measured) - {"speedup"} == every
        for quantity, found in one.measured.items():
            assert found.low <= found.value <= found.high, quantity
            assert found.n >= 1
            if quantity != "size":
                assert (found.machine, found.engine) == (result.machine["fingerprint"], one.engine)
        assert len(one.detail["throughput"]) >= 3
    assert "speedup" not in result.fp32.measured
    drop = result.fp32.measured["drop"]
    assert (drop.value, drop.low, drop.high) == (0, 0, 0)
    assert result.protocol["calibration_samples"] == 64
    assert result.protocol["validation_samples"] == 400


def test_engines_that_do_not_run_it_are_passed_over_with_their_reason(done):
    reasons = {one.place: one.reason for one in done.first.result.passed_over}
    assert any("no kernel for anything" in one for one in reasons.values())
    assert "broke down" in reasons["fp32 on failing"]
    assert all(reasons.values())


def test_a_second_run_measures_nothing_and_says_the_same(done):
    first, again = done.first.result, done.again.result
    # Whether an engine takes a model is asked again: its version may have changed.
    assert done.opened[1] <= 2 < done.opened[0]
    own = {"created": "", "protocol": {}}
    assert replace(first, **own) == replace(again, **own)
    assert again.protocol["spent_s"] < max(0.5, first.protocol["spent_s"] / 4)
    assert done.again.model.digest == done.first.model.digest


def test_the_result_survives_json(done):
    result = done.first.result
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert "fp32" in done.first.table()
    assert "int8" in done.first.table(60) or "quantize" in done.first.table(60)


def test_seeds_and_artefacts(done, tmp_path):
    """The same seed makes the same file in another store; each seed has steps of its own."""

    def built(seed, folder):
        store = Store(tmp_path / folder)
        recipe = Recipe((Fuse(), QuantizeStatic(weight_bits=8, rounding="gptq")))
        one = bench.Bench(digits_net.network(), digits_net.task(), store, seed, lambda *_: None)
        one.build(recipe)
        files = (tmp_path / folder / "built").glob("*/model.onnx")
        return {file.parent.name: file.read_bytes() for file in files}

    one, same, other = built(0, "one"), built(0, "same"), built(1, "other")
    assert len(one) == 2  # a step each
    assert one == same
    assert not one.keys() & other.keys()


def test_a_model_that_no_engine_runs_is_unsupported(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(Unsupported, match="no kernel for anything"):
        optimize(small_models.convolutional(), store=store, engines=[Refusing()])
    with pytest.raises(Unsupported, match="broke down"):
        optimize(small_models.convolutional(), store=store, engines=[Failing()])
    with pytest.raises(Unsupported, match="no engine runs the model"):
        optimize(small_models.unknown_operator(), store=store)


@pytest.mark.parametrize("budget", ["soon", 0, -1, None])
def test_a_budget_that_is_none_is_misuse(tmp_path, budget):
    with pytest.raises(Misuse, match="duration"):
        optimize(small_models.convolutional(), store=Store(tmp_path), budget=budget)


def test_data_that_does_not_fit_the_model_is_misuse_at_once(tmp_path):
    wrong = Task("wrong", ArraySamples({"image": np.zeros((4, 3, 9, 9), np.float32)}))
    with pytest.raises(Misuse, match="image must have shape"):
        optimize(small_models.convolutional(), wrong, store=Store(tmp_path))


def test_that_other_programs_ran_is_said(done):
    timed = done.first.result.fp32
    row = bench.Timed(timed.name, timed.measured["latency"])
    rows = [replace(row, waited_ratio=ratio) for ratio in (0.02, 0.11, 0.2)]
    (warning,) = finals._disturbance(rows)
    assert "other programs were running" in warning
    assert "11 %" in warning
    assert finals._disturbance(rows[:1]) == []
    failed = replace(row, waited_ratio=0.9, failed="broke down")
    assert finals._disturbance([rows[0], failed]) == []


@pytest.mark.slow
def test_an_impossible_goal_is_not_met_and_the_nearest_comes_back(shared_store):
    goal = Goal(max_size_bytes=10, objective="size")
    done = optimize(digits_net.network(), digits_net.task(), goal, store=shared_store)
    assert done.status == "not met"
    assert done.best.name == str(INT8)
    assert any(one.status == "not met" for one in done.result.verdicts)


@pytest.mark.slow
def test_too_few_samples_are_not_shown_and_more_are_asked_for(shared_store):
    goal = Goal(max_drop=1.0, objective="size")
    done = optimize(digits_net.network(), digits_net.task(60), goal, store=shared_store)
    assert done.status == "not shown"
    (drop,) = [one for one in done.result.verdicts if one.requirement.startswith("drop")]
    assert drop.status == "not shown"
    assert drop.within
    assert drop.n_more > 60


@pytest.mark.slow
@pytest.mark.parametrize("which", ["none", "no validation", "no calibration", "nothing"])
def test_tasks_that_lack_something(shared_store, which):
    task = {
        "none": None,
        "no validation": replace(digits_net.task(), validation=None),
        "no calibration": replace(digits_net.task(), calibration=None),
        "nothing": Task("nothing"),
    }[which]
    more = {"store": shared_store, "recipes": None}
    done = optimize(digits_net.network(), task, Goal(objective="size"), **more)
    passed = {one.place for one in done.result.passed_over}
    if which == "no validation":
        # Nothing can be said of the accuracy, so that nothing is claimed of it.
        assert done.status == "not shown"
        assert "metric" not in done.result.fp32.measured
        assert "quantize_static" not in passed
    else:
        assert "quantize_static" in passed
        assert ("metric" in done.result.fp32.measured) == (which == "no calibration")
    assert "nan" not in done.table()
    free = optimize(digits_net.network(), task, Goal(max_drop=None, objective="size"), **more)
    assert free.status == "met"


@pytest.mark.slow
def test_several_inputs_whole_numbers_and_a_lower_metric(tmp_path):
    model = small_models.two_inputs()
    rng = np.random.default_rng(0)
    inputs = {
        "ids": rng.integers(0, 20, (96, 7)),
        "mask": rng.random((96, 7)) < 0.7,
    }
    with OnnxRuntime().open(model, Setting()) as session:
        labels = session.run(inputs)["pooled"] + 0.1
    samples = ArraySamples(inputs, labels.astype(np.float32))
    task = Task("pooled", samples, None, samples, metric("mse", output="pooled"))
    done = optimize(model, task, Goal(max_drop=0.5), store=Store(tmp_path), recipes=None)
    fp32 = done.result.fp32
    assert fp32.measured["metric"].better == "lower"
    assert fp32.measured["metric"].value == pytest.approx(0.01, rel=1e-3)
    # There is nothing to quantize in it, which is said.
    assert any("nothing to quantize" in one.reason for one in done.result.passed_over)
    assert done.status == "met"


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_a_model_of_fixed_batch_size(shared_store, tmp_path, batch):
    model = digits_net.network(batch)
    gptq = Recipe((Fuse(), QuantizeStatic(weight_bits=8, rounding="gptq")))
    more = {"store": shared_store, "recipes": [INT8, gptq]}
    done = optimize(model, digits_net.task(), **more)
    assert done.status == "met"
    assert done.best.recipe
    assert {one.name for one in done.result.candidates} <= {str(INT8), str(gptq)}
    points = done.best.detail["throughput"]
    assert {point["batch_size"] for point in points} == {batch}
    bundle = done.save(tmp_path / "bundle")
    reference = json.loads((bundle.path / "reference.json").read_text())
    assert sum(reference["answers"]["logits"]) == reference["n"] == 400
    # Calibrated on the same samples, whatever the batch: the same ranges.
    free = optimize(digits_net.network(), digits_net.task(), **more)
    assert free.best.measured["metric"].value == pytest.approx(
        done.best.measured["metric"].value, abs=1.5
    )


@pytest.mark.slow
def test_every_engine_and_recipe_within_the_budget(tmp_path):
    done = run.optimize(
        digits_net.network(), digits_net.task(), SMALL, budget=6, store=Store(tmp_path), seed=3
    )
    result = done.result
    assert result.status == "met"
    assert result.baselines[0] == result.fp32
    assert result.best.recipe[-1]["technique"] == "quantize_static"
    assert result.protocol["seed"] == 3
    assert result.passed_over
    again = run.optimize(
        digits_net.network(), digits_net.task(), SMALL, budget=6, store=Store(tmp_path), seed=3
    )
    own = {"created": "", "protocol": {}}
    assert replace(result, **own) == replace(again.result, **own)
    # Slower or not, the small one is what a limit on size asks for.
    goal = Goal(max_drop=5, max_size_ratio=0.5)
    other = run.optimize(
        digits_net.network(), digits_net.task(), goal, budget=6, store=Store(tmp_path), seed=4
    )
    assert other.result.protocol["seed"] == 4
    assert other.status == "met"
    assert other.best.recipe[-1]["technique"] == "quantize_static"


@pytest.mark.slow
def test_a_candidate_slower_than_fp32_is_never_chosen_for_latency(tmp_path):
    """ONNX Runtime has no fast kernel for s8 activations on x86."""
    model, task = wide()
    s8 = Recipe((Fuse(), QuantizeStatic(activations="s8", weight_bits=8)))
    goal = Goal(max_drop=None)
    done = optimize(model, task, goal, store=Store(tmp_path), recipes=[s8], budget=5)
    rows = {one.name: one for one in done.result.candidates}
    if str(s8) in rows and rows[str(s8)].measured["speedup"].low > 1:
        pytest.skip("s8 activations are fast on this machine")
    assert done.best.model == model.digest
    assert done.status == "met"
    if str(s8) not in rows:
        reasons = {one.place: one.reason for one in done.result.passed_over}
        assert "slower than fp32" in reasons[f"{s8} on onnxruntime"]


def wide() -> tuple[Model, Task]:
    """Returns three wide convolutions, and images without labels."""
    rng = np.random.default_rng(1)
    weights = {f"w{k}": rng.normal(0, 0.05, (64, 64, 3, 3)).astype(np.float32) for k in range(3)}
    nodes = []
    for k in range(3):
        value = f"r{k - 1}" if k else "image"
        nodes += [
            helper.make_node("Conv", [value, f"w{k}"], [f"c{k}"], f"conv{k}", pads=[1] * 4),
            helper.make_node("Relu", [f"c{k}"], [f"r{k}"], f"relu{k}"),
        ]
    model = small_models.make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 64, 24, 24])],
        [("r2", TensorProto.FLOAT, ["batch", 64, 24, 24])],
        weights,
    )
    images = rng.normal(0, 1, (16, 64, 24, 24)).astype(np.float32)
    return model, Task("wide", ArraySamples({"image": images}))


def test_refusals_are_the_reasons(tmp_path):
    class Choosy(OnnxRuntime):
        name = "choosy"

        def refusals(self, model: Model) -> tuple[Skipped, ...]:
            return (Skipped("conv1", "an odd kernel"),)

    entry = entries.Entry("net", small_models.convolutional(), Choosy(), Setting())
    assert entries.opens(entry) == "conv1: an odd kernel"
    assert issubclass(Choosy, Engine)


def test_the_threads_that_a_brief_race_cannot_tell_apart_are_settled_by_the_long_one(tmp_path):
    """The cores may be shared for some seconds, and all of them then be slower than one."""
    cores = machine().cores
    if cores < 2:
        pytest.skip("one core has one number of threads")
    slow_s = {"all cores": 0.0045}

    class Sleepy(OnnxRuntime):
        def open(self, model, setting):
            session = super().open(model, setting)
            run_it = session.execute

            def execute(inputs):
                time.sleep(slow_s["all cores"] if setting.threads == cores else 0.004)
                return run_it(inputs)

            session.execute = execute
            return session

    def progress(work, done, total):
        if "racing" in work:
            slow_s["all cores"] = 0.002

    model = digits_net.network()
    done = optimize(model, None, Goal(), store=Store(tmp_path), recipes=[Recipe((Fuse(),))],
                    engines=[Sleepy()], budget=6, progress=progress)  # fmt: skip
    result = done.result
    assert result.fp32.setting.threads == cores
    assert "speedup" not in result.baselines[0].measured or (
        result.baselines[0].measured["speedup"].n == 1
    )
    for one in result.candidates:
        assert one.setting.threads == cores
        assert one.measured["speedup"].value == pytest.approx(1, rel=0.3)
