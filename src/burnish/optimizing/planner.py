# SPDX-License-Identifier: Apache-2.0
"""Proposes recipes: which techniques are worth trying for this task on this machine.

A quantized model's speed depends on its structure (what is quantized, with which types),
and hardly on where its ranges end; its accuracy depends on both. So a family holds the
recipes of one structure: speed is measured once for the family, accuracy for each range
method within the families that are fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.core.recipe import Recipe
from burnish.core.task import Task
from burnish.core.technique import Skipped
from burnish.measuring.machine import Machine
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.grid import Activation
from burnish.techniques.quantize.ranges import Method
from burnish.techniques.quantize.static import QuantizeStatic, Rounding


@dataclass(frozen=True)
class Family:
    """Recipes that make models of one structure, the one to time the family by first."""

    name: str
    recipes: tuple[tuple[str, Recipe], ...]
    """(short name, recipe) pairs."""


# What mostly wins comes first, for when the time is short; of those, the cheap before the slow.
_WAYS: tuple[tuple[Method, Rounding], ...] = (
    ("mse", "nearest"),
    ("percentile", "nearest"),
    ("mse", "gptq"),
    ("percentile", "gptq"),
    ("minmax", "nearest"),
    ("entropy", "nearest"),
)


def propose(
    task: Task | None, machine: Machine, fusions: Sequence[Fuse]
) -> tuple[list[Family], list[Skipped]]:
    """Returns the families to try, and what is left out and why.

    `fusions` are the forms of Fuse that make different graphs of this model: which one an
    engine prefers is for measuring to say.
    """
    families = []
    for fuse in fusions:
        families.append(Family(_name("fp32 fused", fuse), (("fused", Recipe((fuse,))),)))
    if task is None or task.calibration is None:
        reason = "it needs calibration data: give a task with a [calibration] table"
        return families, [Skipped("quantize_static", reason)]
    passed: list[Skipped] = []
    bits = 8 if machine.int8_dot else 7
    if bits == 7:
        passed.append(
            Skipped(
                "8-bit weights",
                "this machine has no int8 dot-product instructions, so that 8-bit weights could "
                "saturate int16 sums; 7-bit weights cannot",
            )
        )
    structures: list[tuple[Fuse, Activation]] = [(fuse, "u8") for fuse in fusions]
    for fuse, kind in [*structures, (fusions[0], "s8")]:
        family = _name(f"int8 {kind}", fuse)
        static = QuantizeStatic(activations=kind, weight_bits=bits)
        named = [(f"{family} {way}", Recipe((fuse, step))) for way, step in ways(static)]
        families.append(Family(family, tuple(named)))
    return families, passed


def ways(static: QuantizeStatic) -> list[tuple[str, QuantizeStatic]]:
    """Returns the ranges and roundings worth trying, each with a short name."""
    return [
        (
            f"{ranges} gptq" if rounding == "gptq" else ranges,
            replace(static, ranges=ranges, rounding=rounding),
        )
        for ranges, rounding in _WAYS
    ]


def _name(start: str, fuse: Fuse) -> str:
    return start if fuse == Fuse() else f"{start} {fuse.local_response}"


def given(recipes: Sequence[Recipe]) -> list[Family]:
    """Returns the user's own recipes, each a family of its own."""
    return [Family(str(recipe), ((str(recipe), recipe),)) for recipe in recipes]
