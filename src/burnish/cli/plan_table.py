# SPDX-License-Identifier: Apache-2.0
"""The configurations that were considered for serving, and what is to be done, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from burnish.optimizing.report.figures import NOTHING, significant
from burnish.serving.planning.behaviour import Behaviour
from burnish.serving.planning.selection import Considered

if TYPE_CHECKING:
    from rich.table import Table

    from burnish.serving.planning.planner import Planned


def plan_table(planned: Planned) -> Table:
    """Returns the table, one line a configuration, the chosen one marked."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("threads ×\nstreams", no_wrap=True)
    columns = _columns(planned)
    for heading, _ in columns:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in planned.considered:
        chosen = row is planned.chosen
        style = "bold" if chosen else "" if row.measured_again else "dim"
        name = f"{'→' if chosen else ' '} {row.setting.threads} × {row.setting.streams}"
        cells = (Text(shown(row)) for _, shown in columns)
        table.add_row(Text(name), *cells, style=style)
    return table


def verdict(planned: Planned) -> str:
    """Returns what was found, in a sentence."""
    row, slo = planned.nearest, planned.slo
    what = f"{row.setting}, {_batches(row)}"
    up_to = f"{significant(planned.up_to_per_s)}/s"
    if planned.chosen is not None and row.at is not None:
        spare = f", and keeps {slo} up to {up_to}" if planned.asked_per_s is not None else ""
        return (
            f"best: {what}: at {significant(row.at.rate_per_s)}/s "
            f"p{slo.percentile:g} is {significant(row.at.latency_ms)} ms{spare}{_beyond(row)}"
        )
    if planned.asked_per_s is None or not planned.up_to_per_s:
        return (
            f"nothing keeps {slo}, at any rate; nearest: {what}: with nothing to wait for, "
            f"p{slo.percentile:g} of one sample is {significant(row.alone_ms)} ms: allow more than "
            "that, or optimize the model further"
        )
    got = f"answers {100 * row.at.in_slo_ratio:.1f} % of it in time, and " if row.at else ""
    return (
        f"nothing keeps {slo} at {planned.asked_per_s:,.7g}/s; nearest: {what}: {got}keeps the "
        f"SLO up to about {up_to}"
    )


def _columns(planned: Planned) -> list[tuple[str, Callable[[Considered], str]]]:
    slo, asked = planned.slo, planned.asked_per_s
    columns: list[tuple[str, Callable[[Considered], str]]] = [
        ("largest\nbatch", lambda row: str(row.max_batch_size)),
        ("1 sample\nms", lambda row: significant(row.table[0][1])),
        ("full\nbatch ms", lambda row: significant(row.table[-1][1])),
        ("always\nbusy /s", lambda row: significant(row.capacity_per_s)),
    ]
    if asked is None:
        columns.append((f"{slo}\nup to", _rate))
    else:
        columns.append((f"at {asked:,.7g}/s\nin time", lambda row: _of(row.at, _share)))
    columns.append((f"p{slo.percentile:g}\nms", lambda row: _of(row.at, _latency)))
    columns.append(("goodput/s\nat 1.5 ×", lambda row: _of(row.over, _goodput)))
    return columns


def _rate(row: Considered) -> str:
    if row.passed_over:
        return NOTHING
    return f"{significant(row.rate_per_s)}/s" if row.keeps else "no rate"


def _of(one: Behaviour | None, shown: Callable[[Behaviour], str]) -> str:
    return NOTHING if one is None else shown(one)


def _share(one: Behaviour) -> str:
    return f"{100 * one.in_slo_ratio:.1f} %"


def _latency(one: Behaviour) -> str:
    return significant(one.latency_ms)


def _goodput(one: Behaviour) -> str:
    return significant(one.goodput_per_s)


def _beyond(row: Considered) -> str:
    if row.over is None:
        return ""
    low, high = significant(row.over.goodput_low_per_s), significant(row.over.goodput_high_per_s)
    return (
        f"; at 1.5 times that rate {significant(row.over.goodput_per_s)}/s [{low} to {high}] are "
        "answered in time"
    )


def _batches(row: Considered) -> str:
    if row.max_batch_size == 1:
        return "without batching"
    return f"batches up to {row.max_batch_size}"
