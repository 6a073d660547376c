# SPDX-License-Identifier: Apache-2.0
"""Smaller forms of a network, quantized without training and raced: what is fast enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from burnish.core.recipe import Recipe
from burnish.core.technique import Technique
from burnish.optimizing.entries import Entry, entries_of
from burnish.optimizing.search import Search
from burnish.optimizing.structures import Shortfall, Structure, structures
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic

_GAIN = 1.1  # a structure that meets no limit goes on when it is this much nearer to it


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


def pruned(search: Search, fp32: Entry, lead: Entry, short: Shortfall) -> list[Form]:
    """Returns of each kind of structure the gentlest that is fast and small enough.

    `lead` is the int8 model that falls `short`. Where no structure is enough, it is the one
    that comes nearest, if it is much nearer than `lead` itself.
    """
    proposed = structures(short, lead)
    if not proposed:
        left = min(short.latency_ratio, short.size_ratio)
        reason = f"the goal leaves {left:.0%} of what int8 takes, which pruning does not reach"
        search.drop("pruning", reason)
        return []
    built = [one for structure in proposed for one in _built(search, lead, structure)]
    if not built:
        return []
    every = {entry.key: entry for _, entry in built}
    timed = search.race("structures", [fp32, lead, *every.values()], lead.key, 0.1)
    running = [one for one in built if timed[one[1].key].failed is None]
    fastest: dict[str, tuple[Structure, Entry]] = {}
    for structure, entry in sorted(running, key=lambda one: timed[one[1].key].latency.value):
        fastest.setdefault(structure.name, (structure, entry))
    enough: dict[str, tuple[float, Form]] = {}
    near: list[tuple[float, Form]] = []
    for structure, entry in fastest.values():
        form = Form(structure.name, structure.steps, entry)
        latency_ratio = timed[entry.key].latency.value / timed[lead.key].latency.value
        size_ratio = entry.model.size_bytes / lead.model.size_bytes
        over = max(latency_ratio / short.latency_ratio, size_ratio / short.size_ratio)
        near.append((over, form))
        if over > 1:
            stays = f"{latency_ratio:.0%} of the latency and {size_ratio:.0%} of the size of int8"
            search.drop(entry.name, f"it leaves {stays}, which is too much")
        elif structure.kind not in enough or over > enough[structure.kind][0]:
            enough[structure.kind] = (over, form)
    if enough:
        return [form for _, form in enough.values()]
    over, form = min(near, key=lambda one: one[0])
    if over * _GAIN <= max(1 / short.latency_ratio, 1 / short.size_ratio):
        return [form]
    search.drop("training", "no smaller structure comes near enough to the goal")
    return []


def _built(search: Search, lead: Entry, structure: Structure) -> Iterator[tuple[Structure, Entry]]:
    """Yields the structure's int8 form for each number of threads; none when nothing was cut."""
    name = f"{structure.name} int8"
    recipe = Recipe((*structure.steps, *lead.recipe.steps()))
    outcome = search.build(name, recipe)
    if outcome is None:
        return
    if outcome.model.digest == lead.model.digest:
        search.drop(
            name, "; ".join(["nothing was cut", *(str(one.reason) for one in outcome.skipped[:1])])
        )
        return
    entries, reasons = entries_of(
        name, outcome.model, [lead.engine], search.threads, recipe, outcome
    )
    for reason in reasons:
        search.drop(name, reason)
    yield from ((structure, entry) for entry in entries)
