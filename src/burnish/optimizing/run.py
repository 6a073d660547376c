# SPDX-License-Identifier: Apache-2.0
"""The optimization itself: baselines, screening, contenders, verdicts.

1. The original runs on every engine; the fastest is the baseline ("best fp32").
2. One recipe of each family is built and raced, briefly, on every engine and number of
   threads: families that are slow are dropped.
3. In the families left, each recipe's outputs are compared with the original's on
   calibration samples, without labels: the most faithful go on.
4. The contenders are judged on all validation data and raced side by side with the
   baselines for what is left of the budget.

Every step is kept in the store (`bench`), so that a run that was killed goes on where it
stopped, and a second run measures nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median

from burnish.core.candidate import Candidate, Setting
from burnish.core.errors import BurnishError, Unsupported
from burnish.core.goal import Goal
from burnish.core.model import Model
from burnish.core.progress import Progress, silent
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Outcome, Skipped
from burnish.engines.engine import Engine, check, installed
from burnish.measuring.accuracy import Judged
from burnish.measuring.machine import machine
from burnish.measuring.timing import Timed
from burnish.optimizing.bench import Bench
from burnish.optimizing.budget import Budget, seconds
from burnish.optimizing.candidates import make_candidate, with_resources
from burnish.optimizing.choose import choose, judged, leads, order, promise
from burnish.optimizing.entries import Entry, entries_of, thread_counts
from burnish.optimizing.optimized import Optimized
from burnish.optimizing.planner import Family, given, propose
from burnish.optimizing.result import Result
from burnish.techniques.fuse import Fuse

_CONTENDERS = 4
_FAMILIES = 3
_DISTURBED = 0.05  # of the time measured that threads waited for a core
_FIDELITY_SAMPLES = 256
_SCREENING_SHARE = 0.5  # of the budget, after which no further recipe is tried
_SLOWER_RATIO = 1.3  # a family this much slower than the fastest is dropped in screening


@dataclass
class _Run:
    """One optimization under way."""

    bench: Bench
    goal: Goal
    budget: Budget
    engines: Sequence[Engine]
    threads: Sequence[int]
    passed: list[Skipped] = field(default_factory=list)

    def race(
        self, stage: str, entries: Sequence[Entry], baseline: str, share: float
    ) -> dict[str, Timed]:
        # The time depends on the budget asked for, not on the clock, so that a run that
        # resumes asks for the same steps.
        final = stage == "racing"
        each_s = 6.0 if final else 1.2
        timed = self.bench.race(
            entries,
            stage=stage,
            baseline=baseline,
            budget_s=min(share * self.budget.total_s, each_s * len(entries)),
            precision_ratio=0.01 if final else 0.05,
            sessions=3 if final else 1,
        )
        for entry in entries:
            failure = timed[entry.key].failed
            if failure is not None:
                self.passed.append(Skipped(f"{entry.name} on {entry.engine.name}", failure))
        return timed

    def drop(self, place: str, reason: str) -> None:
        self.passed.append(Skipped(place, reason))


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
    run = _Run(
        bench, goal, Budget(seconds(budget)), list(engines or installed()), thread_counts(threads)
    )
    check(model.signature, bench.inputs(bench.least_batch))
    entries = _baselines(run)
    if recipes is None:
        families, left_out = propose(task, machine(), _fusions(run))
        run.passed.extend(left_out)
    else:
        families = given(recipes)
    fp32, others, kept = _screen(run, entries, families)
    contenders = _faithful(run, fp32, kept)
    return _final(run, fp32, others, contenders, source, task, command)


def _baselines(run: _Run) -> list[Entry]:
    """Returns the original on every engine that runs it, for each number of threads."""
    entries, reasons = entries_of("fp32", run.bench.original, run.engines, run.threads)
    for reason in reasons:
        run.drop("fp32", reason)
    if not entries:
        raise Unsupported("no engine runs the model: " + "; ".join(reasons))
    return entries


def _fusions(run: _Run) -> list[Fuse]:
    """Returns the forms of Fuse that make different graphs of the original."""
    forms: dict[str, Fuse] = {}
    for fuse in (Fuse(), Fuse(local_response="operator")):
        outcome = _built(run, str(fuse), Recipe((fuse,)))
        if outcome is not None:
            forms.setdefault(outcome.model.digest, fuse)
    return list(forms.values()) or [Fuse()]


def _screen(
    run: _Run, baselines: list[Entry], families: Sequence[Family]
) -> tuple[Entry, list[Entry], list[tuple[Family, Entry]]]:
    """Returns the fastest baseline, the other engines' best, and (family, entry) pairs to keep."""
    built: list[tuple[Family, Entry]] = []
    for family in families:
        name, recipe = family.recipes[0]
        outcome = _built(run, name, recipe)
        if outcome is None:
            continue
        if outcome.model.digest == run.bench.original.digest:
            run.drop(family.name, "it leaves the model as it is")
            continue
        found, reasons = entries_of(
            family.name, outcome.model, run.engines, run.threads, recipe, outcome
        )
        built += [(family, entry) for entry in found]
        for reason in reasons:
            run.drop(family.name, reason)
    entries = [*baselines, *(entry for _, entry in built)]
    unique = {entry.key: entry for entry in entries}.values()
    timed = run.race("screening", list(unique), baselines[-1].key, 0.25)

    def latency(entry: Entry) -> float:
        got = timed[entry.key]
        return got.latency.value if got.failed is None else float("inf")

    best_by_engine = [
        min((one for one in baselines if one.engine is engine), key=latency)
        for engine in run.engines
        if any(one.engine is engine for one in baselines)
    ]
    fp32, *others = sorted(best_by_engine, key=latency)
    if timed[fp32.key].failed is not None:
        raise Unsupported(f"no engine runs the model: {timed[fp32.key].failed}")
    built = [pair for pair in built if timed[pair[1].key].failed is None]
    goal = run.goal

    def rank(entry: Entry) -> tuple[bool, float, float]:
        return promise(entry.model.size_bytes, latency(entry), fp32.model.size_bytes, goal)

    # Speed is no reason where the goal asks for what only a slower model may give.
    speed = goal.objective not in ("size", "memory") and not goal.max_memory_bytes
    speed_alone = speed and goal.objective == "latency" and not rank(fp32)[0]
    fastest: dict[tuple[str, str], tuple[Family, Entry]] = {}
    for family, entry in sorted(built, key=lambda pair: rank(pair[1])):
        fastest.setdefault((family.name, entry.engine.name), (family, entry))
    kept: list[tuple[Family, Entry]] = []
    for family, entry in fastest.values():
        place = f"{family.name} on {entry.engine.name}"
        ratio = latency(fp32) / latency(entry)
        limit = latency(kept[0][1]) * _SLOWER_RATIO if kept else float("inf")
        if ratio < 1 and speed_alone:
            run.drop(place, f"slower than fp32 in screening: {ratio:.2f}× its speed")
        elif latency(entry) > limit and speed:
            run.drop(
                place,
                f"{latency(entry):.3g} ms in screening against {latency(kept[0][1]):.3g} ms "
                f"for {kept[0][0].name} on {kept[0][1].engine.name}",
            )
        elif len(kept) == _FAMILIES:
            run.drop(place, f"{_FAMILIES} families that promise more went on")
        else:
            kept.append((family, entry))
    return fp32, others, kept


def _built(run: _Run, name: str, recipe: Recipe) -> Outcome | None:
    run.bench.progress(f"building {name}", 0, 0)
    try:
        return run.bench.build(recipe)
    except BurnishError as error:
        run.drop(name, str(error))
        return None


def _faithful(run: _Run, fp32: Entry, kept: Sequence[tuple[Family, Entry]]) -> list[Entry]:
    """Returns the contenders: of each family kept, the recipes whose outputs differ least."""
    ranked: list[tuple[float, float, int, Entry]] = []
    made_by: dict[str, str] = {}
    late = False
    tries = [
        (number, rank, recipe, first)
        for rank, (family, first) in enumerate(kept)
        for number, recipe in enumerate(family.recipes)
    ]
    for number, rank, (name, recipe), first in sorted(tries, key=lambda t: t[:2]):
        place = f"{name} on {first.engine.name}"
        if number and not late:
            # Remembered, so that the same command tries the same recipes again.
            late = run.bench.remember(
                ["late", [entry.key for _, entry in kept], recipe.key(), run.budget.total_s],
                run.budget.spent_s > _SCREENING_SHARE * run.budget.total_s,
            )
        if late:
            run.drop(place, "the time for screening was spent: give a larger budget")
            continue
        outcome = _built(run, name, recipe)
        if outcome is None:
            continue
        entry = replace(first, name=name, model=outcome.model, recipe=recipe, outcome=outcome)
        same = made_by.setdefault(entry.key, name)
        if same != name:
            run.drop(place, f"it makes the same model as {same}")
            continue
        error, agreement = 0.0, 1.0
        if len(kept[rank][0].recipes) > 1:
            run.bench.progress(f"comparing {name} with the original", 0, 0)
            try:
                error, agreement = run.bench.fidelity(entry, fp32, _FIDELITY_SAMPLES)
            except Unsupported as failure:
                run.drop(place, str(failure))
                continue
        ranked.append((error, agreement, rank, entry))
    contenders: list[Entry] = []
    # The most faithful of each family first, then the next best of all.
    leaders = {rank: min(r[0] for r in ranked if r[2] == rank) for _, _, rank, _ in ranked}
    for error, agreement, _, entry in sorted(
        ranked, key=lambda r: (r[0] != leaders[r[2]], r[0], r[3].name)
    ):
        if len(contenders) < _CONTENDERS:
            contenders.append(entry)
        else:
            run.drop(
                f"{entry.name} on {entry.engine.name}",
                f"less faithful to the original on calibration samples: relative squared error "
                f"{error:.2g}, {100 * agreement:.1f} % equal answers",
            )
    return contenders


def _final(
    run: _Run,
    fp32: Entry,
    others: Sequence[Entry],
    contenders: Sequence[Entry],
    source: Engine | None,
    task: Task | None,
    command: str,
) -> Optimized:
    bench = run.bench
    eager = []
    if source is not None:
        setting = Setting(max(run.threads))
        eager = [Entry(f"{source.name} eager", bench.original, source, setting)]
    judging = task is not None and task.validation is not None and task.metric is not None
    verdicts: dict[str, Judged] = {}
    for entry in [*eager, fp32, *contenders] if judging else []:
        try:
            verdicts[entry.key] = bench.judge(entry)
        except Unsupported as error:
            if entry is fp32:
                raise
            run.drop(f"{entry.name} on {entry.engine.name}", str(error))
    contenders = [entry for entry in contenders if not judging or entry.key in verdicts]
    entries = {entry.key: entry for entry in [*eager, fp32, *others, *contenders]}
    timed = run.race("racing", list(entries.values()), fp32.key, 0.4)

    def candidate(entry: Entry) -> Candidate | None:
        got = timed[entry.key]
        if got.failed is not None:
            return None
        return make_candidate(entry, got, fp32, verdicts, task)

    base = candidate(fp32)
    if base is None:
        raise Unsupported(
            f"the original failed on {fp32.engine.identity}: {timed[fp32.key].failed}"
        )
    base = with_resources(bench, base, fp32)
    base = judged(base, base, run.goal)
    rows = [
        (entry, judged(made, base, run.goal))
        for entry in contenders
        if (made := candidate(entry)) is not None
    ]
    kept = []
    for entry, made in rows:
        if leads(made, [other for _, other in rows], run.goal):
            kept.append(judged(with_resources(bench, made, entry), base, run.goal))
        else:
            run.drop(
                f"{made.name} on {made.engine}", "another candidate is at least as good in all"
            )
    best, status = choose(kept, base, run.goal)
    baselines = [c for e in [*eager, fp32, *others] if (c := base if e is fp32 else candidate(e))]
    result = Result(
        model=bench.original.lineage.source,
        task=task.name if task else "",
        goal=run.goal,
        status=status,
        best=best,
        fp32=base,
        baselines=tuple(baselines),
        candidates=tuple(order(kept, run.goal)),
        passed_over=tuple(dict.fromkeys(run.passed)),
        warnings=(*(task.warnings if task else ()), *_disturbance(timed.values())),
        machine=machine().to_dict(),
        protocol={
            "seed": bench.seed,
            "budget_s": run.budget.total_s,
            "spent_s": round(run.budget.spent_s, 1),
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
    models = {entry.model.digest: entry.model for entry in (fp32, *contenders)}
    return Optimized(result, bench.original, models[best.model], task)


def _disturbance(timed: Iterable[Timed]) -> list[str]:
    """Returns a warning when other programs took the cores from what was timed."""
    waited = [one.waited_ratio for one in timed if one.failed is None]
    middle = median(waited)  # they take turns, so that what disturbs one disturbs all
    if middle <= _DISTURBED:
        return []
    share = f"threads waited for a core for {100 * middle:.0f} % of the time"
    return [f"other programs were running: {share}, so that another run may give other figures"]
