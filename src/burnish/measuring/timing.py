# SPDX-License-Identifier: Apache-2.0
"""Latency, by a race: contenders take turns in one process, so that noise hits all alike.

A session opens every contender anew, in random order (a fresh memory layout is a real
source of variance), warms each up, and holds rounds. In a round each contender, in random
order, runs a block of calls, of which the first are dropped: caches are cold, and another
engine's threads may still spin. A round's medians are paired; the interval comes from
resampling sessions and rounds (`statistics.bootstrap_by_session`). Rounds in which other
programs took the cores are left out, as far as the system can tell and enough others
remain. The race ends when every ratio to the baseline is known to `precision_ratio`, or
when the budget is spent.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import BurnishError, Misuse
from burnish.core.measurement import Measurement
from burnish.core.progress import Progress, silent
from burnish.engines.engine import Session
from burnish.measuring.machine import machine
from burnish.measuring.statistics import bootstrap_by_session, paired_ratio, percentile_interval

_BLOCK_MS = 10.0
_SETTLE_MS = 3.0  # longer than ONNX Runtime's threads spin, as we open it
_MOST_CALLS = 1000
_FEW_CALLS = 3
_SLOW_MS = 200.0
_LEAST_ROUNDS = 5
_WINDOW_MS = 5.0
_STILL_FALLING = 0.98
_MOST_WINDOWS = 20
_DISTURBED = 0.03  # of a block's time that our threads waited for a core
_TRIES = 2
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Contender:
    """What races: how to open it, and the one request that it answers again and again."""

    key: str
    open: Callable[[], Session]
    inputs: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Timed:
    """One contender's outcome.

    `latency` is the median over all kept calls; `speedup` how many times as fast as the
    baseline, paired by round (None for the baseline, and when either failed).
    `percentiles_ms` holds those that the number of calls supports. `noise_ratio` is the
    spread of the rounds' medians (1.4826 × median absolute deviation) over their median.
    `waited_ratio` is the time that its threads waited for a core, over the time measured
    (median over rounds; 0 where the system cannot tell): above some 0.05, other programs
    were running, and another run need not agree with this one.
    When it failed, `failed` says why, and `latency` is NaN with n = 0.
    """

    key: str
    latency: Measurement
    speedup: Measurement | None = None
    percentiles_ms: dict[str, float] = field(default_factory=dict)
    round_medians_ms: list[float] = field(default_factory=list)
    n_calls: int = 0
    warmup_calls: int = 0
    noise_ratio: float = math.nan
    waited_ratio: float = 0.0
    failed: str | None = None


@dataclass(frozen=True)
class _Block:
    """The kept calls of one contender in one round."""

    calls_ms: NDArray[np.float64]
    median_ms: float
    waited_ratio: float


class _Runner:
    """A contender during the race: its open session, and what was seen so far."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self.session: Session | None = None
        self.failed: str | None = None
        self.engine = ""
        self.conditions: dict[str, Any] = {}
        self.call_ms = 1.0
        self.warmup_calls = 0
        self.sessions: list[list[_Block]] = []

    def open(self, warmup_s: float) -> None:
        """Opens a session and warms it up; notes a failure of the engine."""
        try:
            self.session = self.contender.open()
            self.engine = self.session.engine
            batches = [len(array) for array in self.contender.inputs.values() if array.ndim]
            setting = self.session.setting
            self.conditions = {
                "threads": setting.threads,
                "streams": setting.streams,
                "batch": batches[0] if batches else 1,
            }
            # The first call checks the inputs, as every call of a user's does once.
            self.session.run(self.contender.inputs)
            self.warmup_calls += 1 + self._warm_up(warmup_s)
            self.sessions.append([])
        except BurnishError as error:
            self._fail(error)

    def block(self) -> None:
        """Runs a block of calls and keeps all but the first."""
        dropped = max(1, math.ceil(_SETTLE_MS / self.call_ms))
        fewest = _FEW_CALLS if self.call_ms < _SLOW_MS else 1
        kept = max(fewest, min(_MOST_CALLS, math.ceil(_BLOCK_MS / self.call_ms)))
        best: _Block | None = None
        for _ in range(_TRIES):
            waited_ms, start = _waited_ms(), time.perf_counter()
            try:
                calls_ms = self._time(min(dropped, _MOST_CALLS) + kept)[-kept:]
            except BurnishError as error:
                self._fail(error)
                return
            elapsed_ms = 1000 * (time.perf_counter() - start)
            waited = (_waited_ms() - waited_ms) / elapsed_ms
            if best is None or waited < best.waited_ratio:
                best = _Block(calls_ms, float(np.median(calls_ms)), waited)
            if waited < _DISTURBED:
                break
        if best is not None:
            self.sessions[-1].append(best)

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def _warm_up(self, most_s: float) -> int:
        """Returns how many calls it took until the medians of windows stopped falling."""
        started, n, best, still = time.perf_counter(), 0, math.inf, 0
        for _ in range(_MOST_WINDOWS):
            size = max(2, min(_MOST_CALLS, math.ceil(_WINDOW_MS / self.call_ms)))
            self.call_ms = max(1e-3, float(np.median(self._time(size))))
            n += size
            still = still + 1 if self.call_ms > _STILL_FALLING * best else 0
            best = min(best, self.call_ms)
            if still == 2 or time.perf_counter() - started > most_s:
                break
        self.call_ms = best
        return n

    def _time(self, n: int) -> NDArray[np.float64]:
        assert self.session is not None
        run, inputs, clock = self.session.run, self.contender.inputs, time.perf_counter_ns
        ticks = np.empty((n, 2), np.int64)
        with _no_garbage_collection():
            for index in range(n):
                start = clock()
                run(inputs)
                ticks[index] = start, clock()
        return (ticks[:, 1] - ticks[:, 0]) / 1e6

    def _fail(self, error: BurnishError) -> None:
        self.failed = str(error)
        self.close()


def race(
    contenders: Sequence[Contender],
    *,
    baseline: str | Sequence[str],
    budget_s: float,
    precision_ratio: float = 0.02,
    sessions: int = 3,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Timed]:
    """Returns what was measured of each contender, by key, in the order given.

    At least `sessions` sessions of five rounds are held, each within its share of
    `budget_s`, and more while intervals are wider than ± `precision_ratio`. Of several
    baselines it is the fastest. A contender whose engine fails drops out, and says so in
    `failed`. Nothing else should run on the machine meanwhile; `waited_ratio` and
    `noise_ratio` show when something did.
    Raises `Misuse` when keys are not unique or a baseline is not among them.
    """
    baselines = [baseline] if isinstance(baseline, str) else list(baseline)
    _check(contenders, baselines, budget_s, precision_ratio, sessions)
    runners = {one.key: _Runner(one) for one in contenders}
    rng = np.random.default_rng(seed)
    started = time.perf_counter()

    def spent_s() -> float:
        return time.perf_counter() - started

    held = 0
    while any(runner.failed is None for runner in runners.values()):
        share_s = budget_s / sessions
        until_s = min(budget_s, spent_s() + share_s)
        try:
            opening_s = spent_s()
            # Who is opened last has other memory than who is first: that is noise as well.
            for index in rng.permutation(len(runners)):
                runner = list(runners.values())[index]
                if runner.failed is not None:
                    continue
                runner.open(warmup_s=0.25 * share_s / len(runners))
            opening_s = spent_s() - opening_s
            began_s, rounds = spent_s(), 0
            while _running(runners):
                for index in rng.permutation(len(runners)):
                    runner = list(runners.values())[index]
                    if runner.failed is None:
                        runner.block()
                rounds += 1
                progress("timing", min(int(spent_s()), int(budget_s)), int(budget_s))
                last_s = (spent_s() - began_s) / rounds
                # Opening and warming up may cost as much as measuring, not more.
                if rounds >= _LEAST_ROUNDS and spent_s() - began_s >= opening_s:
                    break
                if spent_s() + last_s > until_s and rounds >= 2:
                    break
        finally:
            for runner in runners.values():
                runner.close()
        held += 1
        needed_s = spent_s() / held
        if spent_s() + needed_s > budget_s and (held >= sessions or spent_s() > budget_s):
            break
        base = _fastest(runners, baselines)
        if held >= sessions and _tight(runners, base, precision_ratio, seed):
            break
    base = _fastest(runners, baselines)
    return {key: _timed(runner, runners, base, seed) for key, runner in runners.items()}


def _check(
    contenders: Sequence[Contender],
    baselines: Sequence[str],
    budget_s: float,
    precision_ratio: float,
    sessions: int,
) -> None:
    keys = [one.key for one in contenders]
    faults = []
    if len(set(keys)) < len(keys):
        faults.append(f"the contenders' keys must differ, got {keys}")
    if not baselines:
        faults.append("expected at least one baseline")
    for baseline in baselines:
        if baseline not in keys:
            faults.append(f"the baseline {baseline!r} is none of the contenders {keys}")
    if not budget_s > 0 or not precision_ratio > 0 or sessions < 1:
        faults.append(
            "budget_s, precision_ratio and sessions must be above 0, got "
            f"{budget_s}, {precision_ratio}, {sessions}"
        )
    if faults:
        raise Misuse("; ".join(faults))


def _running(runners: Mapping[str, _Runner]) -> list[_Runner]:
    return [runner for runner in runners.values() if runner.failed is None]


def _rounds_to_use(runners: Mapping[str, _Runner]) -> list[list[int]]:
    """Returns, for each session, the rounds in which no other program took a core from us.

    Which rounds those are does not depend on how fast the contenders were. When they are
    too few, all rounds count, and `waited_ratio` shows it.
    """
    sessions = zip(*(runner.sessions for runner in _running(runners)), strict=True)
    waited = [
        [max(block.waited_ratio for block in one) for one in zip(*blocks, strict=True)]
        for blocks in sessions
    ]
    quiet = [[at for at, one in enumerate(rounds) if one < _DISTURBED] for rounds in waited]
    n_quiet, n_all = sum(map(len, quiet)), sum(map(len, waited))
    if n_quiet >= max(_LEAST_ROUNDS, n_all / 4) and sum(map(bool, quiet)) >= min(2, len(quiet)):
        return quiet
    return [list(range(len(rounds))) for rounds in waited]


def _medians(runner: _Runner, use: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
    """Returns the medians of the rounds to use, by session."""
    return [
        np.array([blocks[at].median_ms for at in rounds])
        for blocks, rounds in zip(runner.sessions, use, strict=True)
        if rounds
    ]


def _fastest(runners: Mapping[str, _Runner], keys: Sequence[str]) -> _Runner:
    """Returns the runner of the least latency; one that failed only where all of them did."""
    if len(keys) == 1:
        return runners[keys[0]]
    use = _rounds_to_use(runners)

    def latency(key: str) -> float:
        runner = runners[key]
        if runner.failed is not None:
            return math.inf
        return float(np.median(np.concatenate(_medians(runner, use))))

    return runners[min(keys, key=latency)]


def _tight(runners: Mapping[str, _Runner], base: _Runner, precision: float, seed: int) -> bool:
    running = _running(runners)
    use = _rounds_to_use(runners)
    for runner in running:
        if runner is base and len(running) > 1:
            continue
        own = _medians(runner, use)
        if runner is base or base.failed is not None:
            low, high = bootstrap_by_session(own, seed=seed)
        else:
            _, low, high = paired_ratio(_medians(base, use), own, seed=seed)
        if not high <= low * (1 + precision) ** 2:
            return False
    return True


def _timed(runner: _Runner, runners: Mapping[str, _Runner], base: _Runner, seed: int) -> Timed:
    key = runner.contender.key
    if runner.failed is not None:
        nan = math.nan
        nothing = Measurement("latency", nan, "ms", "lower", nan, nan, 0, machine().fingerprint)
        return Timed(key, nothing, warmup_calls=runner.warmup_calls, failed=runner.failed)
    use = _rounds_to_use(runners)
    blocks = [
        session[at] for session, rounds in zip(runner.sessions, use, strict=True) for at in rounds
    ]
    calls_ms = np.concatenate([block.calls_ms for block in blocks])
    rounds_ms = np.array([block.median_ms for block in blocks])
    low, high = bootstrap_by_session(_medians(runner, use), seed=seed)
    value = float(np.median(calls_ms))
    where: dict[str, Any] = {
        "machine": machine().fingerprint,
        "engine": runner.engine,
        "conditions": runner.conditions,
    }
    latency = Measurement(
        "latency", value, "ms", "lower", min(low, value), max(high, value), len(calls_ms), **where
    )
    speedup = None
    if runner is not base and base.failed is None:
        ratio, low, high = paired_ratio(_medians(base, use), _medians(runner, use), seed=seed)
        speedup = Measurement("speedup", ratio, "x", "higher", low, high, len(rounds_ms), **where)
    middle = float(np.median(rounds_ms))
    return Timed(
        key=key,
        latency=latency,
        speedup=speedup,
        percentiles_ms={
            name: float(np.quantile(calls_ms, q))
            for name, q in _PERCENTILES.items()
            if percentile_interval(calls_ms, q) is not None
        },
        round_medians_ms=[float(one) for one in rounds_ms],
        n_calls=len(calls_ms),
        warmup_calls=runner.warmup_calls,
        noise_ratio=1.4826 * float(np.median(np.abs(rounds_ms - middle))) / middle,
        waited_ratio=float(np.median([block.waited_ratio for block in blocks])),
    )


def _waited_ms() -> float:
    """Returns how long this process's threads have waited for a core; 0 where none can tell."""
    total_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError):  # the thread may end meanwhile
            total_ns += int(file.read_text().split()[1])
    return total_ns / 1e6


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
