# SPDX-License-Identifier: Apache-2.0
"""Widths that reach a measured latency: a table, an allocation, and the whole measured again."""

from __future__ import annotations

from collections.abc import Sequence

from burnish.core.errors import Broken
from burnish.core.model import Model
from burnish.core.technique import Context, Skipped
from burnish.techniques.prune import allocate
from burnish.techniques.prune.allocate import Choice, Widths
from burnish.techniques.prune.latency_table import Bench, LatencyTable, Served, measured_table

_ROUNDS = 6
_NEAR = 0.01  # of the whole latency: closer than a race can tell


def within_latency(
    how: str,
    model: Model,
    choices: Sequence[Choice],
    keep_ratio: float,
    bench: Bench,
    context: Context,
) -> tuple[Widths, tuple[str, ...], tuple[Skipped, ...]]:
    """Returns widths whose measured latency is `keep_ratio` of the whole's, and what was found.

    After each allocation the network is measured and the table rescaled by it; where that
    leads out of what is known to be too little and enough, the middle is asked for. Of the
    widths that met the target those of the least loss are returned, or when none did, the
    fastest, with a note.
    """
    served = Served(model, context)
    allowed = {one.name: one.widths for one in choices}
    table = measured_table(served, model, allowed, bench, context)
    needed_ms = (1 - keep_ratio) * table.base_ms
    narrowest = {one.name: one.widths[0] for one in choices}
    too_little_ms, enough_ms = 0.0, table.base_ms - table.predicted_ms(narrowest)
    asked_ms = min(needed_ms, enough_ms)
    tried: dict[tuple[int, ...], tuple[Widths, float]] = {}
    for _ in range(_ROUNDS):
        widths = _solve(how, choices, table, asked_ms)
        key = tuple(widths.values())
        if key not in tried:
            tried[key] = widths, _measured_ratio(served, model, widths, bench, context)
        ratio = tried[key][1]
        if abs(ratio - keep_ratio) <= _NEAR:
            break
        if ratio < keep_ratio:
            enough_ms = asked_ms
        else:
            too_little_ms = asked_ms
        if enough_ms - too_little_ms <= _NEAR * table.base_ms:
            break
        asked_ms = needed_ms / table.rescaled(widths, ratio).scale
        if not too_little_ms < asked_ms < enough_ms:
            asked_ms = (too_little_ms + enough_ms) / 2
    notes: tuple[Skipped, ...] = ()
    met = [one for one in tried.values() if one[1] <= keep_ratio + _NEAR]
    if met:
        widths, ratio = min(met, key=lambda one: _loss(choices, one[0]))
    else:
        widths, ratio = min(tried.values(), key=lambda one: one[1])
        notes = (
            Skipped(
                f"latency of {keep_ratio:.2f} times the model's",
                f"not reached: {ratio:.2f} is what the allowed widths were measured to give",
            ),
        )
    words = (
        f"int8 latency on {bench.engine}: {ratio:.2f} of {table.base_ms:.4g} ms measured, "
        f"{keep_ratio:.2f} wanted ({len(tried)} measured)"
    )
    return widths, (words,), notes


def _solve(how: str, choices: Sequence[Choice], table: LatencyTable, asked_ms: float) -> Widths:
    """Returns widths that save that much by the table, or the narrowest when none do."""
    narrowest = {one.name: one.widths[0] for one in choices}
    budget_ms = table.base_ms - asked_ms
    if table.predicted_ms(narrowest) >= budget_ms:
        return narrowest
    if how == "knapsack":
        savings = {
            one.name: [table.saved_ms(one.name, width) for width in one.widths] for one in choices
        }
        return allocate.knapsack(choices, savings, asked_ms)
    solve = allocate.uniform_within if how == "uniform" else allocate.greedy
    return solve(choices, table.predicted_ms, budget_ms)


def _loss(choices: Sequence[Choice], widths: Widths) -> float:
    return sum(one.losses[one.widths.index(widths[one.name])] for one in choices)


def _measured_ratio(
    served: Served, model: Model, widths: Widths, bench: Bench, context: Context
) -> float:
    """Returns the latency at these widths over that of the whole, from one race."""

    def measure() -> float:
        timed = bench.race({"whole": served.at({}), "cut": served.at(widths)}, context)
        speedup = timed["cut"].speedup
        if speedup is None:
            raise Broken("the race gave no ratio for the cut network")
        return 1 / speedup.value

    if context.store is None:
        return measure()
    key = bench.key(model, sorted(widths.items()))
    return float(context.store.json("latency_whole", key, measure))
