# SPDX-License-Identifier: Apache-2.0
"""How long calls take, by setting and batch size, while all streams are busy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.engines.engine import Session
from burnish.measuring.throughput import point
from burnish.serving.planning.call_times import CallTimes
from burnish.serving.planning.candidates import worth_doubling
from burnish.serving.request import Axes
from burnish.serving.rows import Rows

ROUNDS = 4
_WARMUP = 1.2  # a point takes a fifth more than it measures
_USUAL_SIZES = 6
_LEAST_S, _MOST_S = 0.01, 1.0


@dataclass(frozen=True)
class Opener:
    """Opens the bundle's model with a setting, and makes inputs for it."""

    open: Callable[[Setting], Session]
    rows: Rows
    bucket: Axes
    """The sizes of the free axes but the batch."""
    seed: int = 0

    def inputs(self, batch_size: int) -> dict[str, NDArray[Any]]:
        """Returns inputs of a batch size: noise for floats, ones for masks, zeros for the rest."""
        rng = np.random.default_rng(self.seed)
        made = self.rows.zeros(batch_size, self.bucket)
        for name, zeros in made.items():
            if zeros.dtype.kind == "f":
                made[name] = rng.standard_normal(zeros.shape).astype(zeros.dtype)
            elif zeros.dtype.kind == "b" or "mask" in name.lower():
                made[name] = np.ones_like(zeros)
        return made


def free_axes(rows: Rows) -> list[str]:
    """Returns the free axes of a model's inputs but the batch, by name."""
    axes = {
        size or f"{spec.name}.{place}"
        for spec in rows.signature.inputs
        for place, size in enumerate(spec.shape)
        if not isinstance(size, int) and (place or not rows.batched)
    }
    return sorted(axes)


def bucket_of(rows: Rows, axes: Mapping[str, int]) -> Axes:
    """Returns the sizes of all free axes. Raises `Misuse` for one too many or too few."""
    free = free_axes(rows)
    unknown = sorted(set(axes) - set(free))
    missing = [name for name in free if name not in axes]
    if unknown:
        known = ", ".join(free) or "none"
        raise Misuse(
            f"the model has no free axis {', '.join(map(repr, unknown))}: its free axes, the "
            f"batch left out, are {known}"
        )
    if missing:
        said = " ".join(f"--axis {name}=SIZE" for name in missing)
        raise Misuse(
            f"the sizes of {', '.join(map(repr, missing))} decide how long a call takes: say "
            f"which to plan for, the largest that requests are padded to: {said}"
        )
    if any(size < 1 for size in axes.values()):
        raise Misuse(f"the sizes of axes must be at least 1, got {dict(axes)}")
    return tuple((name, axes[name]) for name in free)


def screened(
    opener: Opener, setting: Setting, slo_ms: float, seconds: float, check: Callable[[], None]
) -> CallTimes:
    """Returns the times of batch sizes doubled from 1 for as long as a larger one may pay.

    That takes about `seconds`, more where calls are long. `check` is called before each
    size. Raises what opening and running raise.
    """
    each_s = min(_MOST_S, max(_LEAST_S, seconds / _USUAL_SIZES / _WARMUP))
    calls_ms: dict[int, NDArray[np.float64]] = {}
    size, until_s = 1, time.monotonic() + 2 * seconds
    with opener.open(setting) as session:
        while True:
            check()
            calls_ms[size] = point(session, setting, size, opener.inputs(size), each_s).calls_ms
            going = opener.rows.batched and time.monotonic() < until_s
            if not going or not worth_doubling(CallTimes(setting, calls_ms).rates, slo_ms):
                return CallTimes(setting, calls_ms)
            size *= 2


def measured_again(
    opener: Opener,
    sizes: Mapping[Setting, list[int]],
    seconds: float,
    check: Callable[[int, int], None],
    seed: int = 0,
) -> dict[Setting, CallTimes]:
    """Returns the times of these batch sizes anew, the settings taking turns in random order.

    So what slows the machine for a while hits all of them. `check` is called before each
    measurement with those done and all.
    """
    pairs = [(setting, size) for setting, own in sizes.items() for size in own]
    each_s = min(_MOST_S, max(_LEAST_S, seconds / len(pairs) / ROUNDS / _WARMUP))
    parts: dict[tuple[Setting, int], list[NDArray[np.float64]]] = {pair: [] for pair in pairs}
    rng = np.random.default_rng(seed)
    with contextlib.ExitStack() as stack:
        sessions = {setting: stack.enter_context(opener.open(setting)) for setting in sizes}
        done = 0
        for _ in range(ROUNDS):
            for index in rng.permutation(len(pairs)):
                setting, size = pairs[index]
                check(done, ROUNDS * len(pairs))
                inputs = opener.inputs(size)
                parts[pairs[index]].append(
                    point(sessions[setting], setting, size, inputs, each_s).calls_ms
                )
                done += 1
    return {
        setting: CallTimes(setting, {size: np.concatenate(parts[setting, size]) for size in own})
        for setting, own in sizes.items()
    }
