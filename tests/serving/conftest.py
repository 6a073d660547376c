# SPDX-License-Identifier: Apache-2.0
"""The server that the tests of the protocol share, a connection to it, and the command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_http import Wire, wire
from serving_process import Process
from shelf import Shelf, shelf


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with shelf() as one:
        yield one


@pytest.fixture
def line(served: Shelf) -> Iterator[Wire]:
    with wire(served.port) as one:
        yield one


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(*args: object) -> Process:
        started.append(Process(tmp_path, *args))
        return started[-1]

    yield begin
    for one in started:
        if one.run.poll() is None:
            one.run.kill()
        one.run.communicate(timeout=30)
