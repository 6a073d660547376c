# SPDX-License-Identifier: Apache-2.0
"""`burnish version`."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from burnish import __version__
from burnish.cli.failures import guarded
from burnish.cli.output import print_json, say

EPILOG = "Example: [bold]burnish version --json[/bold]\n\nExit codes: 0; 1 a fault in Burnish."


@guarded
def version(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the versions as one JSON document.")
    ] = False,
) -> None:
    """Print the version of Burnish, of Python and of the engines."""
    from burnish.measuring.machine import machine

    here = machine()
    engines = here.to_dict()["engines"]
    if as_json:
        print_json({"burnish": __version__, "python": platform.python_version()} | engines)
        return
    say(f"burnish {__version__}")
    say(here.python)
    for name, number in engines.items():
        say(f"{name} {number}")
