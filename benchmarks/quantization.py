# SPDX-License-Identifier: Apache-2.0
"""Compares int8 by Burnish, by ONNX Runtime's quantizer and by NNCF, in one run on one machine.

    BURNISH_DATA=… python benchmarks/quantization.py [--networks resnet56 …] [--budget-s 120]

All start from the same float32 graph, with BatchNormalization folded, and the same
calibration samples; ONNX Runtime and NNCF (`make bench-env`) run with their defaults.
"Burnish chosen" is what `bn.optimize` picks, the fastest that is shown to lose no more than
`--max-drop` points (500 images cannot show that a network which loses 0.4 loses less than 1;
they can show that it loses less than 2); "Burnish default" is QuantizeStatic() as it is.
Every file runs on every engine, with 1 thread and with all; calls of all contenders are
interleaved. Prints a Markdown table for each network.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import networks
import numpy as np
from onnxruntime import quantization as ort_quantization

import burnish as bn
from burnish.core.candidate import Setting
from burnish.core.measurement import Measurement
from burnish.core.technique import Context
from burnish.engines.engine import Engine, installed
from burnish.measuring.accuracy import Comparison, Judged, agreement, compare, evaluate
from burnish.measuring.machine import machine
from burnish.measuring.timing import Contender, Timed, race

_NNCF_PYTHON = Path(__file__).resolve().parents[1] / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Row:
    """One model on one engine."""

    model: str
    engine: Engine

    @property
    def key(self) -> str:
        """The row's name in a race."""
        return f"{self.model} | {self.engine.name}"


def main() -> None:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=networks.TRAINED, default=networks.TRAINED)
    parser.add_argument("--budget-s", type=float, default=120, help="seconds for each race")
    parser.add_argument("--optimize", default="3 min", help="the budget of bn.optimize")
    parser.add_argument("--max-drop", type=float, default=2.0, help="points that may be lost")
    parser.add_argument("--limit", type=int, help="judge on the first so many samples only")
    parser.add_argument("--nncf", type=Path, default=_NNCF_PYTHON, help="a Python that has NNCF")
    parser.add_argument("--keep", type=Path, help="a folder to keep the ONNX files in")
    options = parser.parse_args()
    here = machine()
    engines = ", ".join(one.identity for one in installed())
    print(f"{here.cpu_model}, {here.cores} cores; {engines}")
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.networks:
            folder = (options.keep or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            one_network(name, folder, options)


def one_network(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Prints the table of one network."""
    model, task = networks.trained(name)
    say(f"{name}: quantizing")
    models, notes = quantized(model, task, folder, options)
    rows = [Row(label, engine) for label in models for engine in installed()]
    say(f"{name}: judging")
    judged, refused = judge(rows, models, task, options.limit)
    wider = unlabelled(rows, models, task, options.limit)
    rows = [row for row in rows if row.key in judged]
    request = dict(next(iter(task.split("validation").batches(1, 1))).inputs)
    timed: dict[int, dict[str, Timed]] = {}
    fastest: dict[int, str] = {}
    for threads in sorted({1, machine().cores}):
        say(f"{name}: racing with {threads} threads")
        fastest[threads], timed[threads] = timing(rows, models, request, threads, options.budget_s)
    metric = task.judge()
    base = judged[Row("fp32", rows[0].engine).key]
    print(f"\n### {name}: {metric.name} on {base.n} samples\n")
    titles = ["model", "engine", "size MB", metric.name, "drop", "agrees with fp32 %"]
    if wider:
        n = next(iter(wider.values())).n
        titles.append(f"agrees on {n} unlabelled images %")
    for threads in timed:
        titles += [f"ms, {threads} thr.", f"× best fp32, {threads} thr."]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for row in rows:
        own = compare(base, judged[row.key], metric)
        cells = [row.model, row.engine.name, f"{models[row.model].size_bytes / 1e6:.2f}"]
        cells += quality(judged[row.key], own)
        if wider:
            cells.append(interval(wider[row.key]))
        for threads, all_ in timed.items():
            cells += speed(all_[row.key], row.key == fastest[threads])
        print("| " + " | ".join(cells) + " |", flush=True)
    for line in [*notes, *refused]:
        print(f"\n{line}")


def quantized(
    model: bn.Model, task: bn.Task, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, bn.Model], list[str]]:
    """Returns the models by label, float32 first, and what could not be made."""
    context = Context(task)
    fused = bn.Fuse().apply(model, context).model
    models, notes = {"fp32": fused}, []
    # A store of its own: what an earlier state of the program built must not be compared.
    store = bn.Store.temporary()
    goal = bn.Goal(max_drop=options.max_drop)
    chosen = bn.optimize(model, task, goal, budget=options.optimize, store=store)
    if any(step["technique"] == "quantize_static" for step in chosen.best.recipe):
        models["Burnish chosen"] = chosen.model
        notes.append(f"Burnish chose {chosen.best.name} on {chosen.best.engine}.")
    else:
        notes.append(f"Burnish chose {chosen.best.name}, which is no int8 model.")
    models["Burnish default"] = bn.QuantizeStatic().apply(fused, context).model
    source, target = fused.save(folder / "fp32.onnx"), folder / "onnxruntime.onnx"
    reader = Reader(task)
    ort_quantization.quantize_static(source, target, reader)
    add(models, notes, "ONNX Runtime default", target)
    if not options.nncf.is_file():
        notes.append(f"NNCF: left out, there is no {options.nncf}: run make bench-env")
        return models, notes
    target = folder / "nncf.onnx"
    batches = task.split("calibration").batches(16)
    name = fused.signature.inputs[0].name
    np.save(folder / "calibration.npy", np.concatenate([one.inputs[name] for one in batches]))
    script = Path(__file__).with_name("nncf_quantize.py")
    command = [options.nncf, script, source, folder / "calibration.npy", name, target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        notes.append(f"NNCF failed: {done.stderr.strip().splitlines()[-1]}")
    else:
        add(models, notes, "NNCF default", target)
    return models, notes


def add(models: dict[str, bn.Model], notes: list[str], label: str, path: Path) -> None:
    """Adds the model in a file, or notes why it cannot be read."""
    try:
        models[label] = bn.Model.load(path)
    except bn.BurnishError as error:
        notes.append(f"{label}: {error}")


class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """The task's calibration samples, one by one, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, task: bn.Task) -> None:
        self._batches: Iterator[Mapping[str, np.ndarray]] = (
            batch.inputs for batch in task.split("calibration").batches(1)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next sample, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def judge(
    rows: list[Row], models: Mapping[str, bn.Model], task: bn.Task, limit: int | None
) -> tuple[dict[str, Judged], list[str]]:
    """Returns the judgement of each row by key, and a line for each row that does not run."""
    judged, refused = {}, []
    for row in rows:
        try:
            with row.engine.open(models[row.model], Setting(machine().cores)) as session:
                judged[row.key] = evaluate(session, task, limit=limit)
        except bn.BurnishError as error:
            refused.append(f"{row.model} on {row.engine.identity}: {error}")
    return judged, refused


def unlabelled(
    rows: list[Row], models: Mapping[str, bn.Model], task: bn.Task, limit: int | None
) -> dict[str, Measurement]:
    """Returns how often each row answers as fp32 does on calibration and training images.

    Only for tasks with training images that have no labels; empty for others.
    """
    splits = [task.calibration, task.training]
    if any(split is None for split in splits) or has_labels(task):
        return {}
    found = {}
    for row in rows:
        batches = (
            b.inputs for split in splits for b in (split.batches(16, limit) if split else ())
        )
        setting = Setting(machine().cores)
        try:
            with (
                rows[0].engine.open(models["fp32"], setting) as base,
                row.engine.open(models[row.model], setting) as session,
            ):
                same = agreement(base, session, batches)
        except bn.BurnishError:
            continue  # judge has said why
        if same is not None:
            found[row.key] = same
    return found


def has_labels(task: bn.Task) -> bool:
    """Returns whether the training samples carry labels."""
    return next(iter(task.split("training").batches(1, 1))).labels is not None


def timing(
    rows: list[Row],
    models: Mapping[str, bn.Model],
    request: Mapping[str, np.ndarray],
    threads: int,
    budget_s: float,
) -> tuple[str, dict[str, Timed]]:
    """Returns the key of the fastest fp32, and each row's latency and ratio to that."""
    contenders = {
        row.key: Contender(
            row.key,
            lambda row=row: row.engine.open(models[row.model], Setting(threads)),  # type: ignore[misc]
            request,
        )
        for row in rows
    }
    floats = [contenders[row.key] for row in rows if row.model == "fp32"]
    first = race(floats, baseline=floats[0].key, budget_s=0.15 * budget_s, sessions=1)
    fastest = min(first.values(), key=lambda one: one.latency.value).key
    return fastest, race(
        list(contenders.values()), baseline=fastest, budget_s=0.85 * budget_s, precision_ratio=0.01
    )


def quality(judged: Judged, own: Comparison) -> list[str]:
    """Returns the cells of accuracy, drop and agreement."""
    agreement = own.agreement
    return [interval(judged.value), interval(own.drop), interval(agreement) if agreement else "–"]


def speed(timed: Timed, is_baseline: bool) -> list[str]:
    """Returns the cells of latency and of the ratio to the best fp32 engine."""
    if timed.failed is not None:
        return ["failed", "–"]
    if timed.speedup is None:
        return [interval(timed.latency), "1 (baseline)" if is_baseline else "–"]
    return [interval(timed.latency), interval(timed.speedup)]


def interval(one: Measurement) -> str:
    """Returns a value with its 95 % interval."""
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


def say(text: str) -> None:
    """Says on standard error how far the run has come."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
