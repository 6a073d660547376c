# SPDX-License-Identifier: Apache-2.0
"""Makes Ctrl-C end the work, at a safe place and for certain.

Python raises KeyboardInterrupt wherever it happens to be. In a destructor, or in a
callback from native code, the exception is lost and the work would go on; and OpenVINO,
when it comes while a model is read, corrupts its memory and crashes (seen in about one of
ten). So Ctrl-C is noted, and raised at the next report of progress, which is between two
steps; when none comes within two seconds, or at a second Ctrl-C, it is raised at once.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from burnish.core.progress import Progress

_GRACE_S = 2.0
_HAS_TIMER = hasattr(signal, "setitimer")  # Windows has none


@contextlib.contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Yields `progress`, which raises KeyboardInterrupt once Ctrl-C was pressed.

    Any error after that is the interrupt's, too: child processes get Ctrl-C as well, and
    die of it. Needs the main thread, as every signal handler does.
    """
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted or not _HAS_TIMER:
            raise KeyboardInterrupt
        interrupted = True
        signal.setitimer(signal.ITIMER_REAL, _GRACE_S)

    def report(work: str, done: int, total: int) -> None:
        if interrupted:
            raise KeyboardInterrupt
        progress(work, done, total)

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGALRM) if _HAS_TIMER else (signal.SIGINT,):
            stack.callback(signal.signal, number, signal.signal(number, handle))
        if _HAS_TIMER:
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
        try:
            yield report
        except Exception as error:
            if interrupted:
                raise KeyboardInterrupt from error
            raise
