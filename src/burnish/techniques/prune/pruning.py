# SPDX-License-Identifier: Apache-2.0
"""What all ways to prune share: first choose what goes, then take it out.

The two are apart so that several rounds can choose on trained weights and take the sum of
it out of the weights that all began with (`schedule`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.graph.cost import Cost, cost

Removal = Mapping[str, Any]
"""What goes, by name: the channels that a group keeps, a weight's mask, or a block's nodes."""

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger")


@dataclass(frozen=True)
class Chosen:
    """What is to go, what was found meanwhile, and what stays and why."""

    removal: Removal
    applied: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Pruning(Technique):
    """A technique that chooses what to take out of a model, and takes it out."""

    @abstractmethod
    def choose(self, model: Model, context: Context) -> Chosen:
        """Returns what is to go from this model."""

    @abstractmethod
    def remove(self, model: Model, removal: Removal) -> ir.Model:
        """Returns the graph without it; `model` stays as it is."""

    @abstractmethod
    def part(self, now: float, before: float, start: Model, current: Model) -> Self | None:
        """Returns the step that brings `current` to the share `now` of the whole amount.

        `before` is the share that it was brought to. None when it is there already.
        """

    def merged(self, first: Removal, then: Removal) -> Removal:
        """Returns the two as one that applies to the model that `first` was chosen on."""
        return then

    def plain(self, removal: Removal) -> dict[str, Any]:
        """Returns what the lineage keeps of it, so that the model can be built again."""
        return {}

    def check(self, before: Model, after: Model, removal: Removal, seed: int) -> Chosen:
        """Returns in words how the result was checked. Raises `Broken`."""
        return Chosen(removal)

    @final
    def carried_out(self, model: Model, chosen: Chosen, seed: int) -> Outcome:
        """Returns the model without what was chosen, checked, with the account of it."""
        graph = self.remove(model, chosen.removal)
        notes = self.plain(chosen.removal)
        pruned = model.derive(graph, self, **({"removal": notes} if notes else {}))
        checked = self.check(model, pruned, chosen.removal, seed)
        return Outcome(
            pruned,
            (*chosen.applied, *account(cost(model), cost(pruned)), *checked.applied),
            (*chosen.skipped, *checked.skipped),
        )

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the pruned model, what went, and what stays and why."""
        return self.carried_out(model, self.choose(model, context), context.seed)


def account(before: Cost, after: Cost) -> tuple[str, ...]:
    """Returns how multiply-accumulates and parameters changed, where they did."""
    counts = {
        "multiply-accumulates": (before.macs, after.macs),
        "parameters": (before.parameters, after.parameters),
    }
    return tuple(
        f"{name}: {old:,} became {new:,} ({_percent(old, new)})"
        for name, (old, new) in counts.items()
        if old != new
    )


def _percent(old: int, new: int) -> str:
    return f"{100 * (new - old) / old:+.1f} %" if old else "there were none"


def need_macs(technique: str, counted: Cost) -> tuple[Skipped, ...]:
    """Returns a note when some products were not counted; raises `Misuse` when none was."""
    first = counted.skipped[0] if counted.skipped else None
    why = f" ({first.place}: {first.reason})" if first is not None else ""
    if not counted.macs:
        raise Misuse(
            f"{technique} is to take away multiply-accumulates, and none could be counted{why}: "
            "name the amount of parameters instead"
        )
    if first is None:
        return ()
    n = len(counted.skipped)
    return (Skipped("multiply-accumulates", f"those of {n} nodes are not counted{why}"),)


def refuse_quantized(technique: str, model: Model) -> None:
    """Raises `Misuse` for a quantized model, whose integers say little of a weight's worth."""
    for node in model.edit().graph:
        if node.op_type in _QUANTIZED:
            raise Misuse(
                f"{technique} takes a float model, and this one is quantized: it holds "
                f"{node.op_type} {node.name}; prune first, then quantize"
            )


def weight_array(value: ir.Value) -> NDArray[Any]:
    """Returns an initializer's numbers."""
    if value.const_value is None:
        raise Misuse(f"{value.name} is no constant")
    return np.asarray(value.const_value.numpy())
