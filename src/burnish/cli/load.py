# SPDX-License-Identifier: Apache-2.0
"""`burnish load`: how a server answers under a load that is chosen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.failures import guarded
from burnish.cli.options import AsJson, Quiet, Seed
from burnish.cli.output import console, kept_for_json, print_json, say
from burnish.cli.progress_bar import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burnish.serving.load.payload import Payload, Sizes
    from burnish.serving.load.result import LoadResult
    from burnish.serving.load.schedule import Schedule
    from burnish.serving.load.slo import Slo

EPILOG = (
    "Example: [bold]burnish load http://127.0.0.1:8000 --rate 200 --slo p99=50ms[/bold]\n\n"
    "With [bold]--rate[/bold] requests are sent when they are due, whatever the server does, and "
    "latency counts from then: a server that stalls is charged for all who waited. Without it "
    "each connection sends again when it was answered, which finds the highest throughput. "
    "[bold]--sweep[/bold] raises the rate to the largest that keeps the SLO.\n\n"
    "Exit codes: 0 done, and the SLO kept; 1 a fault in Burnish; 2 wrong use; 3 the SLO is not "
    "kept; 130 interrupted."
)
_MISSED = 3
_SHOWN = ("p50", "p90", "p99", "p99.9")


@guarded
def load(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where the server is.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", help="Which model.", show_default="the only one")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=1e-3, help="Requests a second.", show_default="closed loop"),
    ] = None,
    burst: Annotated[int, typer.Option("--burst", min=1, help="Requests at once.")] = 1,
    constant: Annotated[
        bool, typer.Option("--constant", help="At equal distances, not as Poisson.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="Recorded arrivals, ms: CSV or .jsonl.", show_default=False),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Find the largest rate that keeps the SLO.")
    ] = False,
    slo: Annotated[
        str | None,
        typer.Option("--slo", help="What is to be kept, as p99=50ms.", show_default=False),
    ] = None,
    duration: Annotated[str, typer.Option("--duration", help="Of a run, or of a step.")] = "10s",
    connections: Annotated[int, typer.Option("--connections", "-c", min=1, help="At most.")] = 64,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Of the generator.")] = 1,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Samples in a request.")] = 1,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            help="The size of a dimension that varies, as ids:1=128 or, for all, ids=128.",
            show_default=False,
        ),
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option("--body", help="A file to send, not random values.", show_default=False),
    ] = None,
    header_length: Annotated[
        int | None,
        typer.Option("--header-length", help="Of --body: its JSON's length.", show_default=False),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="BURNISH_TOKEN", help="A bearer token.", show_default=False),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a server: latency under a load, throughput, the rate that it can keep."""
    from burnish.cli.quantities import milliseconds
    from burnish.core.errors import Misuse
    from burnish.serving.load.plan import LoadPlan
    from burnish.serving.load.run import run_load
    from burnish.serving.load.sweep import default_schedule, run_sweep

    wanted = _slo(slo)
    schedule = _schedule(rate, burst, constant, trace)
    if sweep and (rate is not None or trace is not None):
        raise Misuse("--sweep chooses the rate itself: leave --rate and --trace out")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with kept_for_json(as_json), progress_bar(quiet, context.obj) as progress:
        progress("asking the server about the model", 0, 0)
        payload = _payload(url, model, _sizes(rows, axis or []), body, header_length, seed, headers)
        plan = LoadPlan(
            url,
            payload,
            default_schedule() if sweep else schedule,
            duration_s=milliseconds(duration) / 1e3,
            connections=max(connections, processes),
            processes=processes,
            slo=wanted,
            seed=seed,
            headers=headers,
        )
        if sweep:
            swept = run_sweep(plan, progress=progress)
            results, document = [step.result for step in swept.steps], swept.to_dict()
            kept = swept.best is not None
        else:
            result = run_load(plan, progress)
            results, document = [result], result.to_dict()
            kept = wanted is None or result.keeps()
    if as_json:
        print_json(document)
    else:
        _show(results, wanted)
        if sweep and swept.best is not None:
            more = "" if swept.bracketed else " or more"
            say(f"{wanted} is kept up to {swept.best.per_s:.4g}{more} requests a second")
        elif not kept:
            say(f"{wanted} is NOT kept" + (" at any rate that was tried" if sweep else ""))
    if not kept:
        raise typer.Exit(_MISSED)


def _slo(text: str | None) -> Slo | None:
    from burnish.cli.quantities import milliseconds
    from burnish.serving.load.slo import Slo

    if text is None:
        return None
    name, equals, limit = text.partition("=")
    return Slo(name.strip(), milliseconds(limit)) if equals else Slo("p99", milliseconds(name))


def _schedule(rate: float | None, burst: int, constant: bool, trace: Path | None) -> Schedule:
    from burnish.core.errors import Misuse
    from burnish.serving.load.schedule import Bursts, ClosedLoop, Constant, Poisson
    from burnish.serving.load.trace_file import read_trace

    if trace is not None:
        if rate is not None:
            raise Misuse("a trace has its own rate: leave --rate out")
        return read_trace(trace)
    if rate is None:
        return ClosedLoop()
    if burst > 1:
        return Bursts(rate, burst)
    return Constant(rate) if constant else Poisson(rate)


def _sizes(rows: int, axes: Sequence[str]) -> Sizes:
    from burnish.core.errors import Misuse
    from burnish.serving.load.payload import Sizes

    found: dict[tuple[str, int | None], int] = {}
    for one in axes:
        name, equals, size = one.rpartition("=")
        name, colon, place = name.partition(":")
        if not (
            equals and name and size.isdigit() and int(size) and (place.isdigit() or not colon)
        ):
            raise Misuse(f"--axis is written as ids:1=128 or ids=128, got {one!r}")
        found[name, int(place) if colon else None] = int(size)
    return Sizes(rows, found)


def _payload(
    url: str,
    model: str | None,
    sizes: Sizes,
    body: Path | None,
    header_length: int | None,
    seed: int,
    headers: dict[str, str],
) -> Payload:
    from burnish.core.errors import Misuse
    from burnish.serving.load.ask import asked_payload, only_model
    from burnish.serving.load.payload import MOST_BYTES, given_payload

    if body is None:
        return asked_payload(url, model, sizes, seed, headers)
    try:
        if body.stat().st_size > MOST_BYTES:
            raise Misuse(f"{body} has more than {MOST_BYTES:,} bytes")
        content = body.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read --body {body}: {error.strerror}") from error
    return given_payload(model or only_model(url, headers), content, header_length)


def _show(results: Sequence[LoadResult], slo: Slo | None) -> None:
    from rich.table import Table

    from burnish.serving.load.slo import PERCENTILES

    table = Table()
    for title in ("offered /s", "answered /s", *(f"{name} ms" for name in _SHOWN)):
        table.add_column(title, justify="right")
    if slo is not None:
        table.add_column("in SLO /s", justify="right")
    table.add_column("not answered")
    for result in results:
        cells = [_number(result.offered_per_s), _number(result.achieved_per_s)]
        cells += [_number(result.percentile_ms(PERCENTILES[name])) for name in _SHOWN]
        if slo is not None:
            cells.append(_number(result.goodput_per_s))
        failed = ", ".join(f"{count} × {kind}" for kind, count in result.failures.items())
        table.add_row(*cells, failed or "–")
    console().print(table)
    last = results[-1]
    say(
        f"{last.schedule}, {last.model} at {last.url}: {last.request_bytes:,} bytes a request, "
        f"{last.connections} connections"
    )
    if any(result.generator_behind for result in results):
        say("the generator itself came late: give it cores of its own, or more --processes")


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:,.4g}"
