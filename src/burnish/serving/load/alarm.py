# SPDX-License-Identifier: Apache-2.0
"""Wakes an event loop at a time on the monotonic clock, to within microseconds.

The loops' own timers come up to a millisecond late, which would be counted as the server's.
Linux has timers as files, which loops wait for exactly; elsewhere the loop's timer must do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # TFD_NONBLOCK | TFD_CLOEXEC are the same


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """Calls `ring` once after each `set`; a new time replaces the one before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd >= 0:
            self._setting = _Setting()
            self._where = ctypes.byref(self._setting)
            loop.add_reader(self._fd, self._expired)

    @property
    def exact(self) -> bool:
        """Whether it rings to within microseconds."""
        return self._fd >= 0

    def set(self, at_s: float) -> None:
        """Rings at `at_s` of `time.monotonic`, or at once when that is past."""
        if self._fd >= 0:
            seconds = int(at_s)
            value = self._setting.value
            value.seconds = seconds
            value.nanoseconds = max(1, int((at_s - seconds) * 1e9))  # all 0 would unset it
            self._libc.timerfd_settime(self._fd, _ABSOLUTE, self._where, None)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, at_s - time.monotonic()), self._ring)

    def close(self) -> None:
        """Ends it; it does not ring any more."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._handle is not None:
            self._handle.cancel()

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew in the meantime
            return
        self._ring()
