# SPDX-License-Identifier: Apache-2.0
"""What each group's width costs in milliseconds, measured on this machine as int8.

The whole network is quantized (cheaply: only its time counts), cut in one group at a time,
and raced against its uncut self on the engine that will serve it. Between measured widths
the table is linear. Several groups together save less or more than the sum: measuring the
whole again corrects the table by one factor (`rescaled`).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Unsupported
from burnish.core.model import Model
from burnish.core.program import program
from burnish.core.technique import Context
from burnish.engines.engine import by_name
from burnish.graph.channels import channel_groups, cut
from burnish.measuring.machine import machine
from burnish.measuring.timing import Contender, Timed, race
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.observe import fitting
from burnish.techniques.quantize.static import QuantizeStatic

_SAMPLES = 4
_SESSIONS = 3
_MOST_AT_ONCE = 24  # networks that are in memory together
_WHOLE = "whole"

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds that a narrower group takes off the whole network's `base_ms`.

    `points[group]`: (width, milliseconds saved), widths ascending, (size, 0) the last.
    A narrower width never saves less than a wider one: that would be noise. `scale` is
    what a measurement of several groups at once found the sum to be worth.
    """

    base_ms: float
    points: Mapping[str, Points]
    scale: float = 1.0

    def saved_ms(self, group: str, width: float) -> float:
        """Returns what the group saves at this width, between the measured ones.

        >>> LatencyTable(1.0, {"a": ((8, 0.3), (16, 0.0))}).saved_ms("a", 12)
        0.15
        """
        widths, saved = zip(*self.points[group], strict=True)
        return self.scale * float(np.interp(width, widths, saved))

    def predicted_ms(self, widths: Mapping[str, int]) -> float:
        """Returns the network's latency with these widths; groups left out are whole."""
        return self.base_ms - sum(
            self.saved_ms(name, width) for name, width in widths.items() if name in self.points
        )

    def rescaled(self, widths: Mapping[str, int], measured_ratio: float) -> LatencyTable:
        """Returns the table that gives these widths the measured share of `base_ms`.

        The factor is held within 1/4 to 4, which bounds what one bad measurement does.
        """
        predicted = self.base_ms - self.predicted_ms(widths)
        measured = self.base_ms * (1 - measured_ratio)
        if predicted <= 0:
            return self
        factor = min(4.0, max(0.25, measured / predicted))
        return replace(self, scale=self.scale * factor)


@dataclass(frozen=True)
class Bench:
    """Where and how a model's latency is measured; `seconds` bounds each race."""

    engine: str
    threads: int
    seconds: float

    def setting(self) -> Setting:
        """Returns the engine's setting: `threads`, or every core for 0."""
        return Setting(threads=self.threads or machine().cores)

    def race(self, models: Mapping[str, Model], context: Context) -> dict[str, Timed]:
        """Returns the models' latencies, one sample each, against the first's.

        Raises `Unsupported` when the engine fails on one.
        """
        engine, setting = by_name(self.engine), self.setting()
        first = next(iter(models.values()))
        data = context.need_task("measuring latency").split("calibration")
        inputs = dict(next(fitting(first, data, 1, 1)))
        contenders = [
            Contender(key, lambda model=model: engine.open(model, setting), inputs)  # type: ignore[misc]
            for key, model in models.items()
        ]
        timed = race(
            contenders,
            baseline=contenders[0].key,
            budget_s=self.seconds,
            sessions=_SESSIONS,
            seed=context.seed,
            progress=context.progress,
        )
        failed = [f"{key}: {one.failed}" for key, one in timed.items() if one.failed]
        if failed:
            raise Unsupported(f"{engine.identity} could not time the model: {'; '.join(failed)}")
        return timed

    def key(self, model: Model, *more: Any) -> str:
        """Returns what a measurement here depends on, for the store."""
        engine = by_name(self.engine).identity
        parts = [program(), model.digest, machine().fingerprint, engine, self, *more]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


class Served:
    """A model's quantized form, as it will be served, at any widths of its groups."""

    def __init__(self, model: Model, context: Context) -> None:
        self._model, self._context = model, context
        self._whole = _int8(model, context)
        own = {group.name: group.size for group in channel_groups(model) if not group.locked}
        theirs = {g.name: g.size for g in channel_groups(self._whole) if not g.locked}
        # The same groups under the same names: then the quantized graph itself can be cut.
        self._same = own.items() <= theirs.items()
        self._sizes = own

    def at(self, widths: Mapping[str, int]) -> Model:
        """Returns the quantized network with these groups at these widths."""
        keep = {name: range(width) for name, width in widths.items() if width < self._sizes[name]}
        if self._same:
            return Model(cut(self._whole, keep))
        return _int8(Model(cut(self._model, keep)), self._context)


def _int8(model: Model, context: Context) -> Model:
    quiet = replace(context, store=None)
    fused = Fuse().apply(model, quiet).model
    steps = QuantizeStatic(ranges="minmax", samples=_SAMPLES, correct_bias=False, align_input=False)
    return steps.apply(fused, quiet).model


def measured_table(
    served: Served,
    model: Model,
    widths: Mapping[str, Sequence[int]],
    bench: Bench,
    context: Context,
) -> LatencyTable:
    """Returns the table of `model`, measured at the narrowest and a middle width of each group.

    `widths[group]` are its allowed widths, ascending, the whole size last. With a store, a
    table is measured once for each model, machine, engine and setting.
    """

    def measure() -> dict[str, Any]:
        probes = sorted((name, width) for name, own in widths.items() for width in _probed(own))
        heats = [probes[at : at + _MOST_AT_ONCE] for at in range(0, len(probes), _MOST_AT_ONCE)]
        bases: list[float] = []
        ratios: dict[tuple[str, int], float] = {}
        for heat in heats:
            models = {_WHOLE: served.at({})}
            models |= {_probe(name, width): served.at({name: width}) for name, width in heat}
            share = len(heat) / len(probes)
            timed = replace(bench, seconds=share * bench.seconds).race(models, context)
            bases.append(timed[_WHOLE].latency.value)
            for name, width in heat:
                speedup = timed[_probe(name, width)].speedup
                if speedup is None:
                    raise Broken(f"the race gave no ratio for {name} at {width} channels")
                ratios[name, width] = 1 / speedup.value
        base_ms = float(np.median(bases))
        saved: dict[str, list[tuple[int, float]]] = {}
        for (name, width), ratio in ratios.items():
            saved.setdefault(name, []).append((width, base_ms * (1 - ratio)))
        return {"base_ms": base_ms, "saved": saved}

    if context.store is None:
        found = measure()
    else:
        key = bench.key(model, sorted((name, tuple(own)) for name, own in widths.items()))
        found = context.store.json("latency_table", key, measure)
    return LatencyTable(
        found["base_ms"],
        {
            name: monotone([*((int(w), float(ms)) for w, ms in found["saved"][name]), (own[-1], 0)])
            for name, own in widths.items()
            if name in found["saved"]
        },
    )


def monotone(points: Sequence[tuple[int, float]]) -> Points:
    """Returns the points with savings that do not grow with the width, nor fall below 0.

    >>> monotone([(8, 0.1), (16, 0.2), (24, -0.1), (32, 0.0)])
    ((8, 0.2), (16, 0.2), (24, 0.0), (32, 0.0))
    """
    widths = [width for width, _ in points]
    saved = [max(0.0, ms) for _, ms in points]
    held = list(itertools.accumulate(reversed(saved), max))[::-1]
    return tuple(zip(widths, held, strict=True))


def _probed(widths: Sequence[int]) -> tuple[int, ...]:
    """Returns the narrowest of the allowed widths and one in the middle, the whole left out."""
    narrower = widths[:-1]
    return tuple(sorted({narrower[0], narrower[len(narrower) // 2]})) if narrower else ()


def _probe(name: str, width: int) -> str:
    return f"{name} at {width}"
