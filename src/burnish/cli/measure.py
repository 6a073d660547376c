# SPDX-License-Identifier: Apache-2.0
"""`burnish measure`: one model as it is, on every engine that runs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.engine_argument import chosen_engines
from burnish.cli.failures import guarded
from burnish.cli.options import AsJson, Engines, Latency, Quiet, Seed, TaskFile, Threads
from burnish.cli.output import (
    command_line,
    console,
    kept_for_json,
    print_json,
    say,
    show_warnings,
)
from burnish.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burnish.core.candidate import Candidate
    from burnish.core.task import Task

EPILOG = (
    "Example: [bold]burnish measure net.onnx --task cifar10.toml[/bold]\n\n"
    "Everything is measured anew each time: latency, load time, memory and throughput, and "
    "with a task the metric on its validation data.\n\n"
    "Exit codes: 0 measured; 1 a fault in Burnish; 2 wrong use; 130 interrupted."
)


@guarded
def measure(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="An .onnx file, a bundle's folder (its optimized model), or file.py:function "
            "that returns an nn.Module.",
            show_default=False,
        ),
    ],
    task: TaskFile = None,
    budget: Latency = "30 s",
    engine: Engines = None,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on this machine, on every engine that runs it."""
    from burnish.cli.candidate_table import renamed
    from burnish.cli.model_argument import load_model
    from burnish.core.task import Task
    from burnish.optimizing.budget import seconds
    from burnish.optimizing.compare import measure as measure_model

    seconds(budget)
    engines = chosen_engines(engine)
    show_warnings(quiet)
    with kept_for_json(as_json), progress_bar(quiet, context.obj) as progress:
        progress("reading the task and the model", 0, 0)
        loaded = Task.load(task) if task is not None else None
        given = load_model(model, loaded)
        measured = measure_model(
            given.model,
            loaded,
            budget=budget,
            engines=engines,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    show_measured([renamed(one, given.name) for one in measured], loaded, as_json)


def show_measured(candidates: Sequence[Candidate], task: Task | None, as_json: bool) -> None:
    """Prints what was measured as a table with its machine, or as one JSON document."""
    from burnish.cli.candidate_table import candidate_table, open_points
    from burnish.measuring.machine import machine

    here = machine()
    if as_json:
        print_json(
            {
                "candidates": [one.to_dict() for one in candidates],
                "machine": here.to_dict(),
                "command": command_line(),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        return
    shown = console()
    metric = task.metric.name if task is not None and task.metric is not None else "metric"
    shown.print(candidate_table(candidates, metric, shown.width))
    say("")
    say(f"one sample a request; {here.cpu_model}, {here.cores} cores ({here.fingerprint})")
    open_points(candidates, say)
