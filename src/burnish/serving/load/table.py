# SPDX-License-Identifier: Apache-2.0
"""A run or a sweep as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from burnish.serving.load.result import LoadResult
from burnish.serving.load.rows import run_rows, sweep_rows
from burnish.serving.load.sweep import SweepResult

if TYPE_CHECKING:
    from rich.table import Table


def load_table(measured: LoadResult | SweepResult) -> Table:
    """Returns the table of a run, or of a sweep with a line for each rate."""
    from rich.table import Table
    from rich.text import Text

    swept = isinstance(measured, SweepResult)
    heading, *rows = (
        sweep_rows(measured) if isinstance(measured, SweepResult) else run_rows(measured)
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for i, name in enumerate(heading.cells):
        left = i == (len(heading.cells) - 1 if swept else 0)
        table.add_column(Text(name), justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row.cells), style="bold" if row.best else None)
    return table
