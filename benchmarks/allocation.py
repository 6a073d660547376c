# SPDX-License-Identifier: Apache-2.0
"""Compares ways to say which channels go: ResNet-20 on CIFAR-10 (JPEG), in one run.

    BURNISH_DATA=… python benchmarks/allocation.py [--quick] [--engine openvino]

The float network is fine-tuned on the JPEG images first, since its weights come from
others. Each arm then cuts channels, which are the least important by `--importance` (or
random, a control), to at most the same share of the multiply-accumulates: uniformly, or
greedily over layers; on an aligned grid, or at any width. The arms for latency get as their
target the int8 latency that the aligned uniform arm was measured to have. All are recovered
alike by label-free distillation, and judged on the same test images before and after.
Latencies are of the int8 forms, of one and of eight images, all arms interleaved in one
race. Prints a Markdown table.

`--quick` is for seeing that it runs: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networks

import burnish as bn
from burnish.core.candidate import Setting
from burnish.core.measurement import Measurement
from burnish.core.store import Store
from burnish.core.technique import Context
from burnish.engines.engine import Engine, by_name, installed
from burnish.graph.cost import cost
from burnish.measuring.accuracy import Judged, compare, evaluate
from burnish.measuring.machine import machine
from burnish.measuring.timing import Contender, Timed, race
from burnish.techniques.distill.distill import Distill
from burnish.techniques.prune.channels import PruneChannels
from burnish.techniques.train.fine_tune import FineTune

_TASK = networks.EXAMPLES / "cifar10" / "jpeg.toml"
_BATCHES = (1, 8)
_UNIFORM = "uniform, aligned"


@dataclass(frozen=True)
class Arm:
    """A network of the comparison: cut, recovered, and quantized."""

    cut: bn.Model
    recovered: bn.Model
    int8: bn.Model


def main() -> None:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--amount", type=float, default=0.5, help="share of the MACs that goes")
    parser.add_argument("--importance", default="taylor", help="of every arm but the random one")
    parser.add_argument("--engine", default="onnxruntime", choices=[e.name for e in installed()])
    parser.add_argument("--base", type=Path, help="the float network, instead of fine-tuning it")
    parser.add_argument("--precision", default="auto", help="of training: float32 or bfloat16")
    parser.add_argument("--tune-epochs", type=int, default=15, help="of the float network")
    parser.add_argument("--epochs", type=int, default=5, help="of each arm's recovery")
    parser.add_argument("--budget-s", type=float, default=120, help="seconds for each race")
    parser.add_argument("--limit", type=int, help="judge on the first so many images only")
    parser.add_argument("--samples", type=int, default=0, help="images in an epoch, 0 for all")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see it run")
    parser.add_argument("--store", type=Path, help="where finished steps are kept for a rerun")
    options = parser.parse_args()
    if options.quick:
        options.tune_epochs = options.epochs = 1
        options.samples, options.limit, options.budget_s = 512, 500, 5.0
    task = bn.Task.load(_TASK)
    store = Store(options.store) if options.store else Store.temporary()
    engine = by_name(options.engine)
    if options.base:
        base = bn.Model.load(options.base)
    else:
        say("fine-tuning the float network")
        base = tuned(task, Context(task, store), options)
    context = Context(task, store, original=base)
    arms = make_arms(base, context, engine, options)
    say("judging")
    judged = {
        name: [judge(one, task, options.limit) for one in (arm.cut, arm.recovered, arm.int8)]
        for name, arm in arms.items()
    }
    timed = {batch: timing(arms, task, engine, batch, options.budget_s) for batch in _BATCHES}
    table(arms, judged, timed, task, engine, options)


def tuned(task: bn.Task, context: Context, options: argparse.Namespace) -> bn.Model:
    """Returns ResNet-20 fine-tuned on the task's training images."""
    example = dict(next(iter(task.split("validation").batches(2))).inputs)
    network = networks.module("cifar10/resnet.py", "resnet20")
    model = bn.Model.from_torch(network, example, source="resnet20")
    technique = FineTune(
        epochs=options.tune_epochs,
        samples=options.samples,
        optimizer="sgd",
        learning_rate=0.02,
        weight_decay=5e-4,
        augment=("flip", "crop"),
        precision=options.precision,
    )
    return technique.apply(model, context).model


def make_arms(
    base: bn.Model, context: Context, engine: Engine, options: argparse.Namespace
) -> dict[str, Arm]:
    """Returns the networks by name, the uncut one first."""
    step = PruneChannels(
        amount=options.amount,
        importance=options.importance,
        engine=engine.name,
        seconds=options.budget_s / 4,
    )
    steps = {
        _UNIFORM: replace(step, allocation="uniform"),
        "uniform, any width": replace(step, allocation="uniform", align=1),
        "MACs, aligned": replace(step, allocation="greedy"),
        "MACs, any width": replace(step, allocation="greedy", align=1),
        "random channels, uniform, aligned": replace(
            step, allocation="uniform", importance="random"
        ),
        "random channels, uniform, any width": replace(
            step, allocation="uniform", importance="random", align=1
        ),
    }
    arms = {"uncut": Arm(base, base, int8(base, context))}
    for name, one in steps.items():
        arms[name] = make_arm(name, one, base, context, options)
    share = 1 - ratio_of(arms, context, engine, options.budget_s)
    if share <= 0:
        print(f"No arm for latency: {_UNIFORM} is no faster than the uncut network.\n")
        return arms
    for name, align in (("latency, aligned", 0), ("latency, any width", 1)):
        one = replace(step, of="latency", amount=round(share, 3), align=align)
        arms[name] = make_arm(name, one, base, context, options)
    return arms


def make_arm(
    name: str, step: PruneChannels, base: bn.Model, context: Context, options: argparse.Namespace
) -> Arm:
    """Returns one arm, cut by `step` and recovered without labels."""
    say(f"{name}: cutting and recovering")
    outcome = step.apply(base, context)
    for line in outcome.applied:
        if line.startswith("int8 latency"):
            say(f"{name}: {line}")
    recovery = Distill(
        epochs=options.epochs,
        samples=options.samples,
        learning_rate=2e-3,
        augment=("flip", "crop"),
        precision=options.precision,
    )
    recovered = recovery.apply(outcome.model, context).model
    return Arm(outcome.model, recovered, int8(recovered, context))


def int8(model: bn.Model, context: Context) -> bn.Model:
    """Returns the model folded and quantized."""
    fused = bn.Fuse().apply(model, context).model
    return bn.QuantizeStatic().apply(fused, context).model


def judge(model: bn.Model, task: bn.Task, limit: int | None) -> Judged:
    """Returns the model judged on the test images."""
    with by_name("onnxruntime").open(model, Setting(machine().cores)) as session:
        return evaluate(session, task, limit=limit)


def ratio_of(arms: Mapping[str, Arm], context: Context, engine: Engine, budget_s: float) -> float:
    """Returns the aligned uniform arm's int8 latency over the uncut network's."""
    task = context.need_task("the benchmark")
    pair = {name: arms[name] for name in ("uncut", _UNIFORM)}
    speedup = timing(pair, task, engine, 1, budget_s / 2)[_UNIFORM].speedup
    return 1.0 if speedup is None else 1 / speedup.value


def timing(
    arms: Mapping[str, Arm], task: bn.Task, engine: Engine, batch: int, budget_s: float
) -> dict[str, Timed]:
    """Returns each arm's int8 latency, one thread, against the uncut network's."""
    say(f"racing {len(arms)} networks at batch {batch}")
    inputs = dict(next(iter(task.split("validation").batches(batch, batch))).inputs)

    def opening(model: bn.Model) -> Callable[[], Any]:
        return lambda: engine.open(model, Setting(threads=1))

    contenders = [Contender(name, opening(arm.int8), inputs) for name, arm in arms.items()]
    return race(contenders, baseline=contenders[0].key, budget_s=budget_s)


def table(
    arms: Mapping[str, Arm],
    judged: Mapping[str, list[Judged]],
    timed: Mapping[int, Mapping[str, Timed]],
    task: bn.Task,
    engine: Engine,
    options: argparse.Namespace,
) -> None:
    """Prints the table."""
    metric = task.judge()
    base = judged["uncut"][1]
    print(
        f"### {metric.name} on {base.n} test images; {options.amount:.0%} of the MACs go; "
        f"{options.epochs} epochs of {options.samples or 'all'} images to recover, without labels; "
        f"{options.importance}\n\n"
        f"{machine().cpu_model}, 1 thread; {engine.identity}"
        + ("; a quick run, whose figures mean nothing" if options.quick else "")
        + "\n"
    )
    titles = ["channels go", "MACs", "parameters", "before recovery", "after", "drop", "int8"]
    for batch in timed:
        titles += [f"int8 ms, batch {batch}", f"× uncut, batch {batch}"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for name, arm in arms.items():
        counted, (cut, recovered, quantized) = cost(arm.recovered), judged[name]
        cells = [name, f"{counted.macs / 1e6:.1f} M", f"{counted.parameters / 1e3:.0f} k"]
        cells += [f"{cut.value.value:.2f}", f"{recovered.value.value:.2f}"]
        cells += [interval(compare(base, recovered, metric).drop), f"{quantized.value.value:.2f}"]
        for one in timed.values():
            cells += speed(one[name])
        print("| " + " | ".join(cells) + " |", flush=True)


def speed(timed: Timed) -> list[str]:
    """Returns the cells of latency and of the ratio to the uncut network."""
    if timed.failed is not None:
        return ["failed", "–"]
    ratio = "1" if timed.speedup is None else interval(timed.speedup)
    return [interval(timed.latency), ratio]


def interval(one: Measurement) -> str:
    """Returns a value with its 95 % interval."""
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


def say(text: str) -> None:
    """Says on standard error how far the run has come."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
