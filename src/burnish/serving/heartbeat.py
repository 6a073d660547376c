# SPDX-License-Identifier: Apache-2.0
"""How late the event loop is: what blocks it shows here first."""

from __future__ import annotations

import asyncio
import time

from burnish.serving.counts import Histogram

_EVERY_S = 0.02


class Heartbeat:
    """A beat each 20 ms; `lag` counts by how much each came late."""

    def __init__(self) -> None:
        self.lag = Histogram()
        self.beat_s = time.monotonic()
        """When the last one was; another thread may read it."""

    async def run(self) -> None:
        """Beats until cancelled."""
        while True:
            due_s = time.perf_counter() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.lag.add(max(0.0, time.perf_counter() - due_s) * 1e3)
            self.beat_s = time.monotonic()
