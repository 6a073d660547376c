# SPDX-License-Identifier: Apache-2.0
"""Smaller forms of a network, quantized without training and raced: what is fast enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from burnish.core.candidate import Candidate
from burnish.core.recipe import Recipe
from burnish.core.technique import Technique
from burnish.optimizing.candidates import make_candidate, with_resources
from burnish.optimizing.entries import Entry, entries_of
from burnish.optimizing.search import Search
from burnish.optimizing.structures import MARGIN, Shortfall, Structure, shortfall, structures
from burnish.techniques.fuse import Fuse
from burnish.techniques.prune.blocks import residual_blocks
from burnish.techniques.quantize.static import QuantizeStatic

_GAIN = 1.1  # a structure that is not enough goes on when it comes this much nearer


@dataclass(frozen=True)
class Form:
    """A structure of the network: the steps that make it, and its int8 form."""

    name: str
    steps: tuple[Technique, ...]
    entry: Entry


def quantizing(entry: Entry) -> tuple[tuple[Fuse, ...], QuantizeStatic]:
    """Returns the steps that fuse and quantize an int8 entry's network."""
    steps = entry.recipe.steps()
    static = steps[-1]
    if not isinstance(static, QuantizeStatic):
        raise TypeError(f"an int8 recipe ends in quantize_static, got {static}")
    return tuple(one for one in steps if isinstance(one, Fuse)), static


def pruned(
    search: Search, fp32: Entry, base: Candidate, lead: Entry, short: Shortfall, seconds: float
) -> list[Form]:
    """Returns of each kind of structure the gentlest that is fast and small enough.

    `base` is what was measured of `fp32`, and `lead` the int8 model that falls `short`. Once
    the `seconds` are spent, no further structure is cut.
    Where no structure is enough, it is the one that comes nearest, if it is much nearer than
    `lead` itself.
    """
    proposed = structures(short, lead, len(residual_blocks(search.bench.original)))
    if not proposed:
        search.drop("pruning", f"the goal leaves {short.words} of int8: that is out of its reach")
        return []
    built = list(_all_built(search, lead, proposed, seconds))
    every = {entry.key: entry for _, entry in built}
    timed = search.race("structures", [fp32, lead, *every.values()], fp32.key, 0.1)
    running = [one for one in built if timed[one[1].key].failed is None]
    fastest: dict[str, tuple[Structure, Entry]] = {}
    for structure, entry in sorted(running, key=lambda one: timed[one[1].key].latency.value):
        fastest.setdefault(structure.name, (structure, entry))
    enough: dict[str, Form] = {}
    near: list[tuple[float, Form]] = []
    for structure, entry in reversed(fastest.values()):  # the slowest, which is the gentlest, first
        made = make_candidate(entry, timed[entry.key], fp32, {}, None)
        if short.smaller:
            made = with_resources(search.bench, made, entry)
        missing = shortfall(made, base, search.goal, raced_briefly=True)
        others = [
            one.setting
            for other, one in running
            if other is structure and one.setting != entry.setting
        ]
        # All are raced again at last: how much a second core is worth may change by then.
        form = Form(structure.name, structure.steps, replace(entry, rivals=tuple(others)))
        near.append((missing.left, form))
        if not missing.structural:
            enough.setdefault(structure.kind, form)
        else:
            search.drop(entry.name, f"still too much: the goal leaves {missing.words} of it")
    if enough:
        return list(enough.values())
    left, nearest = max(near, key=lambda one: one[0], default=(0.0, None))
    comes_near = short.left < 1 and left >= min(MARGIN, _GAIN * short.left)
    if nearest is not None and comes_near:
        return [nearest]
    search.drop("training", "no smaller structure comes near enough to the goal")
    return []


def _all_built(
    search: Search, lead: Entry, proposed: Sequence[Structure], seconds: float
) -> Iterator[tuple[Structure, Entry]]:
    """Yields what `_built` does, of each structure until the seconds are spent."""
    began = search.budget.spent_s
    found = late = False
    for structure in proposed:
        if found and not late:
            late = search.late(
                ["structures", structure.name, lead.key],
                lambda: search.budget.spent_s - began > seconds,
            )
        if late:
            search.drop(
                f"{structure.name} int8", "the time for structures was spent: give a larger budget"
            )
            continue
        for one in _built(search, lead, structure):
            found = True
            yield one


def _built(search: Search, lead: Entry, structure: Structure) -> Iterator[tuple[Structure, Entry]]:
    """Yields the structure's int8 form for each number of threads; none when nothing was cut."""
    name = f"{structure.name} int8"
    recipe = Recipe((*structure.steps, *lead.recipe.steps()))
    outcome = search.build(name, recipe)
    if outcome is None:
        return
    if outcome.model.digest == lead.model.digest:
        why = [one.reason for one in outcome.skipped[:1]]
        search.drop(name, "; ".join(["nothing was cut", *why]))
        return
    entries, reasons = entries_of(
        name, outcome.model, [lead.engine], search.threads, recipe, outcome
    )
    for reason in reasons:
        search.drop(name, reason)
    yield from ((structure, entry) for entry in entries)
