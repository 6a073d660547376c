# SPDX-License-Identifier: Apache-2.0
"""Cuts the least important channels, and all that goes with them, out of the graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import onnx_ir as ir

from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model
from burnish.core.technique import Context, Skipped
from burnish.graph.channels import ChannelGroup, channel_groups, cut, zero
from burnish.graph.cost import cost
from burnish.techniques.prune import allocate
from burnish.techniques.prune.agreement import largest_difference
from burnish.techniques.prune.allocate import Choice, Widths
from burnish.techniques.prune.counts import Counts
from burnish.techniques.prune.importance import (
    Importance,
    Normalization,
    importance,
    need_scores,
    normalized,
)
from burnish.techniques.prune.latency_budget import within_latency
from burnish.techniques.prune.latency_table import Bench
from burnish.techniques.prune.pruning import (
    Chosen,
    Pruning,
    Removal,
    need_macs,
    refuse_quantized,
)
from burnish.techniques.train.trained import need_torch, training_samples
from burnish.techniques.train.training import number, whole

Amount = Literal["channels", "macs", "parameters", "size", "latency"]
Allocation = Literal["auto", "uniform", "greedy", "knapsack"]

_LIMIT = 1e-4  # of the largest output: sums are taken in another order


@dataclass(frozen=True)
class PruneChannels(Pruning):
    """Takes whole channels out of convolutions, matrix products and all that reads them.

    `amount` is the share that goes, 0 to below 1, `of` "macs" (multiply-accumulates),
    "parameters", "size" (of the file), "channels", or "latency" (of the int8 form, one
    sample, measured on `engine` with `threads`, 0 for every core).

    `importance` says which channels go: "l1", "l2" (norm over the group), "batch_norm"
    (scales), "taylor" (change of the loss to first order; without labels, of the distance
    to the original's answers), "activation" (mean magnitude), "random" (a control); those
    that read data take `samples` of it. `normalization` makes groups comparable: "mean",
    "max", "sum" of a group is 1, "none", or "auto", which is "none" for taylor, whose scores
    are changes of one loss, and "mean" else.

    `allocation` says how many go where: "uniform" (the same share everywhere), "greedy"
    (always what loses least for what it saves), "knapsack" (the least loss within a table of
    measured latencies), or "auto": uniform for channels, knapsack for latency, else greedy.
    `align`: widths are multiples of it, 1 for any; 0 is 16, and 8 up to 32 channels.
    `keep_ratio`: the least share that every group keeps. `keep`: groups to leave whole,
    by name. For latency, `seconds` bounds each of the races.

    A group that holds an operator which is not understood, or reaches an output, stays
    whole and is reported. The result is compared on random inputs with the dense model
    whose same channels are zeroed: a relative difference above 1e-4 is `Broken`. The
    channels that stayed are in the lineage. A latency is measured anew each time, and may
    lead to other widths, unless a store keeps the measurements.
    """

    amount: float = 0.5
    of: Amount = "macs"
    importance: Importance = "l2"
    normalization: Normalization = "auto"
    allocation: Allocation = "auto"
    align: int = 0
    keep_ratio: float = 0.1
    keep: tuple[str, ...] = ()
    samples: int = 512
    engine: str = "onnxruntime"
    threads: int = 1
    seconds: float = 20.0
    name: ClassVar[str] = "prune_channels"

    def __post_init__(self) -> None:
        choices: dict[str, Any] = {
            "of": Amount,
            "importance": Importance,
            "normalization": Normalization,
            "allocation": Allocation,
        }
        faults = [
            str(unknown(name, str(getattr(self, name)), get_args(kind)))
            for name, kind in choices.items()
            if getattr(self, name) not in get_args(kind)
        ]
        for name, least in (("align", 0), ("samples", 1), ("threads", 0)):
            if not whole(getattr(self, name), least):
                faults.append(
                    f"{name} must be a whole number from {least}, got {getattr(self, name)!r}"
                )
        for name in ("amount", "keep_ratio"):
            if not number(getattr(self, name), 0, 1):
                faults.append(
                    f"{name} must be a number from 0 to below 1, got {getattr(self, name)!r}"
                )
        if not number(self.seconds, 0.1, float("inf")):
            faults.append(f"seconds must be a number from 0.1, got {self.seconds!r}")
        if not isinstance(self.keep, tuple) or not all(isinstance(one, str) for one in self.keep):
            faults.append(f"keep must be a list of names, got {self.keep!r}")
        if not isinstance(self.engine, str):
            faults.append(f"engine must be a name, got {self.engine!r}")
        if self.allocation == "knapsack" and self.of != "latency":
            faults.append(
                f"knapsack takes a table of latencies: it goes with of = latency, got {self.of!r}"
            )
        if faults:
            raise Misuse("; ".join(faults))

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` for a quantized model or missing data, `Missing` without PyTorch."""
        refuse_quantized(self.name, model)
        if self.of == "latency":
            context.need_task(self.name).split("calibration")
        if self.importance in ("taylor", "activation"):
            training_samples(context.need_task(self.name))
        if self.importance == "taylor":
            need_torch(self.name)

    def choose(self, model: Model, context: Context) -> Chosen:
        """Returns the channels that stay, by group."""
        groups = channel_groups(model)
        names = {group.name: group for group in groups}
        faults = [
            str(unknown("channel group in keep", one, names))
            for one in self.keep
            if one not in names
        ]
        if faults:
            raise Misuse("; ".join(faults))
        free, skipped = self._free(groups)
        raw = importance(self.importance, model, free, context, self.samples) if free else {}
        for group in need_scores(self.name, self.importance, free, raw):
            skipped.append(Skipped(_place(group), f"it has no score by {self.importance}"))
        scores = normalized(raw, self._normalization())
        choices = [
            allocate.choice(group.name, scores[group.name], self._widths(group))
            for group in free
            if group.name in scores
        ]
        if not choices or self.amount == 0:
            return Chosen({}, (), tuple(skipped))
        if self.of == "macs":
            skipped += need_macs(self.name, cost(model))
        widths, words, notes = self._allocate(model, groups, choices, context)
        removal = {
            name: _best(scores[name], width)
            for name, width in widths.items()
            if width < names[name].size
        }
        return Chosen(removal, (*words, *_cut_words(names, removal)), (*skipped, *notes))

    def remove(self, model: Model, removal: Removal) -> ir.Model:
        """Returns the graph with only the channels to keep."""
        return cut(model, removal)

    def merged(self, first: Removal, then: Removal) -> Removal:
        """Returns what stays of the first model's channels after both."""
        both = {name: list(kept) for name, kept in first.items()}
        for name, kept in then.items():
            both[name] = [both[name][one] for one in kept] if name in both else list(kept)
        return both

    def plain(self, removal: Removal) -> dict[str, Any]:
        """Returns the channels that stay, by group."""
        return {name: [int(one) for one in kept] for name, kept in removal.items()}

    def part(self, now: float, before: float, start: Model, current: Model) -> Self | None:
        """Returns the step that brings `current` to `now` of the whole amount."""
        reached = self.amount * before
        if self.of != "latency":
            counts = [self._count(model) for model in (start, current)]
            reached = 1 - counts[1] / counts[0] if counts[0] else 0.0
        target = self.amount * now
        if target <= reached:
            return None
        return dataclasses.replace(self, amount=1 - (1 - target) / (1 - reached))

    def _count(self, model: Model) -> float:
        """Returns what the model costs in terms of the amount; locked channels are no part."""
        groups: Sequence[ChannelGroup] = channel_groups(model)
        if self.of == "latency":
            raise Misuse("a latency is measured, not counted")
        if self.of == "channels":
            groups = [one for one in groups if one.locked is None and one.name not in self.keep]
        return Counts(model, groups).of(self.of, {})

    def check(self, before: Model, after: Model, removal: Removal, seed: int) -> Chosen:
        """Returns how far the cut model is from the dense one with the same channels zeroed."""
        if not removal:
            return Chosen(removal)
        what = f"{self.name}: the cut model and the dense one with the same channels zeroed"
        found = largest_difference(Model(zero(before, removal)), after, _LIMIT, seed, what)
        if isinstance(found, Skipped):
            return Chosen(removal, (), (found,))
        return Chosen(removal, (f"equals the zeroed dense model to {found:.0e} of its outputs",))

    def _free(self, groups: Sequence[ChannelGroup]) -> tuple[list[ChannelGroup], list[Skipped]]:
        """Returns the groups that may be cut, and why the others stay."""
        free: list[ChannelGroup] = []
        skipped: list[Skipped] = []
        for group in groups:
            widths = self._widths(group)
            if group.locked is not None:
                skipped.append(Skipped(_place(group), group.locked))
            elif group.name in self.keep:
                skipped.append(Skipped(_place(group), "it is in keep"))
            elif len(widths) == 1:
                grid = f"multiples of {self.align or '8 or 16'}"
                reason = f"no narrower width among {grid} keeps {self.keep_ratio:.0%} of it"
                skipped.append(Skipped(_place(group), reason))
            else:
                free.append(group)
        return free, skipped

    def _normalization(self) -> Normalization:
        if self.normalization != "auto":
            return self.normalization
        return "none" if self.importance == "taylor" else "mean"

    def _widths(self, group: ChannelGroup) -> tuple[int, ...]:
        # A channel may be several of the layer that makes it: an attention head.
        made = [len(one.positions[0]) for one in group.slices if one.role == "producer"]
        return allocate.allowed_widths(
            group.size, self.align, self.keep_ratio, math.gcd(*made) if made else 1
        )

    def _allocate(
        self,
        model: Model,
        groups: Sequence[ChannelGroup],
        choices: Sequence[Choice],
        context: Context,
    ) -> tuple[Widths, tuple[str, ...], tuple[Skipped, ...]]:
        if self.of == "latency":
            bench = Bench(self.engine, self.threads, self.seconds)
            solver = "knapsack" if self.allocation == "auto" else self.allocation
            return within_latency(solver, model, choices, 1 - self.amount, bench, context)
        automatic = "uniform" if self.of == "channels" else "greedy"
        how = automatic if self.allocation == "auto" else self.allocation
        # Only channels of groups that may be cut count as channels.
        own = {one.name for one in choices}
        counted = [one for one in groups if one.name in own] if self.of == "channels" else groups
        counts, kind = Counts(model, counted), self.of
        if how == "uniform" and kind == "channels":
            return allocate.uniform(choices, 1 - self.amount), (), ()

        def costs(widths: Mapping[str, int]) -> float:
            return counts.of(kind, widths)

        budget = (1 - self.amount) * costs({})
        solve = allocate.uniform_within if how == "uniform" else allocate.greedy
        return solve(choices, costs, budget), (), ()


def _best(scores: Any, width: int) -> list[int]:
    """Returns the channels of the highest scores, the first of equals, in their order."""
    order = np.argsort(-scores, kind="stable")
    return sorted(int(one) for one in order[:width])


def _cut_words(groups: Mapping[str, ChannelGroup], removal: Removal) -> tuple[str, ...]:
    return tuple(
        f"cut {groups[name].size - len(kept)} of {groups[name].size} channels of {name}"
        for name, kept in removal.items()
    )


def _place(group: ChannelGroup) -> str:
    return f"{group.size} channel{'s' if group.size != 1 else ''} of {group.name}"
