# SPDX-License-Identifier: Apache-2.0
"""The table of models that were measured as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from burnish.core.candidate import Candidate
from burnish.core.measurement import Measurement
from burnish.optimizing.report import figures, names

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2
_NAME = 24
# A quantity, its title, and how soon a narrow terminal loses it (0: never).
_COLUMNS = (
    ("size", "size", 0),
    ("latency", "p50\n[95 %]", 0),
    ("speedup", "vs first\n[95 %]", 0),
    ("throughput", "samples/s", 2),
    ("load", "load", 4),
    ("memory", "peak\nmemory", 3),
    ("metric", "{metric}\n[95 %]", 0),
    ("drop", "drop\n[95 %]", 0),
    ("agreement", "agrees\nwith first", 1),
)


def candidate_table(candidates: Sequence[Candidate], metric: str, width: int) -> Table:
    """Returns the table, two lines a candidate; a narrow one loses its last concerns first.

    `metric` names the task's metric.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    columns: list[tuple[int, list[str]]] = []
    for quantity, title, first_to_go in _COLUMNS:
        measured = [one.measured.get(quantity) for one in candidates]
        if any(measured):
            heading = title.format(metric=names.shorten(metric, 14))
            columns.append((first_to_go, [heading, *map(_cell, measured)]))

    def used(cells: list[str]) -> int:
        return _GAP + max(cell_len(line) for cell in cells for line in cell.split("\n"))

    named = [(names.printable(one.name), names.setting(one)) for one in candidates]
    longest = max((cell_len(line) for lines in named for line in lines), default=0)
    least = min(longest, _NAME) + _GAP
    while least + sum(used(cells) for _, cells in columns) > width:
        going = max(columns, key=lambda column: column[0])
        if not going[0]:
            break
        columns.remove(going)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for _, (heading, *_rest) in columns:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    room = max(width - _GAP - sum(used(cells) for _, cells in columns), 10)
    for i, (first, second) in enumerate(named):
        name = Text(names.shorten(first, room), style="bold")
        name.append(f"\n{names.shorten(second, room)}", style="not bold dim")
        table.add_row(name, *(Text(cells[i + 1]) for _, cells in columns))
    return table


def _cell(one: Measurement | None) -> str:
    if one is None:
        return figures.NOTHING
    shown = figures.drop(one) if one.quantity == "drop" else one
    return f"{figures.value(shown)}\n{figures.interval(shown)}"


def renamed(candidate: Candidate, name: str) -> Candidate:
    """Returns the candidate under another name."""
    return replace(candidate, name=name)


def open_points(candidates: Sequence[Candidate], say: Callable[[str], None]) -> None:
    """Says what one should know before trusting the figures."""
    noisy = [one for one in candidates if float(one.detail.get("noise_ratio") or 0) > 0.1]
    for one in noisy:
        share = 100 * float(one.detail["noise_ratio"])
        say(
            f"{one.name} on {names.setting(one)}: its latency varied by {share:.0f} % between "
            "rounds; something else may run on this machine"
        )
