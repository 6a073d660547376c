# SPDX-License-Identifier: Apache-2.0
"""A generator as a process of its own, and how one talks to it.

Messages are bytes: JSON, the request as it is sent, times as float64. Nothing is unpickled.

    → order, request, times      connects
    ← {} or {"misuse": …}
    → {"start_s": …}             runs
    ← {"done": n} …, the part
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.core.errors import Broken, BurnishError, Misuse, Unsupported
from burnish.serving.load.generator import Tick, generate
from burnish.serving.load.plan import Order
from burnish.serving.load.result import Part

_SOON_S = 0.02
_EVERY_S = 0.1


def generate_here(order: Order, wire: bytes, times_s: Sequence[float], tick: Tick) -> Part:
    """Runs a generator in this thread, on an event loop of its own."""
    return _run(order, wire, times_s, lambda: time.monotonic() + _SOON_S, tick)


class Worker:
    """A process that runs one order after another, until it is closed."""

    def __init__(self) -> None:
        if os.name != "posix":
            raise Unsupported("several load processes need Linux or macOS: give --processes 1")
        self.pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, who end it
            )

    def prepare(self, order: Order, wire: bytes, times_s: npt.NDArray[np.float64]) -> None:
        """Hands it an order, and lets it connect."""
        try:
            self.pipe.send_bytes(json.dumps(order.to_dict()).encode())
            self.pipe.send_bytes(wire)
            self.pipe.send_bytes(times_s.astype("<f8").tobytes())
        except OSError as error:
            raise self._ended() from error

    def ready(self) -> None:
        """Waits until it is connected. Raises `Misuse` where it cannot."""
        misuse = self._receive().get("misuse")
        if misuse is not None:
            raise Misuse(misuse)

    def start(self, start_s: float) -> None:
        """Begins the run at a time on the monotonic clock, which all processes share."""
        self.pipe.send_bytes(json.dumps({"start_s": start_s}).encode())

    def heard(self) -> int | Part:
        """Returns its next message: how many requests are done, or at last the part."""
        said = self._receive()
        if "misuse" in said:
            raise Misuse(said["misuse"])
        return int(said["done"]) if "done" in said else Part.from_dict(said)

    def close(self) -> None:
        """Ends the process."""
        self.pipe.close()
        self._process.kill()
        self._process.wait()

    def _receive(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.pipe.recv_bytes()))
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> Broken:
        code = self._process.poll()
        return Broken(f"a load process ended before its work was done (exit code {code})")


def _run(
    order: Order, wire: bytes, times_s: Sequence[float], begin: Callable[[], float], tick: Tick
) -> Part:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(generate(order, wire, times_s, begin, tick))


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _work(pipe: Connection) -> None:
    while True:
        try:
            order = Order(**json.loads(pipe.recv_bytes()))
        except EOFError:
            return
        wire = pipe.recv_bytes()
        times_s = np.frombuffer(pipe.recv_bytes(), "<f8").tolist()
        last_s = 0.0

        def begin() -> float:
            pipe.send_bytes(b"{}")
            return float(json.loads(pipe.recv_bytes())["start_s"])

        def tick(done: int) -> None:
            nonlocal last_s
            if time.monotonic() - last_s >= _EVERY_S:
                last_s = time.monotonic()
                pipe.send_bytes(json.dumps({"done": done}).encode())

        try:
            said = _run(order, wire, times_s, begin, tick).to_dict()
        except BurnishError as error:
            said = {"misuse": str(error)}
        pipe.send_bytes(json.dumps(said).encode())


if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as theirs:
        _work(theirs)
