# SPDX-License-Identifier: Apache-2.0
"""A server as a process: started, waited for, and stopped with all that it started.

Every process gets a mark of its own in its environment, which its children inherit, so that
what is stopped is what was started here, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

HOST = "127.0.0.1"
_MARK = "SERVING_BENCH_MARK"
_END_S, _POLL_S = 20.0, 0.1
_TAIL_LINES = 4
_TOLD_TO_END = 128 + signal.SIGTERM


class NotUp(Exception):
    """The server ended, or did not answer in time."""


def free_ports(n: int) -> list[int]:
    """Returns ports of 127.0.0.1 on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def work_folder() -> tempfile.TemporaryDirectory[str]:
    """Returns a temporary folder with a short name: sockets inside it have at most 107 letters."""
    return tempfile.TemporaryDirectory(prefix="sb", ignore_cleanup_errors=True)


@contextlib.contextmanager
def running(
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    answers: Callable[[], bool],
    up_s: float,
) -> Iterator[None]:
    """Runs a server while the block runs, once `answers` says that it answers as it should.

    Raises `NotUp` when it does not within `up_s`. Called on the main thread: where this process
    is told to end (SIGTERM), the server ends with it.
    """
    mark = uuid.uuid4().hex
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TOLD_TO_END))
    try:
        until_s = time.monotonic() + up_s
        while not answers():
            if process.poll() is not None:
                raise NotUp(f"ended with {process.returncode}: {_tail(log)}")
            if time.monotonic() > until_s:
                raise NotUp(f"did not answer within {up_s:g} s: {_tail(log)}")
            time.sleep(_POLL_S)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _stop(process, mark)


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    started = _marked(mark)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    # What it left behind, and what was started meanwhile.
    left = {one.pid: one for one in [*started, *_marked(mark)] if one.is_running()}
    for end in ("terminate", "kill"):
        for one in left.values():
            with contextlib.suppress(psutil.Error):
                getattr(one, end)()
        _, alive = psutil.wait_procs(list(left.values()), timeout=3)
        left = {one.pid: one for one in alive}
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(_MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return " / ".join(line.strip()[:200] for line in lines[-_TAIL_LINES:]) or "it said nothing"
