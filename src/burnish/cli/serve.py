# SPDX-License-Identifier: Apache-2.0
"""`burnish serve`: bundles as a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnish.cli.failures import guarded
from burnish.cli.output import say

if TYPE_CHECKING:
    from burnish.serving.configuration import Configuration
    from burnish.serving.server import Listening

EPILOG = (
    "Example: [bold]burnish serve bundle/[/bold], then open http://127.0.0.1:8000/\n\n"
    "Speaks the Open Inference Protocol v2 over HTTP and gRPC (Triton's and KServe's clients "
    "work as they are), and takes images, CSV rows and text at /v1/models/NAME/predict. "
    "Requests are batched as they come, with no timer; what cannot be answered within "
    "[bold]--slo[/bold] is told so at once (429).\n\n"
    "SIGTERM drains and stops; SIGHUP reads [bold]--config[/bold] again and swaps what changed."
    "\n\nExit codes: 0 stopped when asked; 1 a fault in Burnish; 2 wrong use."
)


@guarded
def serve(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of bundles; NAME=FOLDER gives a name.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A TOML file that says all of it.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP; 0: any free one.")] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=-1, max=65535, help="gRPC; 0: any free one, -1: none.")
    ] = 8001,
    health_port: Annotated[
        int, typer.Option(min=-1, max=65535, help="Health on its own thread; -1: none.")
    ] = 8002,
    slo: Annotated[
        str | None,
        typer.Option(
            help="The latency to keep, as 50ms; what cannot keep it is refused at once.",
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="The largest batch.", show_default="as measured")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a stream.", show_default="as measured")
    ] = None,
    streams: Annotated[
        int | None, typer.Option(min=1, help="Batches at once.", show_default="as measured")
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="A file of bearer tokens, one a line.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS: the certificate.", show_default=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="TLS: its key.", show_default=False)] = None,
    max_body: Annotated[str, typer.Option(help="The largest request.")] = "64MiB",
    repository_control: Annotated[
        bool, typer.Option("--repository-control", help="Let clients load and unload.")
    ] = False,
    log_level: Annotated[
        str, typer.Option(help="debug, info (every request), warning or error.")
    ] = "warning",
) -> None:
    """Serve bundles over HTTP and gRPC, with dynamic batching."""
    import logging

    from burnish.core.errors import Misuse, unknown
    from burnish.serving.configuration import Configuration, read_configuration, read_tokens
    from burnish.serving.http.message import BodyLimits
    from burnish.serving.http.policy import Policy
    from burnish.serving.model_options import ModelOptions
    from burnish.serving.server import serve as run

    levels = ("debug", "info", "warning", "error")
    if log_level not in levels:
        raise unknown("log level", log_level, levels)
    logging.basicConfig(
        level=getattr(logging, log_level.upper()),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    if config is not None and bundles:
        raise Misuse("give bundles or --config, not both: name the bundles in the file")
    read_again = None
    if config is not None:
        file = config

        def read_again() -> Configuration:
            return read_configuration(file)

        given = read_again()
    else:
        from burnish.cli.quantities import milliseconds, n_bytes

        models = []
        for one in bundles or ():
            name, equals, folder = str(one).partition("=")
            models.append(
                ModelOptions(
                    Path(folder) if equals else one,
                    name if equals else "",
                    threads=threads,
                    streams=streams,
                    max_batch_size=max_batch,
                    slo_ms=milliseconds(slo) if slo is not None else None,
                )
            )
        given = Configuration(
            tuple(models),
            host=host,
            port=port,
            grpc_port=None if grpc_port < 0 else grpc_port,
            health_port=None if health_port < 0 else health_port,
            certificate=certificate,
            key=key,
            policy=Policy(
                BodyLimits(n_bytes(max_body)),
                tokens=read_tokens(tokens) if tokens is not None else (),
                repository_control=repository_control,
            ),
        )
    for warning in given.warnings:
        say(f"warning: {warning}")
    names = ", ".join(one.served_name for one in given.models)
    say(f"loading {names} ...")
    run(given, read_again, lambda where: _ready(given, where))
    say("stopped")


def _ready(configuration: Configuration, where: Listening) -> None:
    name = configuration.models[0].served_name
    say(f"ready at {where.url}")
    say(f"  live page   {where.url}/")
    say(f"  infer       POST {where.url}/v2/models/{name}/infer")
    say(f"  predict     POST {where.url}/v1/models/{name}/predict (an image, CSV rows, a text)")
    say(f"  all routes  {where.url}/docs")
    if where.grpc_port is not None:
        say(f"  gRPC        {configuration.host}:{where.grpc_port}")
    if where.health_port is not None:
        say(f"  health      http://{configuration.host}:{where.health_port}/v2/health/ready")
