# SPDX-License-Identifier: Apache-2.0
"""Makes Ctrl-C end the work between two steps, not inside an engine.

A signal that is delivered while a thread runs OpenVINO corrupts that thread's memory (seen:
about one Ctrl-C of ten ended in a crash); and a KeyboardInterrupt that Python raises in a
destructor is lost. So during the work no thread takes the signal but one, which waits for
it. The work ends at its next report of progress, or after two seconds, or a second Ctrl-C,
at the next instruction of Python.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator

from burnish.core.progress import Progress

_GRACE_S = 2.0


@contextlib.contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Yields `progress`, which raises KeyboardInterrupt once Ctrl-C was pressed.

    Threads and processes started meanwhile do not take the signal either. Where signals
    cannot be held back (Windows), Ctrl-C stays as Python has it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield progress
        return
    pressed, over, woken = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        signal.sigwait({signal.SIGINT})
        while not over.is_set():
            if pressed.is_set():
                _thread.interrupt_main()
            pressed.set()
            signal.sigtimedwait({signal.SIGINT}, _GRACE_S)
        woken.wait()  # only a thread that lives may be sent a signal

    def report(work: str, done: int, total: int) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        progress(work, done, total)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    watcher = threading.Thread(target=watch, name="burnish-interrupt", daemon=True)
    watcher.start()
    try:
        yield report
    finally:
        over.set()
        signal.pthread_kill(watcher.ident or 0, signal.SIGINT)
        woken.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
