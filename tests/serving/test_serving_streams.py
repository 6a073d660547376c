# SPDX-License-Identifier: Apache-2.0
"""Where the streams' threads run, and that they run what they are given."""

from __future__ import annotations

import os
import queue
import sys
import threading
from unittest.mock import patch

import pytest

from burnish.serving.streams import Streams


def cores_of(n: int, one_a_core: bool, giving_way: bool = False) -> list[set[int]]:
    """Returns the cores that each of `n` streams' threads may use."""
    seen: queue.SimpleQueue[tuple[int, set[int]]] = queue.SimpleQueue()

    def run(stream: int, job: str) -> None:
        seen.put((stream, os.sched_getaffinity(threading.get_native_id())))

    streams = Streams("test", n, run, giving_way, one_a_core)
    for stream in range(n):
        streams.put(stream, "job")
    streams.close()
    streams.join()
    return [cores for _, cores in sorted(seen.get_nowait() for _ in range(n))]


linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads are not placed")


@linux
def test_a_stream_for_every_core_keeps_to_its_own() -> None:
    usable = os.sched_getaffinity(0)
    assert cores_of(len(usable), True) == [{core} for core in sorted(usable)]
    assert os.sched_getaffinity(0) == usable


@linux
def test_more_or_fewer_streams_or_such_of_several_threads_run_anywhere() -> None:
    usable = os.sched_getaffinity(0)
    assert cores_of(len(usable) + 1, True) == [usable] * (len(usable) + 1)
    assert cores_of(len(usable), False) == [usable] * len(usable)


@linux
def test_where_the_system_does_not_let_it_jobs_run_all_the_same() -> None:
    usable = os.sched_getaffinity(0)
    with (
        patch.object(os, "setpriority", side_effect=PermissionError("no")),
        patch.object(os, "sched_setaffinity", side_effect=PermissionError("no")),
        patch("burnish.serving.streams._log.warning") as warned,
    ):
        assert cores_of(len(usable), True, giving_way=True) == [usable] * len(usable)
    assert warned.call_count == len(usable)


def test_what_a_run_returns_is_the_streams_next_job() -> None:
    ran: list[tuple[int, int]] = []

    def run(stream: int, job: int) -> int | None:
        ran.append((stream, job))
        return job - 1 if job else None

    streams: Streams[int] = Streams("test", 1, run)
    streams.put(0, 3)
    streams.put(0, 1)
    streams.close()
    streams.join()
    assert ran == [(0, 3), (0, 2), (0, 1), (0, 0), (0, 1), (0, 0)]
