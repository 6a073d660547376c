# SPDX-License-Identifier: Apache-2.0
"""How far the work has come, on standard error: a bar on a terminal, else a line at times.

Nothing is drawn in the background: a thread that redraws would take time from what is
being measured. So the bar moves, and its clock too, when the work reports.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from burnish.cli.output import console, say
from burnish.core.progress import Progress, silent

_REDRAW_S = 0.1
_NEW_STAGE_S = 5.0
_SAME_STAGE_S = 30.0


@contextlib.contextmanager
def progress_bar(quiet: bool, check: Callable[[], None]) -> Iterator[Progress]:
    """Yields the function to report to; what it drew is gone afterwards.

    Each report first calls `check`, which may raise to end the work.
    """
    with contextlib.ExitStack() as stack:
        progress: Progress = silent
        if not quiet and console(stderr=True).is_terminal:
            progress = stack.enter_context(_bar())
        elif not quiet:
            progress = Lines(lambda line: say(line, stderr=True))

        def report(work: str, done: int, total: int) -> None:
            check()
            progress(work, done, total)

        yield report


class Lines:
    """Reports as plain lines: a new stage at most every 5 s, a long one every 30 s.

    What takes less than 5 s in all says nothing.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._start = self._last = clock()
        self._stage = ""

    def __call__(self, work: str, done: int, total: int) -> None:
        now = self._clock()
        due = _SAME_STAGE_S if work == self._stage else _NEW_STAGE_S
        if now - self._last < due:
            return
        self._stage, self._last = work, now
        of = f" {done}/{total}" if total else ""
        self._write(f"burnish: {now - self._start:.0f} s: {work}{of}")


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    from burnish.optimizing.report.names import printable, shorten

    with Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        console=console(stderr=True),
        auto_refresh=False,
        transient=True,
    ) as drawn:
        task = drawn.add_task("starting", total=None)
        drawn.refresh()
        last_s = time.monotonic()
        stage = ""

        def report(work: str, done: int, total: int) -> None:
            nonlocal last_s, stage
            if work == stage and time.monotonic() - last_s < _REDRAW_S:
                return
            stage = work
            drawn.update(
                task,
                description=shorten(printable(work), 48),
                completed=min(done, total) if total else 0,
            )
            drawn.tasks[0].total = total or None  # update() cannot take a total back
            drawn.refresh()
            last_s = time.monotonic()

        yield report
