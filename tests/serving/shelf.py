# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server in a thread over models in memory, whose sessions a test can hold."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from grpc_running import ELEMENTS, doubled, identity
from running_server import Running, running
from small_models import convolutional, two_inputs

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.engine import Session
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.serving.admission import Limits
from burnish.serving.batching import Batching
from burnish.serving.model_options import ModelOptions
from burnish.serving.rows import Rows
from burnish.serving.served_model import ServedModel

LABELS = ("cat", "dog", "owl")


class Gate(Session):
    """A session whose runs wait while `open` is not set."""

    def __init__(self, inner: Session) -> None:
        self.signature, self.setting, self.engine = inner.signature, inner.setting, inner.engine
        self.open, self.began, self.runs = threading.Event(), threading.Event(), 0
        self.open.set()
        self._inner = inner

    def execute(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.runs += 1
        self.began.set()
        assert self.open.wait(30)
        return self._inner.execute(inputs)

    def hold(self) -> None:
        """Lets the next run wait."""
        self.began.clear()
        self.open.clear()


def usual() -> dict[str, Model]:
    """Returns models by "name:version", one for each datatype among them."""
    passing = {f"{datatype.lower()}:1": identity(datatype) for datatype in ELEMENTS}
    return {
        "net:1": convolutional(),
        "pair:1": two_inputs(),
        "double:1": doubled(),
        "double:10": doubled(),
        "double:9": doubled(),
        **passing,
    }


class Shelf:
    """The server, and the sessions that it runs by name."""

    def __init__(self, server: Running, sessions: dict[str, Gate]) -> None:
        self.server, self.sessions = server, sessions
        self.port = server.where.port

    def served(self, name: str) -> ServedModel:
        return self.server.server._repository.find(name)

    def connections(self) -> int:
        """Returns how many connections of the port are held by this process's server."""
        return sum(
            one.status != psutil.CONN_LISTEN and one.laddr.port == self.port
            for one in psutil.Process().net_connections("tcp")
            if one.fd != -1
        )


@contextmanager
def shelf(
    models: Mapping[str, Model] | None = None,
    table: Sequence[tuple[int, float]] = ((1, 1.0), (4096, 2.0)),
    queue: int = 1024,
    slo_ms: float = math.inf,
    max_batch_size: int = 4096,
    wrap: Callable[[Session], Session] = lambda session: session,
    **settings: Any,
) -> Iterator[Shelf]:
    """Serves models, by "name:version", while the block runs."""
    models = models or usual()
    sessions: dict[str, Gate] = {}

    async def open_(one: ModelOptions) -> ServedModel:
        model = models[f"{one.name}:{one.version}"]
        session = Gate(wrap(OnnxRuntime().open(model, Setting(threads=1, streams=1))))
        sessions[one.name] = session
        batching = Batching(streams=1, slo_ms=slo_ms, limits=Limits(queue))
        rows, labels = Rows(session.signature), LABELS if one.name == "double" else ()
        return ServedModel(
            one.name, one.version, session, rows, batching, list(table), max_batch_size, labels
        )

    options = [
        ModelOptions(Path(), name, version)
        for name, _, version in (key.partition(":") for key in models)
    ]
    with patch("burnish.serving.server.serve_bundle", open_), running(*options, **settings) as it:
        yield Shelf(it, sessions)


X = np.array([[1.0, 5.0, 3.0]], np.float32)
"""An input of `double`, which answers scores = 2 x and most, where x is largest."""
