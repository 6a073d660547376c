# SPDX-License-Identifier: Apache-2.0
"""One operating system thread for each engine stream.

A thread that has run a batch asks for its next one itself: were it told to by the event
loop, the stream would idle for as long as the loop is busy with the network.

Where answers have a time to keep, the threads give way (on Linux, where a thread has a
priority of its own): the loop needs a core for a moment only, to refuse or to answer, and
who waits for that moment behind whole runs of the engine hears of it too late.

And where there is a stream of one thread for every core, each keeps to its own: else the
system leaves a core idle now and then while two of them wait for another.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

Job = TypeVar("Job")

_GIVING_WAY = 10
"""What is added to the nice value, of -20 to 19: about a tenth of the loop's share."""


class Streams(Generic[Job]):
    """Threads that run jobs; `run(stream, job)` must not raise, and returns what is next there."""

    def __init__(
        self,
        name: str,
        n: int,
        run: Callable[[int, Job], Job | None],
        giving_way: bool = False,
        one_a_core: bool = False,
    ) -> None:
        """`one_a_core`: the streams' jobs use one thread each."""
        self._run, self._giving_way = run, giving_way
        self._cores = _usable_cores() if one_a_core else []
        if len(self._cores) != n:
            self._cores = []
        self._jobs: list[queue.SimpleQueue[Job | None]] = [queue.SimpleQueue() for _ in range(n)]
        self._threads = [
            threading.Thread(
                target=self._work, args=(stream,), name=f"{name}-{stream}", daemon=True
            )
            for stream in range(n)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, stream: int, job: Job) -> None:
        """Runs a job on an idle stream; at once."""
        self._jobs[stream].put(job)

    def close(self) -> None:
        """Ends the threads when they have run what they have."""
        for jobs in self._jobs:
            jobs.put(None)

    def join(self) -> None:
        """Waits until all threads have ended."""
        for thread in self._threads:
            thread.join()

    def _work(self, stream: int) -> None:
        self._settle(stream)
        jobs = self._jobs[stream]
        while (job := jobs.get()) is not None:
            following: Job | None = job
            while following is not None:
                following = self._run(stream, following)

    def _settle(self, stream: int) -> None:
        """Gives the thread that calls it its priority and its core, where the system lets it."""
        if sys.platform != "linux":
            return
        thread = threading.get_native_id()
        try:
            if self._giving_way:
                nice = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + _GIVING_WAY))
            if self._cores:
                os.sched_setaffinity(thread, {self._cores[stream]})
        except OSError as error:  # it runs as well, and is only slower
            _log.warning("not-placed stream=%d reason=%s", stream, error)


def _usable_cores() -> list[int]:
    """Returns the cores that this process may use, where the system tells and takes it."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
