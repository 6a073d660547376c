# SPDX-License-Identifier: Apache-2.0
"""The result on a terminal: the verdict, the table, then what to beware of.

Every fact is said in words and figures; colour only repeats it. A row takes two lines,
the interval or verdict under its figure, so that all of it fits on 80 or 100 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from burnish.optimizing.report import figures, names
from burnish.optimizing.report.account import by_reason
from burnish.optimizing.report.headline import headline
from burnish.optimizing.report.rows import Cell, Row, drop_unit, rows
from burnish.optimizing.report.stages import stage_rows
from burnish.optimizing.result import Result

_STATUS_STYLES = {"met": "green", "not met": "bold red", "not shown": "yellow"}
_MARKS = {"met": "✓", "not met": "✗", "not shown": "?"}


@dataclass(frozen=True)
class _Column:
    """`first_to_go` orders the columns that a narrow terminal loses; 0 always stays."""

    title: str
    cell: Callable[[Row], Cell]
    first_to_go: int = 0


_COLUMNS = (
    _Column("size", lambda row: row.size),
    _Column("p50 ms\n[95 %]", lambda row: _bare(row.latency)),
    _Column("vs best\nfp32", lambda row: Cell(row.ratio.main)),
    _Column("samples/s", lambda row: Cell(row.throughput.main), 2),
    _Column("{metric}\n[95 %]", lambda row: row.metric),
    _Column("drop\n({unit})", lambda row: row.drop),
    _Column("agrees\nwith fp32", lambda row: Cell(row.agreement.main), 1),
    _Column("goal", lambda row: row.goal, 3),
)
_GAP = 2
_NAME = 21


def table(result: Result, width: int = 100) -> Table:
    """Returns the table: baselines first, then the candidates as ranked, `→` the chosen one.

    `width` is the terminal's, in columns. A narrow one loses the verdict on the whole
    goal, then the throughput, then the agreement; long names are shortened.
    """
    lines = rows(result)
    titles = {"metric": names.shorten(names.metric(result), 14), "unit": drop_unit(result)}
    columns = [
        (one, [_title(one, titles), *(_cell(one.cell(row)) for row in lines)]) for one in _COLUMNS
    ]
    while (room := width - sum(_width(cells) + _GAP for _, cells in columns)) < _NAME:
        going = max(columns, key=lambda column: column[0].first_to_go)
        if not going[0].first_to_go:
            break
        columns.remove(going)
    name_cells = [_name(row, max(room, 10)) for row in lines]
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    made.add_column("", no_wrap=True)
    for _, (title, *_rest) in columns:
        made.add_column(title, justify="right", no_wrap=True)
    for i, row in enumerate(lines):
        cells = [cells[i + 1] for _, cells in columns]
        made.add_row(name_cells[i], *cells, style="dim" if row.role == "other fp32" else "")
    return made


def _title(column: _Column, titles: dict[str, str]) -> Text:
    return Text(column.title.format(**titles).replace("\n()", ""))


def _width(cells: list[Text]) -> int:
    return max(cell_len(line) for cell in cells for line in cell.plain.split("\n"))


def _bare(cell: Cell) -> Cell:
    return Cell(cell.main.removesuffix(" ms"), cell.below)


def _name(row: Row, room: int) -> Text:
    role = {"eager": "eager, ", "fp32": "best fp32, ", "other fp32": "fp32, ", "kept": ""}
    mark = "→ " if row.chosen else "  "
    text = Text(mark + _fit(row.name, room - 2), style="bold")
    text.append("\n  " + _fit(role[row.role] + row.engine.main, room - 2), style="not bold dim")
    return text


def _fit(text: str, room: int) -> str:
    """Shortens to `room` columns; some characters are two columns wide."""
    length = room
    while cell_len(short := names.shorten(text, length)) > room:
        length -= 1
    return short


def _cell(cell: Cell) -> Text:
    text = Text(cell.main, style=_STATUS_STYLES.get(cell.main, ""))
    text.append(f"\n{cell.below}", style=_STATUS_STYLES.get(cell.below, "dim"))
    return text


@dataclass(frozen=True)
class Summary:
    """What `summary` returns: it lays itself out for the console that prints it."""

    result: Result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _verdict(self.result)
        yield ""
        yield table(self.result, options.max_width)
        yield from _stages(self.result)
        yield from _notes(self.result)


def summary(result: Result) -> Summary:
    """Returns the verdict, the table, the warnings and what was skipped, to be printed."""
    return Summary(result)


def _verdict(result: Result) -> Iterator[Text | Padding]:
    said = headline(result)
    style = _STATUS_STYLES[said.status]
    first = Text.assemble(
        (f"{_MARKS[said.status]} {said.verdict}: ", f"bold {style}"), (said.chosen, "bold")
    )
    yield first
    yield Padding(Text(said.sentence), (0, 0, 0, 2))
    for fault in said.open:
        yield Padding(Text(fault, style=style), (0, 0, 0, 2))


def _stages(result: Result) -> Iterator[Text | Table | str]:
    """Yields what each stage of training gave, a line for each."""
    lines = stage_rows(result)
    if not lines:
        return
    yield ""
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    made.add_column("Stage by stage", no_wrap=True)
    titles = ("MACs", "size", "p50", "vs fp32", names.shorten(names.metric(result), 14), "drop")
    for title in titles:
        made.add_column(title, justify="right", no_wrap=True)
    for row in lines:
        cells = (row.size, row.latency, row.ratio, row.metric, row.drop)
        made.add_row(f"  {row.added}", row.macs, *(cell.main for cell in cells))
    yield made


def _notes(result: Result, n: int = 3) -> Iterator[Text | Padding | str]:
    notes = [("Warnings", [names.printable(one) for one in result.warnings])]
    for title, skipped in (
        ("Passed over", result.passed_over),
        ("Left as it was in the chosen model", result.best.skipped),
    ):
        notes.append((title, [passed.short(2) for passed in by_reason(skipped)]))
    for title, lines in notes:
        if not lines:
            continue
        yield ""
        yield Text(title, style="bold yellow" if title == "Warnings" else "bold")
        for line in lines[:n]:
            yield Padding(Text(names.shorten(line, 240)), (0, 0, 0, 2))
        if len(lines) > n:
            more = figures.count(len(lines) - n, "other reason")
            more = f"and {len(lines) - n:,} more" if title == "Warnings" else f"and {more}"
            yield Padding(Text(f"{more}, in the report", style="dim"), (0, 0, 0, 2))
