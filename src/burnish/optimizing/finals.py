# SPDX-License-Identifier: Apache-2.0
"""The finals: contenders are judged on all validation data and raced with the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from burnish.core.candidate import Candidate
from burnish.core.errors import Unsupported
from burnish.core.goal import Status
from burnish.core.technique import Skipped
from burnish.measuring.accuracy import Judged
from burnish.measuring.timing import Timed
from burnish.optimizing.candidates import make_candidate, with_resources
from burnish.optimizing.choose import choose, judged, leads, order
from burnish.optimizing.entries import Entry
from burnish.optimizing.search import Search

_DISTURBED = 0.05  # of the time measured that threads waited for a core


@dataclass(frozen=True)
class Finals:
    """What came of the finals.

    `rows`: each contender with its measurements and verdicts. `kept`: those that lead, which
    have their resources measured too, best objective first. `shown`: entries that were
    measured alike, but are no contenders. `passed`: what was passed over here, and why.
    """

    fp32: Candidate
    baselines: tuple[Candidate, ...]
    rows: tuple[tuple[Entry, Candidate], ...]
    kept: tuple[Candidate, ...]
    shown: tuple[tuple[Entry, Candidate], ...]
    best: Candidate
    status: Status
    passed: tuple[Skipped, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """Who takes part: the fastest fp32, the baselines beside it, and the contenders."""

    fp32: Entry
    eager: Sequence[Entry]
    others: Sequence[Entry]
    contenders: Sequence[Entry]
    shown: Sequence[Entry] = ()


def finals(search: Search, field: Field) -> Finals:
    """Returns what is measured of all, and the choice. Raises `Unsupported` without a baseline."""
    bench, task, fp32 = search.bench, search.bench.task, field.fp32
    mark = len(search.passed)
    judging = task is not None and task.validation is not None and task.metric is not None
    verdicts: dict[str, Judged] = {}
    for entry in [*field.eager, fp32, *field.contenders, *field.shown] if judging else []:
        try:
            verdicts[entry.key] = bench.judge(entry)
        except Unsupported as error:
            if entry is fp32:
                raise
            search.drop(f"{entry.name} on {entry.engine.name}", str(error))

    def stands(entry: Entry) -> bool:
        return not judging or entry.key in verdicts

    contenders = [entry for entry in field.contenders if stands(entry)]
    shown = [entry for entry in field.shown if stands(entry)]
    taking_part = [*field.eager, fp32, *field.others, *contenders, *shown]
    entries = {entry.key: entry for entry in taking_part}
    timed = search.race("racing", list(entries.values()), fp32.key, 0.4)

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
    base = judged(base, base, search.goal)
    rows = [
        (entry, judged(made, base, search.goal))
        for entry in contenders
        if (made := candidate(entry)) is not None
    ]
    kept = []
    for number, (entry, made) in enumerate(rows):
        if leads(made, [other for _, other in rows], search.goal):
            kept.append(judged(with_resources(bench, made, entry), base, search.goal))
            rows[number] = (entry, kept[-1])
        else:
            search.drop(
                f"{made.name} on {made.engine}", "another candidate is at least as good in all"
            )
    best, status = choose(kept, base, search.goal)
    before = [*field.eager, fp32, *field.others]
    # Kept apart: where something is trained, these finals give way to the next ones.
    passed = tuple(search.passed[mark:])
    del search.passed[mark:]
    return Finals(
        fp32=base,
        baselines=tuple(c for e in before if (c := base if e is fp32 else candidate(e))),
        rows=tuple(rows),
        kept=tuple(order(kept, search.goal)),
        shown=tuple(
            (entry, judged(made, base, search.goal))
            for entry in shown
            if (made := candidate(entry)) is not None
        ),
        best=best,
        status=status,
        passed=passed,
        warnings=tuple(_disturbance(timed.values())),
    )


def _disturbance(timed: Iterable[Timed]) -> list[str]:
    """Returns a warning when other programs took the cores from what was timed."""
    waited = [one.waited_ratio for one in timed if one.failed is None]
    middle = median(waited)  # they take turns, so that what disturbs one disturbs all
    if middle <= _DISTURBED:
        return []
    share = f"threads waited for a core for {100 * middle:.0f} % of the time"
    return [f"other programs were running: {share}, so that another run may give other figures"]
