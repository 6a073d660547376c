# SPDX-License-Identifier: Apache-2.0
"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnish.cli.engine_argument import complete_engine

TaskFile = Annotated[
    Path | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TOML",
        help="The task's TOML file: data, preprocessing and metric.",
    ),
]
Latency = Annotated[
    str, typer.Option("--budget", metavar="TIME", help="The time for latency, about: 30s, 2min.")
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="An engine to use instead of those raced by default, as openvino or "
        "torch:compiled; repeatable.",
        autocompletion=complete_engine,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="The threads that one request gets, for the original as for the rest; without "
        "it, 1 up to all cores are tried.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=2**32 - 1, metavar="N", help="The only source of randomness."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
