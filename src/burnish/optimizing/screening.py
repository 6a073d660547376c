# SPDX-License-Identifier: Apache-2.0
"""Screening: which engines run the model, which structures are fast, which recipes faithful."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from burnish.core.errors import Unsupported
from burnish.core.recipe import Recipe
from burnish.optimizing.choose import promise
from burnish.optimizing.entries import Entry, entries_of
from burnish.optimizing.planner import Family
from burnish.optimizing.search import Search
from burnish.techniques.fuse import Fuse

_CONTENDERS = 4
_FAMILIES = 3
_SCREENING_SHARE = 0.5  # of the budget, after which no further recipe is tried
_ALIKE_RATIO = 1.4  # threads that gain or lose less are tried again: cores are shared, now and then
_SLOWER_RATIO = 1.3  # a family this much slower than the fastest is dropped in screening


def baselines(search: Search) -> list[Entry]:
    """Returns the original on every engine that runs it, for each number of threads."""
    entries, reasons = entries_of("fp32", search.bench.original, search.engines, search.threads)
    for reason in reasons:
        search.drop("fp32", reason)
    if not entries:
        raise Unsupported("no engine runs the model: " + "; ".join(reasons))
    return entries


def fusions(search: Search) -> list[Fuse]:
    """Returns the forms of Fuse that make different graphs of the original."""
    forms: dict[str, Fuse] = {}
    for fuse in (Fuse(), Fuse(local_response="operator")):
        outcome = search.build(str(fuse), Recipe((fuse,)))
        if outcome is not None:
            forms.setdefault(outcome.model.digest, fuse)
    return list(forms.values()) or [Fuse()]


def screen(
    search: Search, baselines: list[Entry], families: Sequence[Family]
) -> tuple[Entry, list[Entry], list[tuple[Family, Entry]]]:
    """Returns the fastest baseline, the other engines' best, and (family, entry) pairs to keep."""
    built: list[tuple[Family, Entry]] = []
    for family in families:
        name, recipe = family.recipes[0]
        outcome = search.build(name, recipe)
        if outcome is None:
            continue
        if outcome.model.digest == search.bench.original.digest:
            search.drop(family.name, "it leaves the model as it is")
            continue
        found, reasons = entries_of(
            family.name, outcome.model, search.engines, search.threads, recipe, outcome
        )
        built += [(family, entry) for entry in found]
        for reason in reasons:
            search.drop(family.name, reason)
    entries = [*baselines, *(entry for _, entry in built)]
    unique = {entry.key: entry for entry in entries}.values()
    timed = search.race("screening", list(unique), baselines[-1].key, 0.25)

    def latency(entry: Entry) -> float:
        got = timed[entry.key]
        return got.latency.value if got.failed is None else float("inf")

    def with_rivals(entry: Entry, fields: Sequence[Entry]) -> Entry:
        near = [
            one.setting
            for one in fields
            if one.model is entry.model
            and one.engine is entry.engine
            and one.setting != entry.setting
            and latency(one) <= _ALIKE_RATIO * latency(entry)
        ]
        return replace(entry, rivals=tuple(near))

    best_by_engine = [
        with_rivals(min((one for one in baselines if one.engine is engine), key=latency), baselines)
        for engine in search.engines
        if any(one.engine is engine for one in baselines)
    ]
    fp32, *others = sorted(best_by_engine, key=latency)
    if timed[fp32.key].failed is not None:
        raise Unsupported(f"no engine runs the model: {timed[fp32.key].failed}")
    built = [pair for pair in built if timed[pair[1].key].failed is None]
    goal = search.goal

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
            search.drop(place, f"slower than fp32 in screening: {ratio:.2f}× its speed")
        elif latency(entry) > limit and speed:
            search.drop(
                place,
                f"{latency(entry):.3g} ms in screening against {latency(kept[0][1]):.3g} ms "
                f"for {kept[0][0].name} on {kept[0][1].engine.name}",
            )
        elif len(kept) == _FAMILIES:
            search.drop(place, f"{_FAMILIES} families that promise more went on")
        else:
            kept.append((family, with_rivals(entry, [one for _, one in built])))
    return fp32, others, kept


def faithful(
    search: Search,
    fp32: Entry,
    kept: Sequence[tuple[Family, Entry]],
    is_late: Callable[[], bool] | None = None,
) -> list[Entry]:
    """Returns the contenders: of each family kept, the recipes whose outputs differ least.

    Once it `is_late` (half of the budget is spent), only the first recipe of each is tried.
    """

    def half_spent() -> bool:
        return search.budget.spent_s > _SCREENING_SHARE * search.budget.total_s

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
            late = search.late(
                [[entry.key for _, entry in kept], recipe.key()],
                is_late or half_spent,
            )
        if late:
            search.drop(place, "the time for screening was spent: give a larger budget")
            continue
        outcome = search.build(name, recipe)
        if outcome is None:
            continue
        entry = replace(first, name=name, model=outcome.model, recipe=recipe, outcome=outcome)
        same = made_by.setdefault(entry.key, name)
        if same != name:
            search.drop(place, f"it makes the same model as {same}")
            continue
        error, agreement = 0.0, 1.0
        if len(kept[rank][0].recipes) > 1:
            search.bench.progress(f"comparing {name} with the original", 0, 0)
            try:
                error, agreement = search.bench.fidelity(entry, fp32)
            except Unsupported as failure:
                search.drop(place, str(failure))
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
            search.drop(
                f"{entry.name} on {entry.engine.name}",
                f"less faithful to the original on calibration samples: relative squared error "
                f"{error:.2g}, {100 * agreement:.1f} % equal answers",
            )
    return contenders
