# SPDX-License-Identifier: Apache-2.0
"""An optimization of the digits' network, and engines that count, refuse and break down."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.core.errors import Unsupported
from burnish.core.goal import Goal
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.optimizing import run
from burnish.optimizing.optimized import Optimized
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic

INT8 = Recipe((Fuse(), QuantizeStatic(ranges="minmax", activations="u8", weight_bits=8)))
SMALL = Goal(max_drop=5, objective="size")


class Counting(OnnxRuntime):
    """ONNX Runtime that counts how often it opens a model."""

    opened = 0

    def open(self, model, setting):
        Counting.opened += 1
        return super().open(model, setting)


class Refusing(OnnxRuntime):
    """An engine that takes no model."""

    name = "refusing"

    def open(self, model, setting):
        raise Unsupported("refusing has no kernel for anything")


class Failing(OnnxRuntime):
    """An engine that opens models and fails as soon as one runs."""

    name = "failing"

    def open(self, model, setting):
        session = super().open(model, setting)

        def fail(inputs):
            raise Unsupported("failing broke down")

        session.execute = fail
        return session


def optimize(model, task=None, goal=SMALL, *, store, **more) -> Optimized:
    given = {"budget": 2, "recipes": [INT8], "engines": [OnnxRuntime()]} | more
    return run.optimize(model, task, goal, store=store, **given)


@dataclass(frozen=True)
class Done:
    first: Optimized
    again: Optimized
    opened: tuple[int, int]
    store: Store
