# SPDX-License-Identifier: Apache-2.0
"""`burnish compare`: two or more models side by side on one task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.engine_argument import chosen_engines
from burnish.cli.failures import guarded
from burnish.cli.measure import show_measured
from burnish.cli.options import AsJson, Engines, Latency, Quiet, Seed, TaskFile, Threads
from burnish.cli.output import kept_for_json, show_warnings
from burnish.cli.progress_bar import progress_bar
from burnish.core.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG = (
    "Example: [bold]burnish compare net.onnx bundle/ --task cifar10.toml[/bold]\n\n"
    "The first model is the baseline: ratios and drops are paired with it, on the same "
    "samples and in the same rounds. Each runs on the engine that is fastest for it.\n\n"
    "Exit codes: 0 compared; 1 a fault in Burnish; 2 wrong use; 130 interrupted."
)


@guarded
def compare(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: .onnx files, bundles' folders, or file.py:function.",
            show_default=False,
        ),
    ],
    task: TaskFile = None,
    budget: Latency = "60 s",
    engine: Engines = None,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare models side by side on one task, in the same rounds and on the same samples."""
    from burnish.cli.model_argument import load_model
    from burnish.core.task import Task
    from burnish.optimizing.budget import seconds
    from burnish.optimizing.compare import compare as compare_models

    if len(models) < 2:
        raise Misuse(f"compare needs two models or more, got {len(models)}: {', '.join(models)}")
    seconds(budget)
    engines = chosen_engines(engine)
    show_warnings(quiet)
    with kept_for_json(as_json), progress_bar(quiet, context.obj) as progress:
        progress("reading the task and the models", 0, 0)
        loaded = Task.load(task) if task is not None else None
        given = [load_model(text, loaded) for text in models]
        names = distinct([one.name for one in given], models)
        measured = compare_models(
            {name: one.model for name, one in zip(names, given, strict=True)},
            loaded,
            budget=budget,
            engines=engines,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    show_measured(measured, loaded, as_json)


def distinct(names: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Returns a name for each model: its own, else what was typed, else that with a number.

    >>> distinct(["a.onnx", "b.onnx", "b.onnx"], ["a.onnx", "old/b.onnx", "new/b.onnx"])
    ['a.onnx', 'old/b.onnx', 'new/b.onnx']
    """
    found: list[str] = []
    for name, argument in zip(names, arguments, strict=True):
        shown = name if list(names).count(name) == 1 else argument
        number, free = 2, shown
        while free in found:
            free, number = f"{shown} ({number})", number + 1
        found.append(free)
    return found
