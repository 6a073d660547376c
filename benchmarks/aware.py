# SPDX-License-Identifier: Apache-2.0
"""Measures what quantization-aware training wins back where static int8 loses: low-bit weights.

    BURNISH_DATA=… python benchmarks/aware.py [--quick] [--bits 4 3] [--epochs 5]

ResNet-20 for CIFAR-10 is first fine-tuned on the JPEG copies (its weights are from original
pixels); that float model is then quantized statically, and with training, which learns from
the float model without labels on the JPEG training images. All are judged on the same test
images on ONNX Runtime; drops are paired. --quick takes few images and no fine-tuning: it
shows that all runs, and no more. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import networks

import burnish as bn
from burnish.core.candidate import Setting
from burnish.core.measurement import Measurement
from burnish.core.technique import Context, Outcome, Technique
from burnish.engines.engine import by_name
from burnish.measuring.accuracy import Judged, compare, evaluate
from burnish.measuring.machine import machine
from burnish.techniques.quantize.aware import QuantizeAware
from burnish.techniques.train.fine_tune import FineTune


@dataclass(frozen=True)
class Row:
    """A model with its label, and the seconds that making it took."""

    label: str
    model: bn.Model
    seconds: float


def main() -> None:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--fine-tune", type=int, default=3, help="epochs on the JPEG copies first")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    samples, limit = (4096, 2000) if options.quick else (0, None)
    if options.quick:
        options.epochs, options.fine_tune, options.bits = 2, 0, [4]
    task = bn.Task.load(networks.EXAMPLES / "cifar10" / "jpeg.toml")
    example = next(iter(task.split("validation").batches(2))).inputs
    network = networks.module("cifar10/resnet.py", "resnet20")
    model = bn.Model.from_torch(network, dict(example), source="resnet20")
    context = Context(task)
    if options.fine_tune:
        say("fine-tuning the float model")
        first = FineTune(epochs=options.fine_tune, augment=("flip", "crop"), samples=samples)
        model = first.apply(model, context).model
    here = machine()
    print(f"{here.cpu_model}, {here.cores} cores; {by_name('onnxruntime').identity}\n")
    print("| model | top-1 % | drop | agrees with fp32 % | size kB | seconds |")
    print("|---|---|---|---|---|---|")
    metric, base = task.judge(), None
    notes: list[str] = []
    for row in rows(model, context, options, samples, notes):
        judged = judge(row.model, task, limit)
        base = base or judged
        own = compare(base, judged, metric)
        cells = [row.label, interval(judged.value), interval(own.drop)]
        cells.append(interval(own.agreement) if own.agreement else "–")
        cells += [f"{row.model.size_bytes / 1e3:.0f}", f"{row.seconds:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    for line in notes:
        print(f"\n{line}")


def rows(
    model: bn.Model,
    context: Context,
    options: argparse.Namespace,
    samples: int,
    notes: list[str],
) -> Iterator[Row]:
    """Yields the float model, then for each case the static and the trained one."""
    folded = bn.Fuse().apply(model, context).model
    yield Row("fp32", folded, 0.0)
    for bits in options.bits:
        for per_channel in (True, False):
            case = f"{bits}-bit weights, one scale {'a channel' if per_channel else 'a tensor'}"
            static = bn.QuantizeStatic(weight_bits=bits, per_channel=per_channel)
            aware = QuantizeAware(
                weight_bits=bits,
                per_channel=per_channel,
                epochs=options.epochs,
                samples=samples,
                # What does not fit is not read further than an epoch needs.
                memory_bytes=1 << (26 if samples else 30),
            )
            for name, technique in (("static", static), ("aware", aware)):
                say(f"{case}: {name}")
                made, seconds = apply(technique, folded, context)
                notes += [f"{case}, {name}: {line}" for line in made.applied if "static →" in line]
                yield Row(f"{case}: {name}", made.model, seconds)


def apply(technique: Technique, model: bn.Model, context: Context) -> tuple[Outcome, float]:
    """Returns the outcome, and the seconds it took."""
    began = time.perf_counter()
    outcome = technique.apply(model, context)
    return outcome, time.perf_counter() - began


def judge(model: bn.Model, task: bn.Task, limit: int | None) -> Judged:
    """Returns the model judged on ONNX Runtime, on the first `limit` test images."""
    with by_name("onnxruntime").open(model, Setting(machine().cores)) as session:
        return evaluate(session, task, limit=limit)


def interval(one: Measurement) -> str:
    """Returns a value with its 95 % interval."""
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def say(text: str) -> None:
    """Writes progress where it does not mix with the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
