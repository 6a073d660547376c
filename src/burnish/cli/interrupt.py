# SPDX-License-Identifier: Apache-2.0
"""Makes sure that Ctrl-C ends the work.

Python raises KeyboardInterrupt wherever it happens to be. Where that is a destructor or a
callback from native code, the exception is lost and the work would go on; so it is raised
again at the next report of progress.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from burnish.core.progress import Progress


@contextlib.contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Yields `progress`, which raises KeyboardInterrupt when an earlier one was lost.

    Needs the main thread, as every signal handler does.
    """
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def report(work: str, done: int, total: int) -> None:
        if interrupted:
            raise KeyboardInterrupt
        progress(work, done, total)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield report
    finally:
        signal.signal(signal.SIGINT, before)
