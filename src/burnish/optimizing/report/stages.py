# SPDX-License-Identifier: Apache-2.0
"""The stages of a network that was trained: what each added, as the reports lay it out."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.core.candidate import Candidate
from burnish.optimizing.report import figures, names
from burnish.optimizing.report.rows import Cell, drop_cell, measured_cell, ratio_cell, size_cell
from burnish.optimizing.result import Result


@dataclass(frozen=True)
class StageRow:
    """One stage: what was added to the one before, and the model then."""

    added: str
    name: str
    engine: str
    macs: str
    parameters: str
    size: Cell
    latency: Cell
    ratio: Cell
    metric: Cell
    drop: Cell


def stage_rows(result: Result) -> list[StageRow]:
    """Returns the stages from the baseline on; none where nothing was trained."""
    return [_row(result, added, one) for added, one in result.stages]


def _row(result: Result, added: str, one: Candidate) -> StageRow:
    baseline = added == result.stages[0][0]
    return StageRow(
        added=added,
        name=names.printable(one.name),
        engine=names.setting(one),
        macs=_count(one, "macs"),
        parameters=_count(one, "parameters"),
        size=size_cell(result, one, share=not baseline),
        latency=measured_cell(one.measured.get("latency")),
        ratio=ratio_cell(result, one, is_baseline=baseline),
        metric=measured_cell(one.measured.get("metric")),
        drop=Cell() if baseline else drop_cell(one),
    )


def _count(one: Candidate, what: str) -> str:
    """Returns a count to three digits: "41.2 M"."""
    value = one.detail.get(what)
    if not value:
        return figures.NOTHING
    for divisor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= divisor:
            return f"{figures.significant(value / divisor)} {letter}"
    return str(value)
