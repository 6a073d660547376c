# SPDX-License-Identifier: Apache-2.0
"""The finals: contenders are raced with the baselines and judged on all validation data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
_NEWCOMERS = 2  # that training adds: what was distilled, and what was trained quantized
_LONGER = 1.2  # a race with them takes than one without
_RACE_SHARE = 0.4  # of the budget, when these finals are surely the last
_RACE_SHARE_OF_TWO = 0.22  # when there may have to be training, and finals again


@dataclass(frozen=True)
class Field:
    """Who takes part: the fastest fp32, the baselines beside it, and the contenders."""

    fp32: Entry
    eager: Sequence[Entry]
    others: Sequence[Entry]
    contenders: Sequence[Entry]
    shown: Sequence[Entry] = ()


@dataclass(frozen=True)
class Finals:
    """What came of the finals.

    `rows`: each contender with its measurements and verdicts. `kept`: those that lead, which
    have their resources measured too, best objective first. `shown`: entries that were
    measured alike, but are no contenders. `passed`: what was passed over here, and why.
    `field`: who took part, each in its fastest setting. `again_s`: the seconds that finals
    with newcomers would take, from what these took.
    """

    field: Field
    fp32: Candidate
    baselines: tuple[Candidate, ...]
    rows: tuple[tuple[Entry, Candidate], ...]
    kept: tuple[Candidate, ...]
    shown: tuple[tuple[Entry, Candidate], ...]
    best: Candidate
    status: Status
    passed: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    again_s: float


def finals(search: Search, field: Field, *, may_follow: bool) -> Finals:
    """Returns what is measured of all, and the choice. Raises `Unsupported` without a baseline.

    `may_follow`: whether training and other finals may follow, for which time must be left.
    """
    bench, task = search.bench, search.bench.task
    mark, began = len(search.passed), search.budget.spent_s
    taking_part = [*field.eager, field.fp32, *field.others, *field.contenders, *field.shown]
    rivals = {one.key: one for entry in taking_part for one in entry.in_each_setting()}
    baselines = [one.key for one in field.fp32.in_each_setting()]
    share = _RACE_SHARE_OF_TWO if may_follow else _RACE_SHARE
    timed = search.race("racing", list(rivals.values()), baselines, share)
    raced = search.budget.spent_s
    field = _settled(field, timed)
    fp32 = field.fp32
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
        field=field,
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
        again_s=min(_LONGER * (raced - began), share * search.budget.total_s)
        + _NEWCOMERS * (search.budget.spent_s - raced) / (1 + len(kept)),
    )


def _settled(field: Field, timed: Mapping[str, Timed]) -> Field:
    """Returns the field with every entry in the setting that was the fastest of its rivals'."""

    def fastest(entry: Entry) -> Entry:
        best = min(entry.in_each_setting(), key=lambda one: _latency_ms(timed[one.key]))
        return replace(best, rivals=())

    return Field(
        fastest(field.fp32),
        field.eager,
        [fastest(entry) for entry in field.others],
        [fastest(entry) for entry in field.contenders],
        [fastest(entry) for entry in field.shown],
    )


def _latency_ms(timed: Timed) -> float:
    return math.inf if timed.failed is not None else timed.latency.value


def _disturbance(timed: Iterable[Timed]) -> list[str]:
    """Returns a warning when other programs took the cores from what was timed."""
    waited = [one.waited_ratio for one in timed if one.failed is None]
    middle = median(waited)  # they take turns, so that what disturbs one disturbs all
    if middle <= _DISTURBED:
        return []
    share = f"threads waited for a core for {100 * middle:.0f} % of the time"
    return [f"other programs were running: {share}, so that another run may give other figures"]
