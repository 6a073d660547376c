# SPDX-License-Identifier: Apache-2.0
"""How many samples a second a model answers, by batch size, threads and streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.measurement import Measurement
from burnish.engines.engine import Session
from burnish.measuring.machine import machine
from burnish.measuring.statistics import mean_interval

_WARMUP_RATIO = 0.2
_SLICES = 10

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Point:
    """The throughput of one setting at one batch size, with all its streams busy."""

    setting: Setting
    batch_size: int
    samples_per_s: Measurement
    latency_ms: float
    """The median time of one call, while the other streams ran too."""
    calls_ms: NDArray[np.float64] = field(
        default_factory=lambda: np.empty(0), repr=False, compare=False
    )
    """The time of every call, in order of ending; not in `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "setting": vars(self.setting),
            "batch_size": self.batch_size,
            "samples_per_s": self.samples_per_s.to_dict(),
            "latency_ms": self.latency_ms,
        }


def throughput(
    open: Callable[[Setting], Session],
    inputs_for: Callable[[int], Inputs],
    settings: Sequence[Setting],
    batch_sizes: Sequence[int],
    seconds_each: float,
) -> list[Point]:
    """Returns a point for each setting and batch size.

    As many threads as the setting has streams call the session in a loop for
    `seconds_each`, after a fifth of that to warm up. `inputs_for` gives the inputs of a
    batch size. Raises what opening and running raise.
    """
    if seconds_each <= 0 or any(size < 1 for size in batch_sizes):
        raise Misuse(
            f"seconds_each and batch sizes must be above 0, got {seconds_each}, {batch_sizes}"
        )
    points = []
    for setting in settings:
        with open(setting) as session:
            for size in batch_sizes:
                points.append(point(session, setting, size, inputs_for(size), seconds_each))
    return points


def point(
    session: Session, setting: Setting, batch_size: int, inputs: Inputs, seconds: float
) -> Point:
    """Returns the point of a session that was opened with `setting`, as `throughput` does."""
    _calls(session, inputs, setting.streams, _WARMUP_RATIO * seconds)
    calls = _calls(session, inputs, setting.streams, seconds)
    return _point(session, setting, batch_size, calls)


def _calls(session: Session, inputs: Inputs, streams: int, seconds: float) -> NDArray[np.float64]:
    """Returns start and end, in seconds, of every call: (calls, 2), in order of ending."""
    ready = threading.Barrier(streams)

    def work() -> list[tuple[float, float]]:
        done = []
        ready.wait()
        until = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            session.run(inputs)
            end = time.perf_counter()
            done.append((start, end))
            if end >= until:
                return done

    with ThreadPoolExecutor(streams) as pool:
        workers = [pool.submit(work) for _ in range(streams)]
        calls = np.array([call for worker in workers for call in worker.result()])
    return calls[np.argsort(calls[:, 1])]


def _point(session: Session, setting: Setting, size: int, calls: NDArray[np.float64]) -> Point:
    times_s = calls[:, 1] - calls[:, 0]
    # Busy streams answer streams × batch samples in a mean call's time, whatever the number
    # of calls that happened to end within the window.
    rates = [
        setting.streams * size / float(part.mean())
        for part in np.array_split(times_s, min(_SLICES, len(times_s)))
    ]
    value = setting.streams * size / float(times_s.mean())
    low, high = mean_interval(rates)
    measured = Measurement(
        "throughput",
        value,
        "samples/s",
        "higher",
        max(0.0, min(low, value)),
        max(high, value),
        len(times_s),
        machine().fingerprint,
        session.engine,
        {**vars(setting), "batch": size},
    )
    return Point(setting, size, measured, 1000 * float(np.median(times_s)), 1000 * times_s)
