# SPDX-License-Identifier: Apache-2.0
"""`burnish load`: traffic for a model server, and how well it takes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.failures import guarded
from burnish.cli.options import AsJson, Quiet, Seed
from burnish.cli.output import command_line, console, print_json, say, show_warnings
from burnish.cli.progress_bar import progress_bar
from burnish.cli.quantities import latency, per_second
from burnish.core.errors import Misuse
from burnish.core.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from burnish.core.progress import Progress
    from burnish.serving.load.payload import Payload, Sizes
    from burnish.serving.load.plan import LoadPlan
    from burnish.serving.load.result import LoadResult
    from burnish.serving.load.schedule import Schedule
    from burnish.serving.load.slo import Slo
    from burnish.serving.load.sweep import SweepResult

EPILOG = (
    "Example: [bold]burnish load http://127.0.0.1:8000 --rate 200 --slo p99=50ms[/bold]\n\n"
    "To the largest rate that keeps the SLO: "
    "[bold]burnish load http://127.0.0.1:8000 --sweep --slo p99=50ms -o load.html[/bold]\n\n"
    "Latency counts from when a request was due, so that a server which stalls is charged for "
    "all who waited meanwhile. A closed loop cannot see that: use it for throughput.\n\n"
    "Exit codes: 0 measured, and the SLO kept where one is given; 1 a fault in Burnish; "
    "2 wrong use; 3 the SLO not kept, or nothing answered; 130 interrupted."
)
_GOAL_NOT_MET = 3
_QUOTED = "'\"'\"'"  # how shlex writes a quote within quotes
_AXIS = re.compile(r"(?P<name>.+?)(?::(?P<dim>\d{1,2}))?=(?P<size>\d{1,12})")


class Kind(StrEnum):
    """The schedules that have a rate, and the one that has none."""

    POISSON = "poisson"
    CONSTANT = "constant"
    BURSTS = "bursts"
    CLOSED = "closed"


@guarded
def load(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Argument(
            help="Where the server listens, as http://127.0.0.1:8000, or https; it must speak the "
            "Open Inference Protocol v2.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="The model; not needed where there is only one."
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            "-r",
            metavar="N/s",
            help="Requests per second; a sweep starts there, by default at half of what one "
            "connection gets through.",
        ),
    ] = None,
    schedule: Annotated[
        Kind,
        typer.Option(
            "--schedule",
            help="How requests come: poisson as from many users, constant at equal distances, "
            "bursts of --burst at once, closed where each connection waits for its answer.",
        ),
    ] = Kind.POISSON,
    burst: Annotated[
        int, typer.Option("--burst", min=1, metavar="N", help="The requests of one burst.")
    ] = 8,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Arrivals to replay instead, in ms: CSV with a column at_ms, or JSON lines.",
        ),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep", help="Find the largest rate that keeps the SLO with under 1 % failures."
        ),
    ] = False,
    slo: Annotated[
        str | None,
        typer.Option(
            "--slo",
            metavar="pN=TIME",
            help="The limit to keep, as p99=50ms; p50, p90, p95, p99 (if none is named) or p99.9.",
        ),
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            "--duration", "-d", metavar="TIME", help="How long to count, for each rate of a sweep."
        ),
    ] = "10 s",
    warmup: Annotated[
        str,
        typer.Option(
            "--warmup", metavar="TIME", help="The same traffic before it, uncounted; 0 for none."
        ),
    ] = "1 s",
    requests: Annotated[
        int | None,
        typer.Option("--requests", "-n", min=1, metavar="N", help="End after so many at most."),
    ] = None,
    connections: Annotated[
        int,
        typer.Option(
            "--connections",
            "-c",
            min=1,
            metavar="N",
            help="The most at a time, of all processes; in a closed loop just so many.",
        ),
    ] = 64,
    processes: Annotated[
        int,
        typer.Option(
            "--processes", min=1, metavar="N", help="Processes to send from; one does thousands/s."
        ),
    ] = 1,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="When a request is given up.")
    ] = "10 s",
    rows: Annotated[
        int, typer.Option("--rows", min=1, metavar="N", help="The samples in each request.")
    ] = 1,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            metavar="INPUT[:DIM]=SIZE",
            help="The size of a dimension that varies, as ids:1=128; without :DIM of all but "
            "the first; repeatable.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="INPUT=N,N,…",
            help="An input's whole shape, as image=1,3,224,224; repeatable.",
        ),
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option(
            "--body", metavar="FILE", help="Send this body instead of random values in every one."
        ),
    ] = None,
    header_length: Annotated[
        int | None,
        typer.Option(
            "--header-length",
            min=0,
            metavar="N",
            help="The bytes of the JSON at the start of --body, where binary tensors follow it.",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            "-H",
            metavar="'NAME: VALUE'",
            help="A header to send with every request; repeatable.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            help="A bearer token to send; better in BURNISH_TOKEN, where no one sees it.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="TLS: the certificates to trust, for a server that signed its own.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write an HTML page with a chart."),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Load a model server with traffic, and measure latency, throughput and failures."""
    from burnish.serving.load.plan import LoadPlan
    from burnish.serving.load.run import run_load

    show_warnings(quiet)
    kept = _slo(slo) if slo is not None else None
    if sweep and kept is None:
        raise Misuse('a sweep needs the limit to keep: give --slo, as "--slo p99=50ms"')
    traffic = _schedule(schedule, rate, burst, trace, sweep)
    if output is not None and not output.parent.is_dir():
        raise Misuse(f"--output: there is no folder {output.parent}")
    headers = dict(map(_header, header or ()))
    token = token or settings().token
    if token:
        headers["Authorization"] = f"Bearer {token}"
    sizes = _sizes(rows, axis or (), shape or ())
    plan = LoadPlan(
        url,
        _payload(url, model, sizes, body, header_length, seed, headers, certificate),
        traffic,
        duration_s=_seconds(duration),
        warmup_s=_seconds(warmup),
        requests=requests,
        connections=max(connections, processes),
        processes=processes,
        timeout_s=_seconds(timeout),
        slo=kept,
        seed=seed,
        headers=headers,
        certificate=certificate,
    )
    measured: LoadResult | SweepResult
    with progress_bar(quiet, context.obj) as progress:
        measured = _swept(plan, rate, progress) if sweep else run_load(plan, progress)
    _show(measured, output, as_json, _without([token or "", *map(_secret, header or ())]))


def _swept(plan: LoadPlan, rate: str | None, progress: Progress) -> SweepResult:
    from burnish.serving.load.knee import Search
    from burnish.serving.load.sweep import run_sweep

    search = Search(per_second(rate)) if rate is not None else None
    return run_sweep(plan, search, progress)


def _show(
    measured: LoadResult | SweepResult, output: Path | None, as_json: bool, command: str
) -> None:
    """Prints what was measured, writes the page, and exits with 3 where it is not as wanted."""
    from burnish.serving.load.page import page
    from burnish.serving.load.rows import doubts, facts, verdict
    from burnish.serving.load.sweep import SweepResult
    from burnish.serving.load.table import load_table

    created = datetime.now(UTC).isoformat(timespec="seconds")
    if output is not None:
        output.write_text(page(measured, command, created), encoding="utf-8")
    if isinstance(measured, SweepResult):
        result = (measured.best or measured.steps[-1]).result
        good = measured.best is not None
    else:
        result = measured
        good = bool(result.ok) and (result.slo is None or result.keeps())
    if as_json:
        print_json({**measured.to_dict(), "command": command, "created": created})
    else:
        console().print(load_table(measured))
        say("")
        say(verdict(measured))
        told = ("Schedule", "Requests", "Request", "Failures", "Generator")
        say("; ".join(f"{term.lower()}: {text}" for term, text in facts(result) if term in told))
        for doubt in doubts(result):
            say(doubt)
        if output is not None:
            say(f"written: {output}")
    if not good:
        raise typer.Exit(_GOAL_NOT_MET)


def _schedule(
    kind: Kind, rate: str | None, burst: int, trace: Path | None, sweep: bool
) -> Schedule:
    from burnish.serving.load.schedule import Bursts, ClosedLoop, Constant, Poisson
    from burnish.serving.load.trace_file import read_trace

    if sweep and (trace is not None or kind is Kind.CLOSED):
        raise Misuse("a sweep raises the rate: a trace or a closed loop has none")
    if trace is not None or kind is Kind.CLOSED:
        if rate is not None:
            raise Misuse("--rate is for poisson, constant and bursts: leave it out")
        return ClosedLoop() if trace is None else read_trace(trace)
    if rate is None and not sweep:
        raise Misuse("how many requests per second? Give --rate 100, --sweep or --schedule closed")
    per_s = per_second(rate) if rate is not None else 1.0
    if kind is Kind.BURSTS:
        return Bursts(per_s, burst)
    return Poisson(per_s) if kind is Kind.POISSON else Constant(per_s)


def _payload(
    url: str,
    model: str | None,
    sizes: Sizes,
    body: Path | None,
    header_length: int | None,
    seed: int,
    headers: dict[str, str],
    certificate: Path | None,
) -> Payload:
    from burnish.serving.load.ask import asked_payload, only_model
    from burnish.serving.load.payload import MOST_BYTES, given_payload

    if body is None:
        if header_length is not None:
            raise Misuse("--header-length says how --body is laid out: give --body, too")
        return asked_payload(url, model, sizes, seed, headers, certificate)
    try:
        if body.stat().st_size > MOST_BYTES:
            raise Misuse(f"--body: {body} has more than {MOST_BYTES:,} bytes")
        content = body.read_bytes()
    except OSError as error:
        raise Misuse(f"--body: {body} cannot be read: {error.strerror}") from error
    name = only_model(url, headers, certificate) if model is None else model
    return given_payload(name, content, header_length)


def _sizes(rows: int, axes: Sequence[str], shapes: Sequence[str]) -> Sizes:
    from burnish.serving.load.payload import Sizes

    sizes: dict[tuple[str, int | None], int] = {}
    for text in axes:
        match = _AXIS.fullmatch(text)
        if not match:
            raise Misuse(f"--axis is written INPUT=SIZE or INPUT:DIM=SIZE, got {text!r}")
        dim = match["dim"]
        sizes[match["name"], None if dim is None else int(dim)] = int(match["size"])
    given = {}
    for text in shapes:
        name, equals, numbers = text.rpartition("=")
        parts = numbers.split(",") if numbers else []
        if not equals or not name or not all(re.fullmatch(r"\d{1,12}", one) for one in parts):
            raise Misuse(f"--shape is written INPUT=1,3,224,224, got {text!r}")
        given[name] = tuple(map(int, parts))
    return Sizes(rows, sizes, given)


def _slo(text: str) -> Slo:
    from burnish.serving.load.slo import Slo

    name, equals, limit = text.partition("=")
    if not equals:
        name, limit = "p99", text
    found = latency(limit)
    if "max_latency_ms" not in found:
        raise Misuse(f'an SLO is written as "p99=50ms", got {text!r}')
    return Slo(name.strip(), found["max_latency_ms"])


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Misuse(f"a header is written as 'NAME: VALUE', got {text!r}")
    return name.strip(), value.strip()


def _secret(header: str) -> str:
    return _header(header)[1]


def _without(secrets: Sequence[str]) -> str:
    """Returns the command as it was typed, for others to see: without what is secret."""
    command = command_line()
    for secret in filter(None, secrets):
        command = command.replace(secret.replace("'", _QUOTED), "…").replace(secret, "…")
    return command


def _seconds(text: str) -> float:
    """Returns a time as seconds: "10 s", "500ms", "2 min"; "0" is none."""
    from burnish.optimizing.budget import seconds

    if text.strip() == "0":
        return 0.0
    if text.strip().lower().endswith("ms"):
        return latency(text)["max_latency_ms"] / 1e3
    return seconds(text)
