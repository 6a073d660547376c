# SPDX-License-Identifier: Apache-2.0
"""The result as Markdown, with the command that reproduces it and the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from burnish.optimizing.report import figures, names
from burnish.optimizing.report.account import by_reason
from burnish.optimizing.report.headline import got, headline
from burnish.optimizing.report.rows import ROLES, drop_unit, rows
from burnish.optimizing.report.stages import stage_rows
from burnish.optimizing.result import Result

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>&~$-])")


def markdown(result: Result) -> str:
    """Returns the report as one Markdown document that ends with a line break."""
    said, best = headline(result), result.best
    parts = [
        f"# {_text(result.model)}: {said.verdict.lower()}",
        f"**{_text(said.chosen)}.** {_text(said.sentence)}",
        _bullets(said.open),
    ]
    if result.verdicts:
        verdicts = [
            [
                figures.requirement(verdict),
                got(best, verdict),
                verdict.status,
                figures.more_samples(verdict),
            ]
            for verdict in result.verdicts
        ]
        parts += ["## Goal", _table(["requirement", "measured", "verdict", ""], verdicts)]
    parts += [
        "## Measured",
        _measured(result),
        "The ratio is against the best fp32 engine (paired where it has an interval); "
        "brackets hold 95 % intervals. *Not shown* means that the samples are too few to tell.",
    ]
    if result.stages:
        parts += ["## Stage by stage", _stages(result)]
    if result.warnings:
        parts += ["## Warnings", _bullets(result.warnings)]
    if best.applied:
        parts += ["## Done in the chosen model", _bullets(best.applied)]
    for title, skipped in (
        ("## Left as it was in the chosen model", best.skipped),
        ("## Passed over", result.passed_over),
    ):
        if skipped:
            parts += [title, _bullets(passed.short(6) for passed in by_reason(skipped))]
    facts = {"task": result.task, "objective": result.goal.objective, "created": result.created}
    parts += [
        "## How it was measured",
        _facts({**facts, **result.protocol}.items()),
        "## Machine",
        _facts(result.machine.items()),
        "## Reproduce",
        _code(result.command),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _measured(result: Result) -> str:
    unit = drop_unit(result)
    head = ["", "engine", "size", "p50 latency", "vs best fp32", "samples/s"]
    head += [names.metric(result), f"drop, {unit}" if unit else "drop", "agreement", "goal"]
    lines = []
    for row in rows(result):
        name = row.name if row.role == "kept" else f"{row.name} ({ROLES[row.role]})"
        cells = [row.size, row.latency, row.ratio, row.throughput, row.metric, row.drop]
        cells += [row.agreement, row.goal]
        said = [f"→ {name}" if row.chosen else name, row.engine.main]
        lines.append(said + [f"{cell.main} {cell.below}".strip() for cell in cells])
    return _table(head, lines, numbers_from=2)


def _stages(result: Result) -> str:
    unit = drop_unit(result)
    head = ["", "model", "MACs", "parameters", "size", "p50 latency", "vs best fp32"]
    head += [names.metric(result), f"drop, {unit}" if unit else "drop"]
    lines = []
    for row in stage_rows(result):
        cells = [row.size, row.latency, row.ratio, row.metric, row.drop]
        said = [row.added, f"{row.name} on {row.engine}", row.macs, row.parameters]
        lines.append(said + [f"{cell.main} {cell.below}".strip() for cell in cells])
    return _table(head, lines, numbers_from=2)


def _text(text: object) -> str:
    """Returns text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", names.printable(text)).replace("\n", " ")


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers_from: int = 99) -> str:
    rule = ["---:" if i >= numbers_from else "---" for i in range(len(head))]
    body = [[_text(cell) for cell in line] for line in lines]
    every = [[_text(cell) for cell in head], rule, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_text(line)}" for line in lines)


def _facts(items: Iterable[tuple[str, object]]) -> str:
    entries = (figures.entry(str(key), value) for key, value in items)
    return "\n".join(f"- {_text(key)}: {_text(value)}" for key, value in entries)


def _code(text: str) -> str:
    """Returns a fenced block whose fence is longer than any in the text."""
    text = names.printable(text, newline=True)
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"
