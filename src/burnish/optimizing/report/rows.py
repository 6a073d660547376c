# SPDX-License-Identifier: Apache-2.0
"""The table of a result, as text that the terminal, Markdown and HTML lay out alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from burnish.core.candidate import Candidate
from burnish.core.goal import Verdict
from burnish.core.measurement import Measurement
from burnish.optimizing.report import figures, names
from burnish.optimizing.result import Result

Role = Literal["eager", "fp32", "other fp32", "kept"]
ROLES: dict[Role, str] = {
    "eager": "source framework",
    "fp32": "best fp32",
    "other fp32": "fp32",
    "kept": "candidate",
}


@dataclass(frozen=True)
class Cell:
    """What a cell says first, and the smaller line under it."""

    main: str = figures.NOTHING
    below: str = ""


@dataclass(frozen=True)
class Row:
    """One baseline or candidate. `label` names it in charts, alike for no two rows."""

    candidate: Candidate
    role: Role
    chosen: bool
    label: str
    name: str
    engine: Cell
    size: Cell
    latency: Cell
    ratio: Cell
    throughput: Cell
    metric: Cell
    drop: Cell
    agreement: Cell
    goal: Cell

    @property
    def look(self) -> str:
        """How a chart draws it: chosen, kept or baseline."""
        return "chosen" if self.chosen else "kept" if self.role == "kept" else "baseline"


def rows(result: Result) -> list[Row]:
    """Returns the source framework's run, the best fp32 engine, the other ones, and then
    the candidates as they were ranked. The chosen one is always among them.
    """
    # What stands before the best fp32 engine is no engine of ours: the source framework.
    first = next((i for i, one in enumerate(result.baselines) if _same(one, result.fp32)), 0)
    ordered: list[tuple[Candidate, Role]] = [(one, "eager") for one in result.baselines[:first]]
    ordered.append((result.fp32, "fp32"))
    for one in result.baselines[first:]:
        if not _same(one, result.fp32):
            ordered.append((one, "other fp32"))
    kept = list(result.candidates)
    if not any(_same(result.best, one) for one in [*kept, *(one for one, _ in ordered)]):
        kept.insert(0, result.best)
    known = [one for one, _ in ordered]
    ordered += [(one, "kept") for one in kept if not any(_same(one, other) for other in known)]
    # The choice carries the verdicts, also where it is a baseline.
    ordered = [(result.best if _same(one, result.best) else one, role) for one, role in ordered]
    labels = _labels([one for one, _ in ordered])
    return [
        _row(result, one, role, label) for (one, role), label in zip(ordered, labels, strict=True)
    ]


def _same(a: Candidate, b: Candidate) -> bool:
    return (a.name, a.model, a.engine, a.setting) == (b.name, b.model, b.engine, b.setting)


def _labels(candidates: list[Candidate]) -> list[str]:
    plain = [names.printable(one.name) or "unnamed" for one in candidates]
    for more in (names.engine, names.setting):
        often = Counter(plain)
        plain = [
            f"{names.printable(one.name) or 'unnamed'}, {more(one)}" if often[text] > 1 else text
            for one, text in zip(candidates, plain, strict=True)
        ]
    seen: Counter[str] = Counter()
    labels = []
    for text in plain:
        seen[text] += 1
        labels.append(text if seen[text] == 1 else f"{text} ({seen[text]})")
    return labels


def _row(result: Result, one: Candidate, role: Role, label: str) -> Row:
    measured = one.measured
    chosen = _same(one, result.best)
    return Row(
        candidate=one,
        role=role,
        chosen=chosen,
        label=label,
        name=names.printable(one.name) or "unnamed",
        engine=Cell(names.engine(one), str(one.setting)),
        size=size_cell(result, one, share=role == "kept"),
        latency=measured_cell(measured.get("latency")),
        ratio=ratio_cell(result, one, is_baseline=role == "fp32"),
        throughput=measured_cell(measured.get("throughput"), unit=False),
        metric=measured_cell(measured.get("metric")),
        drop=drop_cell(one) if role == "kept" else Cell(),
        agreement=measured_cell(measured.get("agreement")),
        goal=Cell(one.status) if (role == "kept" or chosen) and one.verdicts else Cell(),
    )


def measured_cell(one: Measurement | None, unit: bool = True) -> Cell:
    """Returns the value over its interval."""
    return Cell() if one is None else Cell(figures.value(one, unit), figures.interval(one))


def size_cell(result: Result, one: Candidate, share: bool) -> Cell:
    """Returns the size, over its share of the best fp32's where that is asked for."""
    size, base = one.measured.get("size"), result.fp32.measured.get("size")
    if size is None or base is None or not share or not base.value > 0:
        return measured_cell(size)
    return Cell(figures.value(size), f"{figures.fixed(100 * size.value / base.value, 0)} %")


def ratio_cell(result: Result, one: Candidate, is_baseline: bool) -> Cell:
    """Returns the paired ratio where it was measured, else that of the medians (no interval)."""
    if is_baseline:
        return Cell("1×") if "latency" in one.measured else Cell()
    if "speedup" in one.measured:
        return measured_cell(one.measured["speedup"])
    base, latency = result.fp32.measured.get("latency"), one.measured.get("latency")
    if base is None or latency is None or not latency.value > 0:
        return Cell()
    return Cell(figures.quantity(base.value / latency.value, "×"), "of medians")


def drop_verdict(one: Candidate) -> Verdict | None:
    """Returns the verdict on the drop, when the goal limits it."""
    return next((v for v in one.verdicts if v.requirement.startswith("drop ")), None)


def drop_cell(one: Candidate) -> Cell:
    """Returns the drop over its verdict."""
    measured, verdict = one.measured.get("drop"), drop_verdict(one)
    status = verdict.status if verdict else "no limit"
    if measured is None:
        return Cell(figures.NOTHING, status if verdict else "")
    return Cell(figures.value(figures.drop(measured), unit=False), status)


def drop_unit(result: Result) -> str:
    """Returns the unit of the drops, for a column's head."""
    every = (one.measured.get("drop") for one in (result.best, *result.candidates))
    return next((figures.drop(one).unit for one in every if one is not None), "")
