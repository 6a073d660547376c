# SPDX-License-Identifier: Apache-2.0
"""Finds streams, threads and the largest batch for a bundle: measures, simulates, chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.errors import BurnishError, Misuse, Unsupported
from burnish.core.progress import Progress, silent
from burnish.engines import deployed
from burnish.engines.engine import by_name
from burnish.measuring.machine import machine
from burnish.serving.planning import candidates, selection
from burnish.serving.planning.behaviour import MOST_PER_S, Traffic, most_per_s
from burnish.serving.planning.call_times import CallTimes
from burnish.serving.planning.measuring import Opener, bucket_of, measured_again, screened
from burnish.serving.planning.selection import Considered
from burnish.serving.planning.slo import Slo
from burnish.serving.rows import Rows

OVER = 1.5
"""How far beyond the rate the goodput is looked at."""
_SCREENING, _AGAIN = 0.45, 0.35  # shares of the budget; the rest is for simulating
_MOST_CONTENDERS = 6
_MOST_TIMES = 3
_SHORT_MS = 0.5  # about what a server in Python spends on a request
_DISTURBED = 0.02
_FEWEST_BEYOND = 10  # calls beyond the percentile, or it rests on too few


@dataclass(frozen=True)
class Planned:
    """What came of planning. Without `chosen` no configuration keeps the SLO."""

    slo: Slo
    asked_per_s: float | None
    chosen: Considered | None
    nearest: Considered
    """The chosen one, or the one that comes nearest."""
    up_to_per_s: float
    """The largest rate at which `nearest` keeps the SLO; 0 for none."""
    considered: tuple[Considered, ...]
    failed: tuple[tuple[Setting, str], ...]
    """Settings that the engine could not run, and why."""
    engine: str
    model: str
    """The digest of the model that was measured."""
    axes: Mapping[str, int]
    created: str
    notes: tuple[str, ...]

    def serving(self) -> dict[str, Any]:
        """Returns `plan.serving` of the manifest, or raises `Misuse` where nothing was chosen."""
        one = self.chosen
        if one is None:
            raise Misuse(f"no configuration keeps {self.slo}: there is no plan to write")
        return {
            "threads": one.setting.threads,
            "streams": one.setting.streams,
            "max_batch_size": one.max_batch_size,
            "slo_ms": self.slo.ms,
            "percentile": self.slo.percentile,
            "rate_per_s": one.rate_per_s,
            "up_to_per_s": self.up_to_per_s,
            "latency_by_batch": one.to_dict()["latency_by_batch"],
            "measured": {
                "machine": machine().fingerprint,
                "engine": self.engine,
                "created": self.created,
                "axes": dict(self.axes),
            },
            "considered": [row.to_dict() for row in self.considered],
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "slo": {"percentile": self.slo.percentile, "ms": self.slo.ms},
            "asked_per_s": self.asked_per_s,
            "kept": self.chosen is not None,
            "serving": self.serving() if self.chosen is not None else None,
            "nearest": self.nearest.to_dict(),
            "up_to_per_s": self.up_to_per_s,
            "considered": [row.to_dict() for row in self.considered],
            "failed": [{**vars(setting), "reason": reason} for setting, reason in self.failed],
            "engine": self.engine,
            "axes": dict(self.axes),
            "created": self.created,
            "notes": list(self.notes),
        }


def plan(
    path: str | Path,
    slo: Slo,
    rate_per_s: float | None = None,
    *,
    axes: Mapping[str, int] | None = None,
    budget_s: float = 60.0,
    settings: Sequence[Setting] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Planned:
    """Returns how the bundle in a folder is best served on this machine; writes nothing.

    `rate_per_s` is the traffic to plan for; without it, the plan is for the most traffic
    that keeps the SLO. `axes` are the sizes of the model's free axes but the batch.
    `settings` are the threads and streams to try, else those that the cores suggest.
    Raises `Misuse` for what does not fit the bundle, `Unsupported` when no setting runs.
    """
    if not budget_s > 0 or (rate_per_s is not None and not rate_per_s > 0):
        raise Misuse(f"budget and rate must be above 0, got {budget_s} s and {rate_per_s}/s")
    bundle = Bundle.load(path)
    progress("opening the bundle", 0, 0)
    with deployed.open(path) as session:  # says what differs from where it was measured
        engine, rows = session.engine, Rows(session.signature)
    runtime, model = by_name(engine.split()[0]), bundle.model
    bucket = bucket_of(rows, axes or {})
    opener = Opener(lambda setting: runtime.open(model, setting), rows, bucket, seed)
    work = _Work(slo, rate_per_s, budget_s, opener, seed, progress)
    tried = list(settings) if settings is not None else candidates.settings(machine().cores)
    table, failed = work.considered(tried)
    chosen = selection.choose([row for row in table if row.measured_again], rate_per_s)
    nearest = chosen or selection.nearest(table)
    return Planned(
        slo=slo,
        asked_per_s=rate_per_s,
        chosen=chosen,
        nearest=nearest,
        up_to_per_s=work.up_to_per_s(nearest),
        considered=tuple(table),
        failed=tuple(failed),
        engine=engine,
        model=str(bundle.manifest["model"]["digest"]),
        axes=dict(bucket),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=tuple(_notes(slo, nearest, rows, dict(bucket))),
    )


class _Work:
    """One planning: what is measured, then simulated, then both again for the best."""

    def __init__(
        self,
        slo: Slo,
        rate_per_s: float | None,
        budget_s: float,
        opener: Opener,
        seed: int,
        progress: Progress,
    ) -> None:
        self._slo, self._rate_per_s, self._opener, self._seed = slo, rate_per_s, opener, seed
        self._budget_s, self._progress = budget_s, progress
        self._times: dict[Setting, CallTimes] = {}

    def considered(
        self, settings: Sequence[Setting]
    ) -> tuple[list[Considered], list[tuple[Setting, str]]]:
        """Returns all that was looked at, the contenders as they were measured again."""
        failed = self._screen(settings)
        first = [
            _row(times.up_to(size), self._slo)
            for times in self._times.values()
            for size in candidates.largest_batches(times.rates, self._slo.ms)
        ]
        first = self._simulated(first, Traffic(self._seed, 1), within=selection.NEAR)
        table = {_key(row): row for row in first}
        # One that loses when it is measured again lets others contend that were behind it.
        for _ in range(_MOST_TIMES):
            rows = list(table.values())
            near = selection.contenders(rows, self._rate_per_s, _MOST_CONTENDERS)
            if all(row.measured_again for row in near):
                break
            self._measure_again(near)
            again = [replace(_row(self._own(row), self._slo), measured_again=True) for row in near]
            table |= {
                _key(row): row for row in self._simulated(again, Traffic(self._seed), within=1.0)
            }
        return [self._with_over(row) for row in table.values()], failed

    def up_to_per_s(self, row: Considered) -> float:
        """Returns the largest rate at which a configuration keeps the SLO; 0 for none."""
        if self._rate_per_s is None:
            return row.rate_per_s
        most = Traffic(self._seed).largest_rate(self._own(row), self._slo)
        return max(row.rate_per_s, most.rate_per_s if most is not None else 0.0)

    def _own(self, row: Considered) -> CallTimes:
        return self._times[row.setting].up_to(row.max_batch_size)

    def _screen(self, settings: Sequence[Setting]) -> list[tuple[Setting, str]]:
        failed = []
        each_s = _SCREENING * self._budget_s / max(1, len(settings))
        for done, setting in enumerate(settings):

            def check(setting: Setting = setting, done: int = done) -> None:
                self._progress(f"measuring {setting}", done, len(settings))

            try:
                times = screened(self._opener, setting, self._slo.ms, each_s, check)
            except BurnishError as error:
                failed.append((setting, str(error)))
            else:
                self._times[setting] = times
        if not self._times:
            tried = ", ".join(str(setting) for setting, _ in failed)
            raise Unsupported(f"the model ran with none of {tried}: {failed[0][1]}")
        return failed

    def _measure_again(self, near: Sequence[Considered]) -> None:
        sizes: dict[Setting, list[int]] = {}
        for row in near:
            most = max([row.max_batch_size, *sizes.get(row.setting, [])])
            sizes[row.setting] = [size for size in self._times[row.setting].sizes if size <= most]

        def check(done: int, total: int) -> None:
            self._progress("measuring the best again", done, total)

        seconds = _AGAIN * self._budget_s
        self._times |= measured_again(self._opener, sizes, seconds, check, self._seed)

    def _simulated(
        self, rows: Sequence[Considered], traffic: Traffic, within: float
    ) -> list[Considered]:
        """Returns the rows with what they do. Those are passed over that cannot answer the rate
        to plan for, or without one cannot come `within` this share of the best."""
        found: dict[tuple[Setting, int], Considered] = {}
        best_per_s = 0.0
        for done, row in enumerate(sorted(rows, key=lambda row: -row.capacity_per_s)):
            self._progress("simulating", done, len(rows))
            asked_per_s, own = self._rate_per_s, self._own(row)
            ceiling_per_s = row.capacity_per_s / self._slo.ratio
            if asked_per_s is None:
                ceiling_per_s = most_per_s(row.capacity_per_s, self._slo)
            if ceiling_per_s < (asked_per_s or (1 - within) * best_per_s):
                why = f"answers at most {ceiling_per_s:.4g}/s in time, if its streams never wait"
                found[_key(row)] = replace(row, passed_over=why)
            elif asked_per_s is not None:
                at = traffic.behaviour(own, self._slo, asked_per_s)
                found[_key(row)] = replace(row, at=at)
            else:
                most = traffic.largest_rate(own, self._slo)
                found[_key(row)] = replace(row, at=most)
                best_per_s = max(best_per_s, found[_key(row)].rate_per_s)
        return [found[_key(row)] for row in rows]

    def _with_over(self, row: Considered) -> Considered:
        if row.at is None or not row.measured_again:
            return row
        self._progress("simulating more traffic", 0, 0)
        rate_per_s = OVER * row.at.rate_per_s
        over = Traffic(self._seed).behaviour(self._own(row), self._slo, rate_per_s)
        return replace(row, over=over)


def _key(row: Considered) -> tuple[Setting, int]:
    return row.setting, row.max_batch_size


def _row(times: CallTimes, slo: Slo) -> Considered:
    return Considered(
        setting=times.setting,
        max_batch_size=times.sizes[-1],
        table=times.table,
        calls=min(map(len, times.calls_ms.values())),
        alone_ms=times.alone_ms(slo.ratio),
        capacity_per_s=times.capacity_per_s,
        stalled_ratio=times.stalled_ratio,
    )


def _notes(slo: Slo, row: Considered, rows: Rows, axes: Mapping[str, int]) -> list[str]:
    notes = [
        "simulated from measured calls, all streams busy, with the batcher that serves and "
        "Poisson arrivals of one sample each; the network's share, and reading and writing "
        "requests, is not in it"
    ]
    if axes:
        sizes = ", ".join(f"{name}={size}" for name, size in axes.items())
        notes.append(
            f"planned for {sizes}: serve with this as the largest padding of these axes; "
            "other sizes take other times"
        )
    if row.table[0][1] < _SHORT_MS:
        notes.append(
            f"a call is shorter than {_SHORT_MS:g} ms: the server's own work will decide, not "
            f"this; rates beyond {MOST_PER_S:,.0f}/s are not looked for"
        )
    if row.stalled_ratio > _DISTURBED:
        notes.append(
            f"{100 * row.stalled_ratio:.0f} % of the time went into calls of more than 4 times "
            "the median: other programs ran meanwhile; plan again on a quiet machine"
        )
    if not rows.batched:
        notes.append("the model's batch size is not free: it is served one request at a call")
    if row.calls * (1 - slo.ratio) < _FEWEST_BEYOND:
        notes.append(
            f"p{slo.percentile:g} rests on {row.calls} calls of the least measured batch size: "
            "a larger --budget tells more"
        )
    return notes
