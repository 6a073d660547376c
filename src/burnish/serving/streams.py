# SPDX-License-Identifier: Apache-2.0
"""One operating system thread for each engine stream.

A thread that has run a batch asks for its next one itself: were it told to by the event
loop, the stream would idle for as long as the loop is busy with the network.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Streams(Generic[Job]):
    """Threads that run jobs; `run(stream, job)` must not raise, and returns what is next there."""

    def __init__(self, name: str, n: int, run: Callable[[int, Job], Job | None]) -> None:
        self._run = run
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
        jobs = self._jobs[stream]
        while (job := jobs.get()) is not None:
            following: Job | None = job
            while following is not None:
                following = self._run(stream, following)
