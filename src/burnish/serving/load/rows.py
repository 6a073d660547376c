# SPDX-License-Identifier: Apache-2.0
"""A run or a sweep in words and cells, for the terminal and the page alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from burnish.serving.load.histogram import Histogram
from burnish.serving.load.result import LoadResult
from burnish.serving.load.slo import PERCENTILES
from burnish.serving.load.sweep import Step, SweepResult

NOTHING = "–"
_SWEPT = ("p50", "p90", "p99", "p99.9")
_ENOUGH = 10  # requests beyond a percentile


@dataclass(frozen=True)
class Row:
    """A line of a table; `best` is the one to look at."""

    cells: tuple[str, ...]
    best: bool = False


def verdict(measured: LoadResult | SweepResult) -> str:
    """Returns what was found, as one sentence."""
    if isinstance(measured, SweepResult):
        if measured.best is None:
            lowest = min(step.per_s for step in measured.steps)
            return f"No rate down to {number(lowest)}/s keeps {measured.slo}."
        more = "" if measured.bracketed else ", and more was not tried"
        return f"{number(measured.best.per_s)} requests/s keep {measured.slo}{more}."
    said = f"{number(measured.achieved_per_s)} requests/s answered"
    if measured.offered_per_s is not None:
        said += f" of {number(measured.offered_per_s)}/s offered"
    if measured.slo is None:
        return f"{said}."
    return f"{said}; {measured.slo} is {'kept' if measured.keeps() else 'not kept'}."


def run_rows(result: LoadResult) -> list[Row]:
    """Returns the table of one run, its heading first."""
    rows = [Row(("ms", *PERCENTILES, "max"))]
    if not result.closed:
        rows.append(Row(("latency, from when due", *_percentiles(result.latency)), best=True))
        rows.append(Row(("  95 % interval", *_intervals(result.latency), "")))
        rows.append(Row(("  from sending alone", *_percentiles(result.service))))
        rows.append(Row(("generator's own delay", *_percentiles(result.late))))
    else:
        rows.append(Row(("latency", *_percentiles(result.latency)), best=True))
        rows.append(Row(("  95 % interval", *_intervals(result.latency), "")))
    if result.refusals.n:
        rows.append(Row(("time to a refusal", *_percentiles(result.refusals))))
    return rows


def sweep_rows(sweep: SweepResult) -> list[Row]:
    """Returns the table of a sweep by rising rate, its heading first."""
    heading = (
        "rate/s",
        "offered/s",
        "achieved/s",
        *_SWEPT,
        "in SLO/s",
        "rejected",
        "failed",
        "SLO",
    )
    steps = sorted(sweep.steps, key=lambda step: step.per_s)
    return [Row(heading), *(_step(step, step is sweep.best) for step in steps)]


def facts(result: LoadResult) -> list[tuple[str, str]]:
    """Returns the circumstances of a run, as (term, text)."""
    found = [
        ("Server", result.url),
        ("Model", result.model),
        ("Schedule", result.schedule),
        ("Requests", f"{result.requests:,} in {result.elapsed_s:.1f} s"),
        ("Request", f"{size(result.request_bytes)}{_rows(result.rows)}"),
    ]
    if result.offered_per_s is not None:
        found.append(("Offered", f"{number(result.offered_per_s)}/s"))
    found.append(("Achieved", f"{number(result.achieved_per_s)}/s"))
    if result.goodput_per_s is not None:
        found.append((f"Within {result.slo}", f"{number(result.goodput_per_s)}/s"))
    found += [
        ("Failures", failures(result.failures)),
        ("Connections", f"at most {result.connections}, {result.opened} opened"),
        ("Waited for a connection", f"{result.waited:,} requests"),
        (
            "Generator",
            f"{result.processes} {'process' if result.processes == 1 else 'processes'}, "
            f"{100 * result.generator_cpu_ratio:.0f} % of a core",
        ),
    ]
    return found


def doubts(result: LoadResult) -> list[str]:
    """Returns what one should know before trusting the figures."""
    found = []
    if result.generator_behind:
        late = result.late.percentile_ms(99)
        found.append(
            f"the generator itself was late: 1 % of the requests by {number(late)} ms or more. "
            "Give it cores of its own, or more --processes"
        )
    if result.waited:
        found.append(
            f"{result.waited:,} requests waited for a free connection, which counts as latency: "
            "--connections bounds them"
        )
    needed = result.slo.percentile if result.slo else 99.0
    if result.ok * (1 - needed / 100) < _ENOUGH:
        found.append(
            f"{result.ok:,} answers are few for p{needed:g}: at least "
            f"{math.ceil(_ENOUGH / (1 - needed / 100) - 1e-6):,} are needed for ten beyond it"
        )
    return found


def failures(counts: Mapping[str, int]) -> str:
    """Returns failures by kind.

    >>> failures({"429": 1200, "timeout": 3})
    '429: 1,200, timeout: 3'
    """
    return ", ".join(f"{kind}: {count:,}" for kind, count in counts.items()) or "none"


def number(value: float | None) -> str:
    """Returns a number to three significant digits, large ones whole.

    >>> number(0.01234), number(12.345), number(1234.6), number(None), number(float("nan"))
    ('0.0123', '12.3', '1,235', '–', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def size(n_bytes: int) -> str:
    """Returns a size in decimal units.

    >>> size(602112), size(80)
    ('602 kB', '80 B')
    """
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{number(n_bytes / scale)} {unit}"
    return f"{n_bytes} B"


def _step(step: Step, best: bool) -> Row:
    result = step.result
    values = result.latency.percentiles_ms([PERCENTILES[name] for name in _SWEPT])
    return Row(
        (
            number(step.per_s),
            number(result.offered_per_s),
            number(result.achieved_per_s),
            *map(number, values),
            number(result.goodput_per_s),
            f"{result.rejected:,}",
            NOTHING if math.isnan(result.failure_ratio) else f"{100 * result.failure_ratio:.1f} %",
            ("kept, the knee" if best else "kept") if step.keeps else "not kept",
        ),
        best,
    )


def _rows(rows: int | None) -> str:
    return f", {rows} {'row' if rows == 1 else 'rows'}" if rows else ""


def _percentiles(histogram: Histogram) -> list[str]:
    return [
        *map(number, histogram.percentiles_ms(PERCENTILES.values())),
        number(histogram.max_ms),
    ]


def _intervals(histogram: Histogram) -> list[str]:
    found = []
    for percentile in PERCENTILES.values():
        low, high = histogram.interval_ms(percentile)
        found.append(NOTHING if math.isnan(low) else f"{number(low)}–{number(high)}")
    return found
