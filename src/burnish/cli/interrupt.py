# SPDX-License-Identifier: Apache-2.0
"""Makes Ctrl-C end the work between two steps, not inside an engine.

With a signal delivered to a thread that runs OpenVINO, about one Ctrl-C of ten ended in a
crash with damaged memory; and a KeyboardInterrupt that Python raises in a destructor is
lost. So a command holds the signal back from all its threads but one, which waits for it.
The work ends at its next report of progress; when none comes within two seconds, or at a
second Ctrl-C, at the next instruction of Python.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_GRACE_S = 2.0


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Yields a function that raises KeyboardInterrupt once Ctrl-C was pressed.

    To be entered before other threads start: those, and processes, started meanwhile do not
    take the signal. Where it cannot be held back (Windows), Ctrl-C stays as Python has it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield lambda: None
        return
    pressed, over, woken = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        signal.sigwait({signal.SIGINT})
        pressed.set()
        if not over.is_set():
            signal.sigtimedwait({signal.SIGINT}, _GRACE_S)
        while not over.is_set():
            _thread.interrupt_main()
            signal.sigwait({signal.SIGINT})
        woken.wait()  # only a thread that lives may be sent a signal

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    watcher = threading.Thread(target=watch, name="burnish-interrupt", daemon=True)
    watcher.start()
    try:
        yield check
    finally:
        over.set()
        signal.pthread_kill(watcher.ident or 0, signal.SIGINT)
        woken.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
