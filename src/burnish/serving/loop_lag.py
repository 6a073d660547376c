# SPDX-License-Identifier: Apache-2.0
"""How long what is done waits for the event loop, and what of a request's time that takes."""

from __future__ import annotations

from collections import deque

_KEPT = 64
_SETTLE = 8
_SHARE = 0.9
_PASSES = 2.0
"""A request waits for the loop on its way in as well as on its way out."""


class LoopLag:
    """Learns from the delays between a batch's end and the loop's hearing of it."""

    def __init__(self) -> None:
        self._recent_ms: deque[float] = deque(maxlen=_KEPT)
        self._since = 0
        self.reserve_ms = 0.0
        """What to take off a request's time; 0 before anything was seen."""

    def add(self, ms: float) -> None:
        """Learns one delay.

        >>> lag = LoopLag()
        >>> for _ in range(64): lag.add(1.5)
        >>> lag.reserve_ms
        3.0
        """
        self._recent_ms.append(ms)
        self._since += 1
        if self._since >= _SETTLE:
            self._since = 0
            ordered = sorted(self._recent_ms)
            self.reserve_ms = _PASSES * ordered[int(_SHARE * (len(ordered) - 1))]
