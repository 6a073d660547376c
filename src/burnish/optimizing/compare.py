# SPDX-License-Identifier: Apache-2.0
"""Measures models as they are: one on every engine, or several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from burnish.core.candidate import Candidate
from burnish.core.errors import Misuse, Unsupported
from burnish.core.measurement import Measurement
from burnish.core.model import Model
from burnish.core.progress import Progress, silent
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.engines.engine import Engine, check, installed
from burnish.optimizing.bench import Bench
from burnish.optimizing.budget import seconds
from burnish.optimizing.candidates import make_candidate, with_resources
from burnish.optimizing.entries import Entry, entries_of, thread_counts


def measure(
    model: Model,
    task: Task | None = None,
    *,
    budget: str | float = "30 s",
    engines: Sequence[Engine] | None = None,
    threads: int | None = None,
    store: Store | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Candidate, ...]:
    """Returns the model on each engine that runs it, the fastest first.

    Each has latency, size, load time, memory and throughput, and the task's metric when it
    has validation data. `budget` is the time that latency takes; `threads` are those of one
    request (None: 1 up to all cores, the fastest). Without a `store` nothing that was
    measured before is used. Raises `Unsupported` when no engine runs the model.
    """
    return compare(
        {"model": model},
        task,
        budget=budget,
        engines=engines,
        threads=threads,
        store=store,
        seed=seed,
        progress=progress,
        every_engine=True,
    )


def compare(
    models: Mapping[str, Model],
    task: Task | None = None,
    *,
    budget: str | float = "60 s",
    engines: Sequence[Engine] | None = None,
    threads: int | None = None,
    store: Store | None = None,
    seed: int = 0,
    progress: Progress = silent,
    every_engine: bool = False,
) -> tuple[Candidate, ...]:
    """Returns each named model on its fastest engine (or on every engine), measured side by side.

    The first model is the baseline of the ratios ("speedup") and of the paired differences
    ("drop", "agreement"). All must take the same inputs. Raises `Misuse` when they do not,
    and `Unsupported` when a model runs on no engine.
    """
    if not models:
        raise Misuse("there is nothing to measure: give at least one model")
    first_name, first = next(iter(models.items()))
    for name, model in models.items():
        if _inputs(model) != _inputs(first):
            raise Misuse(
                f"{name} takes {model.signature.inputs} but {first_name} takes "
                f"{first.signature.inputs}: only models with the same inputs can be compared"
            )
    total_s = seconds(budget)
    fresh = store or Store.temporary()
    bench = Bench(first, task, fresh, seed, progress)
    check(first.signature, bench.inputs(bench.least_batch))
    entries: list[Entry] = []
    for name, model in models.items():
        found, reasons = entries_of(name, model, engines or installed(), thread_counts(threads))
        if not found:
            raise Unsupported(f"no engine runs {name}: " + "; ".join(reasons))
        entries += found
    screened = bench.race(
        list({entry.key: entry for entry in entries}.values()),
        stage="screening",
        baseline=entries[0].key,
        budget_s=0.3 * total_s,
        precision_ratio=0.05,
        sessions=1,
    )
    chosen = _fastest(
        entries, {k: t.latency for k, t in screened.items() if not t.failed}, every_engine
    )
    _need_all(models, chosen, {key: t.failed for key, t in screened.items()}, entries)
    timed = bench.race(
        list({entry.key: entry for entry in chosen}.values()),
        stage="racing",
        baseline=chosen[0].key,
        budget_s=0.7 * total_s,
        precision_ratio=0.01,
        sessions=3,
    )
    failures = {key: one.failed for key, one in timed.items()}
    chosen = [entry for entry in chosen if failures[entry.key] is None]
    _need_all(models, chosen, failures, entries)
    verdicts = {}
    if task is not None and task.validation is not None and task.metric is not None:
        verdicts = {entry.key: bench.judge(entry) for entry in chosen}
    made = []
    for entry in chosen:
        one = make_candidate(entry, timed[entry.key], chosen[0], verdicts, task)
        made.append(with_resources(bench, one, entry))
    return tuple(made)


def _inputs(model: Model) -> list[tuple[str, str, list[int | None]]]:
    """Returns the inputs' names, dtypes and fixed sizes: what a varying one is called is free."""
    return [
        (spec.name, spec.dtype, [size if isinstance(size, int) else None for size in spec.shape])
        for spec in model.signature.inputs
    ]


def _need_all(
    names: Iterable[str],
    running: Sequence[Entry],
    failures: Mapping[str, str | None],
    entries: Sequence[Entry],
) -> None:
    """Raises `Unsupported` for the models that failed on every engine while they were timed."""
    lost = [name for name in names if all(entry.name != name for entry in running)]
    reasons = {
        f"{entry.name} on {entry.engine.name}: {failures[entry.key]}"
        for entry in entries
        if entry.name in lost and failures.get(entry.key)
    }
    if lost:
        raise Unsupported("; ".join(sorted(reasons)))


def _fastest(
    entries: Sequence[Entry], latency: Mapping[str, Measurement], every_engine: bool
) -> list[Entry]:
    """Returns, for each model (and engine), the entry with the least latency; models in order."""
    best: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if entry.key not in latency:
            continue
        place = (entry.name, entry.engine.name if every_engine else "")
        if place not in best or latency[entry.key].value < latency[best[place].key].value:
            best[place] = entry
    names = list(dict.fromkeys(entry.name for entry in entries))
    return sorted(best.values(), key=lambda e: (names.index(e.name), latency[e.key].value))
