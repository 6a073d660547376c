# SPDX-License-Identifier: Apache-2.0
"""`burnish optimize`: makes a model smaller and faster within limits, and proves it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli import quantities
from burnish.cli.engine_argument import chosen_engines
from burnish.cli.failures import INTERRUPTED, guarded
from burnish.cli.options import AsJson, Engines, Seed, TaskFile, Threads
from burnish.cli.output import (
    command_line,
    console,
    kept_for_json,
    print_json,
    say,
    show_warnings,
)
from burnish.cli.progress_bar import progress_bar
from burnish.core.errors import Misuse
from burnish.core.goal import OBJECTIVES, Goal

if TYPE_CHECKING:
    from burnish.core.store import Store
    from burnish.optimizing.optimized import Optimized

EPILOG = (
    "Example: [bold]burnish optimize net.onnx --task cifar10.toml --max-drop 0.5 "
    "--max-latency 4ms -o bundle/[/bold]\n\n"
    "Finished steps are kept: after Ctrl-C, or a kill, the same command goes on from there.\n\n"
    "Exit codes: 0 the goal is met; 1 a fault in Burnish; 2 wrong use; "
    "3 the goal is not met, or not shown; 130 interrupted."
)


def _objectives(incomplete: str) -> list[str]:
    return [name for name in OBJECTIVES if name.startswith(incomplete)]


@guarded
def optimize(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="An .onnx file, a bundle's folder, or file.py:function (package.module:function) "
            "that returns an nn.Module, or (module, example_inputs).",
            show_default=False,
        ),
    ],
    task: TaskFile = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write the bundle to."),
    ] = None,
    max_drop: Annotated[
        str,
        typer.Option(
            metavar="POINTS|%|none",
            help="The metric's largest loss: in points as 0.5, as a share of the original's "
            "as 1%, or none for no limit.",
        ),
    ] = "1%",
    max_latency: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|x",
            help="The median time of one request as 4ms (us, ms, s), or the speed-up over the "
            "best fp32 engine as 3x.",
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES|%",
            help="The model file's size as 1MB, or as a share of the original's as 30%.",
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES", help="The peak memory of a process that serves the model, as 200MB."
        ),
    ] = None,
    min_throughput: Annotated[
        str | None, typer.Option(metavar="N", help="Samples per second, as 500.")
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What to improve within the limits: {', '.join(OBJECTIVES)}.",
            autocompletion=_objectives,
        ),
    ] = "latency",
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="The time to spend, about: 90s, 20min, 1.5h. A started step is finished.",
        ),
    ] = "5 min",
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TOML", help="A recipe's TOML file to try instead of Burnish's own; repeatable."
        ),
    ] = None,
    engine: Engines = None,
    threads: Threads = None,
    seed: Seed = 0,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where finished steps are kept; BURNISH_STORE, or ~/.cache/burnish.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Reuse no step of an earlier run, and keep none.")
    ] = False,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no table: the verdict only.")
    ] = False,
) -> None:
    """Make a model smaller and faster within limits, proven on this machine."""
    from burnish.cli.model_argument import load_model
    from burnish.core.recipe import Recipe
    from burnish.core.task import Task
    from burnish.optimizing import run
    from burnish.optimizing.budget import seconds

    goal = _goal(
        task is not None, max_drop, max_latency, max_size, max_memory, min_throughput, objective
    )
    seconds(budget)
    if output is not None:
        _check_output(output)
    kept = _store(store, fresh)
    recipes = [Recipe.load(path) for path in recipe] if recipe else None
    engines = chosen_engines(engine)
    show_warnings(quiet)
    try:
        with kept_for_json(as_json), progress_bar(quiet, context.obj) as progress:
            progress("reading the task and the model", 0, 0)
            loaded = Task.load(task) if task is not None else None
            given = load_model(model, loaded)
            optimized = run.optimize(
                given.model,
                loaded,
                goal,
                budget=budget,
                source=given.source,
                recipes=recipes,
                engines=engines,
                threads=threads,
                store=kept,
                seed=seed,
                progress=progress,
                command=command_line(),
            )
            if output is not None:
                progress("writing the bundle", 0, 0)
                optimized.save(output)
    except KeyboardInterrupt:
        resumes = "finished steps are kept, and the same command goes on from there"
        say(f"burnish: interrupted: {'--fresh keeps nothing' if fresh else resumes}", stderr=True)
        raise typer.Exit(INTERRUPTED) from None
    _show(optimized, output, as_json, quiet, fresh)
    raise typer.Exit(0 if optimized.status == "met" else 3)


def _goal(
    has_task: bool,
    max_drop: str,
    max_latency: str | None,
    max_size: str | None,
    max_memory: str | None,
    min_throughput: str | None,
    objective: str,
) -> Goal:
    """Returns the goal. Raises one `Misuse` that lists every option that is wrong."""
    faults: list[str] = []
    limits: dict[str, Any] = {}

    def read(option: str, text: str | None, parse: Callable[[str], dict[str, Any]]) -> None:
        if text is None:
            return
        try:
            limits.update(parse(text))
        except Misuse as error:
            faults.append(f"{option}: {error}")

    read("--max-drop", max_drop, lambda text: {"max_drop": quantities.drop(text)})
    read("--max-latency", max_latency, quantities.latency)
    read("--max-size", max_size, quantities.size)
    read("--max-memory", max_memory, lambda text: {"max_memory_bytes": quantities.n_bytes(text)})
    read(
        "--min-throughput",
        min_throughput,
        lambda text: {"min_throughput": quantities.per_second(text)},
    )
    try:
        Goal(objective=objective)
    except Misuse as error:
        faults.append(f"--objective: {error}")
    if not has_task and limits.get("max_drop") is not None:
        faults.append(
            "--max-drop needs data to be judged on: give --task, or --max-drop none to go without"
        )
    if faults:
        raise Misuse("; ".join(faults))
    return Goal(objective=objective, **limits)


def _check_output(path: Path) -> None:
    """Raises `Misuse` now rather than after minutes of work."""
    from burnish.core.bundle import Bundle

    if path.exists() and not (
        path.is_dir() and (Bundle.is_bundle(path) or not any(path.iterdir()))
    ):
        raise Misuse(f"{path} exists and is no bundle: choose another folder, or remove it")
    above = next(one for one in (path.absolute().parent, *path.absolute().parents) if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise Misuse(f"cannot write the bundle {path}: {above} is no folder that you may write")


def _store(path: Path | None, fresh: bool) -> Store:
    from burnish.core.store import Store

    if fresh and path is not None:
        raise Misuse("--fresh keeps nothing and --store says where to keep it: give one of them")
    return Store.temporary() if fresh else Store(path)


def _show(
    optimized: Optimized, output: Path | None, as_json: bool, quiet: bool, fresh: bool
) -> None:
    from burnish.optimizing.report.headline import headline
    from burnish.optimizing.report.terminal import summary

    said = headline(optimized.result)
    if as_json:
        print_json(optimized.result.to_dict() | {"bundle": None if output is None else str(output)})
    elif quiet:
        say(f"{said.verdict}: {said.chosen}. {said.sentence}")
    else:
        console().print(summary(optimized.result))
        say("")
    if output is not None and not as_json:
        say(f"bundle: {output}")
        say(f"report: {output / 'report.html'}")
    elif not as_json:
        reused = "" if fresh else "; its steps are kept, so that takes seconds"
        say(f"not saved: give -o FOLDER to write the bundle and its report{reused}")
    if optimized.status != "met":
        missed = "; ".join(said.open) or "no limit could be judged"
        text = f"{said.verdict.upper()}: {missed}. Handed back: {said.chosen}."
        console(stderr=True).print(text, style="bold red", soft_wrap=True)
