# SPDX-License-Identifier: Apache-2.0
"""PyTorch's settings of the whole process: held while sessions are open, then put back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Held:
    """One setting of the process, put back when the last session that holds it lets go."""

    def __init__(self, read: Callable[[Any], Any], write: Callable[[Any, Any], None]) -> None:
        self._read, self._write = read, write
        self._lock = threading.Lock()
        self._holders = 0
        self._before: Any = None

    def hold(self, torch: Any) -> None:
        """Notes the setting as it is, when this is the first that holds it."""
        with self._lock:
            if self._holders == 0:
                self._before = self._read(torch)
            self._holders += 1

    def release(self, torch: Any) -> None:
        """Puts the setting back, when this is the last that holds it."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._write(torch, self._before)


def use_threads(torch: Any, threads: int) -> None:
    """Makes PyTorch use this many threads in calls from the calling thread."""
    # Each session sets it before each run, since another may have changed it.
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _read_tf32(torch: Any) -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def use_tf32(torch: Any, allowed: tuple[bool, bool]) -> None:
    """Says whether CUDA may compute float32 with 10 bits of mantissa: convolutions, products."""
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed


THREADS = Held(lambda torch: torch.get_num_threads(), use_threads)
TF32 = Held(_read_tf32, use_tf32)
