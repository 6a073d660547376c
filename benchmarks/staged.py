# SPDX-License-Identifier: Apache-2.0
"""Prints what each stage gives: float → + quantization → + pruning → + distillation.

    BURNISH_DATA=… python benchmarks/staged.py [--network resnet20] [--amount 0.5] [--epochs 10]

On CIFAR-10 as JPEG copies, with the published weights of the originals. The float baseline
is fine-tuned on the JPEG training images first (`--tune-epochs`); all 10,000 test images
judge each stage, paired with that baseline. Pruning takes whole residual blocks
(`--blocks`) and channels (`--amount` of the multiply-accumulates that are left), aligned
for int8. Recovery is distillation from the baseline, or from a larger network that is
fine-tuned alike (`--teacher`); that one teaches as int8, which costs it nothing that
matters and makes its answers several times as cheap. Every file runs on the engine and
threads that are fastest for it; all are timed in one race at batch 1, and in another at
batch 8. Finished steps are kept in `--store`, so that a run goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import networks

import burnish as bn
from burnish.core.candidate import Setting
from burnish.core.technique import Context, Technique
from burnish.engines.engine import installed
from burnish.graph.cost import cost
from burnish.measuring.accuracy import Judged, compare, evaluate
from burnish.measuring.machine import machine
from burnish.measuring.timing import Contender, Timed, race
from burnish.techniques.distill.distill import Distill
from burnish.techniques.prune.blocks import PruneBlocks, residual_blocks
from burnish.techniques.prune.channels import PruneChannels
from burnish.techniques.train.fine_tune import FineTune

_FLOAT = "float, fine-tuned"
AUGMENT = ("flip", "crop")


def main() -> None:
    """Runs the stages that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=("resnet20", "resnet56"), default="resnet20")
    parser.add_argument("--base", type=Path, help="the float network that a run before has kept")
    parser.add_argument("--tune-epochs", type=int, default=6)
    parser.add_argument(
        "--teacher", choices=("resnet56",), help="what teaches; the baseline if not"
    )
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10, help="of distillation")
    parser.add_argument("--learning-rate", type=float, default=0.05, help="of distillation")
    parser.add_argument("--amount", type=float, default=0.5, help="share of the MACs to cut")
    parser.add_argument("--blocks", type=int, default=0, help="whole blocks to cut first")
    parser.add_argument("--drop", nargs="*", default=[], help="which, by the node that adds")
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--precision", default="auto", help="of training: bfloat16 is faster here")
    parser.add_argument("--compiled", action="store_true", help="distil with a compiled network")
    parser.add_argument("--soft-weight", type=float, default=0.9, help="of the teacher's answers")
    parser.add_argument("--budget-s", type=float, default=60, help="seconds for each race")
    parser.add_argument("--store", type=Path, help="where finished steps are kept")
    parser.add_argument("--keep", type=Path, help="a folder to keep the ONNX files in")
    options = parser.parse_args()
    models = stages(options)
    if options.keep:
        for name, model in models.items():
            model.save(options.keep / f"{name.replace(' ', '_').replace(',', '')}.onnx")
    table(models, bn.Task.load(networks.EXAMPLES / "cifar10/jpeg.toml"), options)


def stages(options: argparse.Namespace) -> dict[str, bn.Model]:
    """Returns the models by stage, the float baseline first."""
    task = bn.Task.load(networks.EXAMPLES / "cifar10/jpeg.toml")
    store = bn.Store(options.store) if options.store else None
    context = Context(task, store, 0, Shown())
    if options.base:
        start = bn.Model.load(options.base)
    else:
        start = tuned(options.network, options.tune_epochs, context, options)
    if options.keep:
        start.save(options.keep / "float.onnx")
    context = Context(task, store, 0, Shown(), original=start)
    cuts: list[Technique] = []
    if options.drop:
        others = {block.name for block in residual_blocks(start)} - set(options.drop)
        cuts.append(PruneBlocks(amount=len(options.drop), keep=tuple(sorted(others))))
    elif options.blocks:
        cuts.append(PruneBlocks(amount=options.blocks))
    if options.amount:
        cuts.append(PruneChannels(amount=options.amount, importance=options.importance))
    cut = applied(start, context, *cuts)
    int8 = (bn.Fuse(), bn.QuantizeStatic())
    teachers: tuple[str, ...] = ()
    if options.teacher:
        file = (options.keep or Path(tempfile.mkdtemp())) / f"{options.teacher}_int8.onnx"
        if not options.keep or not file.is_file():
            large = tuned(options.teacher, options.teacher_epochs, context, options)
            applied(large, context, *int8).save(file)
        teachers = (str(file),)
    learn = Distill(
        teachers=teachers,
        teacher_engine="openvino" if teachers else "",
        epochs=options.epochs,
        optimizer="sgd",
        learning_rate=options.learning_rate,
        weight_decay=5e-4,
        augment=AUGMENT,
        soft_weight=options.soft_weight,
        precision=options.precision,
        compiled=options.compiled,
    )
    taught = applied(cut, context, learn)
    return {
        _FLOAT: applied(start, context, bn.Fuse()),
        "+ quantization": applied(start, context, *int8),
        "+ pruning": applied(cut, context, *int8),
        "+ distillation": applied(taught, context, *int8),
    }


def tuned(name: str, epochs: int, context: Context, options: argparse.Namespace) -> bn.Model:
    """Returns a network with its published weights, fine-tuned on the JPEG training images."""
    assert context.task is not None
    example = dict(next(iter(context.task.split("validation").batches(2))).inputs)
    network = networks.module("cifar10/resnet.py", name)
    published = bn.Model.from_torch(network, example, source=name)
    tune = FineTune(
        epochs=epochs,
        optimizer="sgd",
        learning_rate=0.02,
        weight_decay=5e-4,
        augment=AUGMENT,
        precision=options.precision,
    )
    return applied(published, context, tune)


def applied(model: bn.Model, context: Context, *techniques: Technique) -> bn.Model:
    """Returns what the techniques make of the model; says what they did."""
    began = time.monotonic()
    outcome = bn.Recipe(techniques).apply(model, context)
    for line in outcome.applied:
        print(f"  {line}", file=sys.stderr)
    for one in outcome.skipped:
        print(f"  left: {one.place}: {one.reason}", file=sys.stderr)
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return outcome.model


class Shown:
    """Progress on standard error, a line every ten seconds."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, work: str, done: int, total: int) -> None:
        """Shows it when the last was ten seconds ago."""
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            print(f"  {work} ({done}/{total})", file=sys.stderr, flush=True)


def table(models: dict[str, bn.Model], task: bn.Task, options: argparse.Namespace) -> None:
    """Judges and times all stages, and prints one row for each."""
    metric = task.judge()
    fastest = {name: fastest_of(name, model, task, options) for name, model in models.items()}
    judged: dict[str, Judged] = {}
    for name, model in models.items():
        engine, setting = fastest[name]
        with engine.open(model, setting) as session:
            judged[name] = evaluate(session, task)
    timed = [
        timing(models, fastest, task, batch, options.budget_s, "+ quantization") for batch in (1, 8)
    ]
    print(f"{machine().cpu_model}, {machine().cores} cores; {options.network}\n")
    print(
        "| stage | engine | MACs | parameters | size | top-1 | drop | ms, batch 1 | × int8 "
        "| ms, batch 8 | × int8 |\n|" + "---|" * 11
    )
    for name, model in models.items():
        engine, setting = fastest[name]
        drop = compare(judged[_FLOAT], judged[name], metric).drop
        counted = cost(model)
        cells = [name, f"{engine.name}, {setting}"]
        cells += [f"{counted.macs / 1e6:.1f} M", f"{counted.parameters / 1e3:.0f} k"]
        cells += [f"{model.size_bytes / 1e3:.0f} kB", interval(judged[name].value, 2)]
        cells += [interval(drop, 2)]
        for one in timed:
            ratio = one[name].speedup
            cells += [interval(one[name].latency, 3), interval(ratio, 2) if ratio else "1"]
        print("| " + " | ".join(cells) + " |")


def fastest_of(
    name: str, model: bn.Model, task: bn.Task, options: argparse.Namespace
) -> tuple[object, Setting]:
    """Returns the engine and setting that run the model fastest, one sample at a time."""
    request = dict(next(iter(task.split("validation").batches(1, 1))).inputs)
    places = {
        f"{engine.name} {threads}": (engine, Setting(threads))
        for engine in installed()
        for threads in sorted({1, machine().cores})
    }
    contenders = [
        Contender(key, lambda e=engine, s=setting: e.open(model, s), request)  # type: ignore[misc]
        for key, (engine, setting) in places.items()
    ]
    print(f"{name}: choosing an engine", file=sys.stderr, flush=True)
    found = race(
        contenders, baseline=contenders[0].key, budget_s=0.2 * options.budget_s, sessions=1
    )
    running = [one for one in found.values() if one.failed is None]
    return places[min(running, key=lambda one: one.latency.value).key]


def timing(
    models: dict[str, bn.Model],
    places: dict[str, tuple[object, Setting]],
    task: bn.Task,
    batch: int,
    budget_s: float,
    baseline: str,
) -> dict[str, Timed]:
    """Returns the latency of a batch for each stage, and the ratio to the baseline's."""
    request = dict(next(iter(task.split("validation").batches(batch, batch))).inputs)
    contenders = [
        Contender(name, lambda m=model, p=places[name]: p[0].open(m, p[1]), request)  # type: ignore[misc]
        for name, model in models.items()
    ]
    return race(contenders, baseline=baseline, budget_s=budget_s, precision_ratio=0.01)


def interval(one: bn.Measurement, digits: int) -> str:
    """Returns a value with its 95 % interval."""
    return f"{one.value:.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"


if __name__ == "__main__":
    main()
