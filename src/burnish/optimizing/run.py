# SPDX-License-Identifier: Apache-2.0
"""The optimization itself: baselines, screening, contenders, training, verdicts.

1. The original runs on every engine; the fastest is the baseline ("best fp32").
2. One recipe of each family is built and raced, briefly, on every engine and number of
   threads: families that are slow are dropped.
3. In the families left, each recipe's outputs are compared with the original's on
   calibration samples, without labels: the most faithful go on.
4. The contenders are raced side by side with the baselines for a share of the budget, in
   each number of threads that the brief race could not tell from its best, and judged on
   all validation data.
5. Where none meets the goal and there is training data, a smaller network is cut and
   trained (`composing`), and the finals are held again with it.

Every step is kept in the store (`bench`), so that a run that was killed goes on where it
stopped, and a second run measures nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from burnish.core.candidate import Candidate, Setting
from burnish.core.goal import Goal
from burnish.core.model import Model
from burnish.core.progress import Progress, silent
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.engines.engine import Engine, check, installed
from burnish.measuring.machine import machine
from burnish.measuring.own_answers import answered, needs_answers
from burnish.optimizing.bench import Bench
from burnish.optimizing.budget import Budget, seconds
from burnish.optimizing.composing import Stage, compose
from burnish.optimizing.entries import Entry, thread_counts
from burnish.optimizing.finals import Field, Finals, finals
from burnish.optimizing.optimized import Optimized
from burnish.optimizing.planner import given, propose
from burnish.optimizing.result import Result
from burnish.optimizing.screening import baselines, faithful, fusions, screen
from burnish.optimizing.search import Search


def optimize(
    model: Model,
    task: Task | None = None,
    goal: Goal | None = None,
    *,
    budget: str | float = "5 min",
    source: Engine | None = None,
    recipes: Sequence[Recipe] | None = None,
    engines: Sequence[Engine] | None = None,
    threads: int | None = None,
    store: Store | None = None,
    seed: int = 0,
    progress: Progress = silent,
    command: str = "",
) -> Optimized:
    """Returns the baselines, the frontier and the choice for a goal.

    `budget` is the time to spend, about: a step under way is finished. `source` is the
    engine bound to the module that the model came from (`engines.torch.TorchEager`), whose
    eager run is then the first baseline. `recipes` replaces the planner's own; `engines`
    replaces all that are installed. `threads` are those of one request, for the baselines as
    for the rest (None: 1 up to all cores are tried, for each the fastest). Steps are kept in
    `store` (by default BURNISH_STORE) and reused; `seed` is the only source of randomness.

    Raises `Misuse` for what is wrong with the arguments, and `Unsupported` when no engine
    runs the model.
    """
    goal = goal or Goal()
    bench = Bench(model, task, store or Store(), seed, progress)
    search = Search(
        bench, goal, Budget(seconds(budget)), list(engines or installed()), thread_counts(threads)
    )
    check(model.signature, bench.inputs(bench.least_batch))
    entries = baselines(search)
    if recipes is None:
        families, left_out = propose(task, machine(), fusions(search))
        search.passed.extend(left_out)
    else:
        families = given(recipes)
    fp32, others, kept = screen(search, entries, families)
    search.bench = _judging_without_labels(search.bench, fp32)
    eager = []
    if source is not None:
        setting = Setting(max(search.threads))
        eager = [Entry(f"{source.name} eager", bench.original, source, setting)]
    field = Field(fp32, eager, others, faithful(search, fp32, kept))
    may_train = recipes is None and task is not None and task.training is not None
    found = finals(search, field, may_follow=may_train)
    field, fp32 = found.field, found.field.fp32
    stages: list[Stage] = []
    if recipes is None and found.status != "met":
        stages = compose(search, fp32, found)
    if stages:
        field = _with(field, stages)
        found = finals(search, field, may_follow=may_train)
    return _optimized(search, field, found, stages, command)


def _judging_without_labels(bench: Bench, fp32: Entry) -> Bench:
    """Returns the bench; where the validation data has no labels, the original's answers are."""
    task = bench.task
    if task is None or task.validation is None or task.metric is None:
        return bench
    if not needs_answers(task.validation, task.metric):
        return bench
    with fp32.open() as session:
        judges = answered(session, task.validation, task.judge(), bench.progress)
    warning = (
        f"the validation data has no labels: {task.metric.name} is the share of the original's "
        "answers that a model gives too"
    )
    known = replace(task, validation=judges, warnings=(*task.warnings, warning))
    return replace(bench, task=known)


def _with(field: Field, stages: Sequence[Stage]) -> Field:
    """Returns the field with what was trained among the contenders; the rest is shown only."""
    known = {entry.key for entry in field.contenders}
    new = [stage for stage in stages if stage.entry.key not in known]
    trained = [stage.entry for stage in new if stage.added != "pruning"]
    shown = [stage.entry for stage in new if stage.added == "pruning"]
    return replace(field, contenders=[*field.contenders, *trained], shown=shown)


def _optimized(
    search: Search, field: Field, found: Finals, stages: Sequence[Stage], command: str
) -> Optimized:
    bench, task = search.bench, search.bench.task
    result = Result(
        model=bench.original.lineage.source,
        task=task.name if task else "",
        goal=search.goal,
        status=found.status,
        best=found.best,
        fp32=found.fp32,
        baselines=found.baselines,
        candidates=found.kept,
        stages=_stages(found, stages),
        passed_over=tuple(dict.fromkeys([*search.passed, *found.passed])),
        warnings=(*(task.warnings if task else ()), *found.warnings),
        machine=machine().to_dict(),
        protocol={
            "seed": bench.seed,
            "budget_s": search.budget.total_s,
            "spent_s": round(search.budget.spent_s, 1),
            "sessions": 3,
            "calibration_samples": len(task.calibration) if task and task.calibration else 0,
            "validation_samples": len(task.validation) if task and task.validation else 0,
        },
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        extra={
            "signature": str(bench.original.signature),
            "lineage": json.loads(bench.original.lineage.to_json()),
        },
    )
    models = {entry.model.digest: entry.model for entry in (field.fp32, *field.contenders)}
    return Optimized(result, bench.original, models[found.best.model], task)


def _stages(found: Finals, stages: Sequence[Stage]) -> tuple[tuple[str, Candidate], ...]:
    """Returns the stages as measured, the baseline first; empty when nothing was trained."""
    rows = (*found.rows, *found.shown)  # in the fastest settings, not those of the stages
    measured = {(entry.model.digest, entry.engine): candidate for entry, candidate in rows}
    made = [(stage.added, (stage.entry.model.digest, stage.entry.engine)) for stage in stages]
    told = [(f"+ {added}", measured[key]) for added, key in made if key in measured]
    return (("baseline", found.fp32), *told) if told else ()
