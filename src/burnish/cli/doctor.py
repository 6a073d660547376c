# SPDX-License-Identifier: Apache-2.0
"""`burnish doctor`: what this machine is, what is installed, and whether it works."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli.failures import guarded
from burnish.cli.output import console, print_json, say, show_warnings
from burnish.cli.progress_bar import progress_bar
from burnish.core import catalogue
from burnish.core.errors import BurnishError, Missing

if TYPE_CHECKING:
    from burnish.cli.self_check import Check
    from burnish.measuring.machine import Machine

EPILOG = (
    "Example: [bold]burnish doctor[/bold]\n\n"
    "The self-check quantizes a small network and runs it on every installed engine, in about "
    "ten seconds; what its int8 gains here is a first hint, not a promise for another network.\n\n"
    "Exit codes: 0 everything works; 1 something is broken."
)


@guarded
def doctor(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON document.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Examine this machine and the engines on it, and check that they work."""
    from burnish.measuring.machine import machine

    show_warnings(quiet)
    here = machine()
    faults: list[str] = []
    store = _store(faults)
    engines = [_engine(name, faults) for name in catalogue.names("engines")]
    with progress_bar(quiet, context.obj) as progress:
        from burnish.cli.self_check import self_check

        checks: list[Check] = []
        try:
            for check in self_check(progress=progress):
                checks.append(check)
                if check.fault:
                    faults.append(f"{check.engine}: {check.fault}")
        except BurnishError as error:
            faults.append(f"the self-check: {error}")
    if as_json:
        print_json(
            {
                "machine": here.to_dict(),
                "int8": int8_here(here),
                "store": store,
                "engines": engines,
                "self_check": [asdict(one) for one in checks],
                "faults": faults,
            }
        )
    else:
        _show(here, store, engines, checks)
        say("")
        say("everything works" if not faults else "something is broken:")
        for fault in faults:
            say(f"  {fault}")
    raise typer.Exit(1 if faults else 0)


def int8_here(here: Machine) -> str:
    """Returns what int8 does on this CPU, in a sentence."""
    if here.int8_dot:
        return (
            "the CPU multiplies 8-bit integers and sums them in one instruction: "
            "weights take all 8 bits"
        )
    return (
        "the CPU has no 8-bit dot product: weights take 7 bits, so that 16-bit sums cannot "
        "overflow, and int8 may gain little"
    )


def _engine(name: str, faults: list[str]) -> dict[str, Any]:
    try:
        found = catalogue.find("engines", name)
    except (ImportError, AttributeError) as error:  # another package's entry point may be stale
        faults.append(f"the engine {name} cannot be loaded: {error}")
        return {"name": name, "version": None, "install": None}
    version = found.version()
    install = None if version else Missing(name, name, found.extra).command
    return {"name": name, "version": version, "install": install}


def _store(faults: list[str]) -> dict[str, Any]:
    from burnish.core.settings import settings
    from burnish.core.store import Store

    root = settings().store
    found: dict[str, Any] = {"path": str(root), "free_bytes": None}
    try:
        Store()
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"burnish")
        found["free_bytes"] = shutil.disk_usage(root).free
    except (BurnishError, OSError) as error:
        faults.append(f"the store {root} cannot be written: {error}")
    return found


def _show(
    here: Machine, store: dict[str, Any], engines: list[dict[str, Any]], checks: list[Check]
) -> None:
    from rich.table import Table
    from rich.text import Text

    from burnish.optimizing.report import figures

    facts = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    facts.add_column(style="bold", no_wrap=True)
    free = store["free_bytes"]
    lines = {
        "machine": here.fingerprint,
        "processor": f"{here.cpu_model} ({here.architecture}), "
        f"{figures.count(here.cores, 'usable core')}",
        "instructions": ", ".join(here.instruction_sets) or "none that matter here",
        "int8": int8_here(here),
        "memory": figures.quantity(here.memory_bytes, "bytes"),
        "GPU": ", ".join(here.gpus) or "none",
        "system": f"{here.os}, {here.python}",
        "store": f"{store['path']}"
        + (f", {figures.quantity(free, 'bytes')} free" if free is not None else ""),
    }
    for name, text in lines.items():
        facts.add_row(name, Text(text))
    for engine in engines:
        said = engine["version"] or f"not installed: {engine['install']}"
        facts.add_row(engine["name"], Text(str(said)))
    console().print(facts)
    say("")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("self-check", no_wrap=True)
    titles = ("fp32 p50", "int8 p50", "int8 gains", "fp32 error", "int8 error")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for one in checks:
        table.add_row(
            one.engine,
            figures.value(one.fp32_latency) if one.fp32_latency else figures.NOTHING,
            figures.value(one.int8_latency) if one.int8_latency else figures.NOTHING,
            figures.full(one.speedup) if one.speedup else figures.NOTHING,
            figures.NOTHING if one.fp32_error_ratio is None else f"{one.fp32_error_ratio:.1e}",
            figures.NOTHING if one.int8_error_ratio is None else f"{one.int8_error_ratio:.1e}",
        )
    console().print(table)
