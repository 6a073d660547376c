# SPDX-License-Identifier: Apache-2.0
"""Where a command writes: figures to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 120


def console(stderr: bool = False) -> Console:
    """Returns a console; tables that go to a file or a pipe are 120 columns wide."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _PIPED_WIDTH
    return made


def say(text: str, stderr: bool = False) -> None:
    """Prints a line as it is, safe for a terminal."""
    from burnish.optimizing.report.names import printable

    typer.echo(printable(text, newline=True), err=stderr)


def print_json(data: Any) -> None:
    """Prints one JSON document; numbers that JSON has no word for become null."""
    typer.echo(json.dumps(_finite(data), indent=2, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


@contextlib.contextmanager
def kept_for_json(as_json: bool) -> Iterator[None]:
    """Sends what a user's own functions print to standard error, so that JSON stays alone."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def show_warnings(quiet: bool = False) -> None:
    """Sends Burnish's log to standard error: warnings, or errors only."""
    from rich.logging import RichHandler

    log = logging.getLogger("burnish")
    log.setLevel(logging.ERROR if quiet else logging.WARNING)
    shown = console(stderr=True)
    log.handlers = [RichHandler(console=shown, show_time=False, show_path=False, markup=False)]


def command_line(*more: str) -> str:
    """Returns the command that is running as one would type it, `more` put first."""
    return shlex.join(["burnish", *more, *sys.argv[1:]])
