# SPDX-License-Identifier: Apache-2.0
"""The command `burnish`: its verbs, each in a file of its own.

What a verb needs is imported when it runs, so that help and completion answer at once.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from burnish import __version__
from burnish.cli import compare, doctor, list, load, measure, optimize, plan, serve, version

_HELP = (
    "Makes trained neural networks smaller and faster, and proves on this machine that they "
    "still do their job."
)
_EPILOG = (
    "Begin with [bold]burnish doctor[/bold], then "
    "[bold]burnish optimize net.onnx --task task.toml -o bundle/[/bold].\n\n"
    "Exit codes: 0 done, and the goal met; 1 a fault in Burnish; 2 wrong use; "
    "3 the goal is not met, or not shown; 130 interrupted."
)

app = typer.Typer(
    name="burnish",
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("optimize", epilog=optimize.EPILOG)(optimize.optimize)
app.command("measure", epilog=measure.EPILOG)(measure.measure)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("plan", epilog=plan.EPILOG)(plan.plan)
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("load", epilog=load.EPILOG)(load.load)
app.command("list", epilog=list.EPILOG)(list.list_all)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.command("version", epilog=version.EPILOG)(version.version)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"burnish {__version__}")
        raise typer.Exit


@app.callback()
def burnish(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in Burnish an error comes from.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command that was typed, and exits with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may lack a character
    app(prog_name="burnish")
