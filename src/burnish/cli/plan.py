# SPDX-License-Identifier: Apache-2.0
"""`burnish plan`: threads, streams and the largest batch to serve a bundle with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.failures import guarded
from burnish.cli.options import AsJson, Quiet, Seed
from burnish.cli.output import command_line, console, kept_for_json, print_json, say, show_warnings
from burnish.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from burnish.serving.planning.planner import Planned
    from burnish.serving.planning.slo import Slo

NOT_KEPT = 3

EPILOG = (
    "Example: [bold]burnish plan bundle/ --slo p99=50ms --rate 200[/bold], then "
    "[bold]burnish serve bundle/[/bold]\n\n"
    "Measures calls of the bundle's model by threads, streams and batch size, simulates the "
    "server's own batcher with them, and writes the best as the bundle's serving plan. A "
    "request that is refused counts as one that missed the SLO. With [bold]--rate[/bold] the "
    "lowest latency at that traffic is sought, without it the most traffic that keeps the SLO. "
    "Batches are planned only where they pay. Let nothing else run on the machine meanwhile.\n\n"
    "Exit codes: 0 planned; 1 a fault in Burnish; 2 wrong use; 3 nothing keeps the SLO, and "
    "nothing was written; 130 interrupted."
)


@guarded
def plan(
    context: typer.Context,
    bundle: Annotated[
        Path,
        typer.Argument(
            help="A bundle's folder, as `burnish optimize … -o FOLDER` writes it.",
            show_default=False,
        ),
    ],
    slo: Annotated[
        str,
        typer.Option(
            "--slo",
            metavar="pN=TIME",
            help="The latency to keep, and by which share of the requests: p99=50ms, "
            "p99.9=0.1s; 50ms means p99.",
            show_default=False,
        ),
    ],
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            metavar="N",
            help="The requests a second to plan for; without it, as many as possible.",
            show_default=False,
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="NAME=SIZE",
            help="The size of a free axis besides the batch, as sequence=128; of several, as "
            "sequence=32,64,128, the largest is planned for. Repeatable.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="The time to take, about: 30s, 2min.")
    ] = "60 s",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing into the bundle.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find threads, streams and batches to serve a bundle with, and write them into it."""
    from burnish.cli.quantities import per_second
    from burnish.optimizing.budget import seconds
    from burnish.serving.planning.planner import plan as plan_bundle
    from burnish.serving.planning.writing import check_writable, write_plan

    wanted, asked_per_s = slo_of(slo), per_second(rate) if rate is not None else None
    axes, budget_s = axes_of(axis or ()), seconds(budget)
    show_warnings(quiet)
    if not dry_run:
        check_writable(bundle)
    with kept_for_json(as_json), progress_bar(quiet, context.obj) as progress:
        planned = plan_bundle(
            bundle,
            wanted,
            asked_per_s,
            axes=axes,
            budget_s=budget_s,
            seed=seed,
            progress=progress,
        )
    written = planned.chosen is not None and not dry_run
    if written:
        write_plan(bundle, planned)
    if as_json:
        from burnish.measuring.machine import machine

        here = machine().to_dict()
        print_json(
            {**planned.to_dict(), "written": written, "machine": here, "command": command_line()}
        )
    else:
        _show(planned, bundle, written)
    if planned.chosen is None:
        raise typer.Exit(NOT_KEPT)


def slo_of(text: str) -> Slo:
    """Returns an SLO as people write it; a time alone is for 99 % of the requests.

    >>> str(slo_of("p99.9=0.1s")), str(slo_of("50 ms"))
    ('p99.9 ≤ 100 ms', 'p99 ≤ 50 ms')

    Raises `Misuse` for anything else.
    """
    from burnish.cli.quantities import milliseconds
    from burnish.core.errors import Misuse
    from burnish.serving.planning.slo import Slo

    percentile, equals, time = text.partition("=")
    if not equals:
        return Slo(milliseconds(text))
    match = re.fullmatch(r"\s*p(\d{1,2}(?:\.\d+)?)\s*", percentile, re.ASCII | re.IGNORECASE)
    if not match:
        raise Misuse(f'expected an SLO as "p99=50ms" or "50ms", got {text!r}')
    return Slo(milliseconds(time), float(match[1]))


def axes_of(texts: Sequence[str]) -> dict[str, int]:
    """Returns the sizes of axes, the largest where several are given.

    >>> axes_of(["sequence=32,128", "width=7"])
    {'sequence': 128, 'width': 7}

    Raises `Misuse` for anything else.
    """
    from burnish.core.errors import Misuse

    axes: dict[str, int] = {}
    for text in texts:
        match = re.fullmatch(r"\s*([^=]+?)\s*=\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*", text, re.ASCII)
        sizes = [int(one) for one in match[2].split(",")] if match else [0]
        if not match or min(sizes) < 1:
            raise Misuse(f'expected the size of an axis as "sequence=128", got {text!r}')
        if match[1] in axes:
            raise Misuse(f"the axis {match[1]!r} is given twice")
        axes[match[1]] = max(sizes)
    return axes


def _show(planned: Planned, bundle: Path, written: bool) -> None:
    from burnish.cli.plan_table import plan_table, verdict
    from burnish.measuring.machine import machine

    here = machine()
    console().print(plan_table(planned))
    say("")
    say(verdict(planned))
    for setting, reason in planned.failed:
        say(f"not run: {setting}: {reason}")
    for note in planned.notes:
        say(note)
    say(f"{planned.engine}; {here.cpu_model}, {here.cores} cores ({here.fingerprint})")
    if written:
        say(f"written into {bundle / 'manifest.json'}; to serve by it: burnish serve {bundle}")
    else:
        say("nothing was written")
