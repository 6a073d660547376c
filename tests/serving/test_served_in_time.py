# SPDX-License-Identifier: Apache-2.0
"""What a time to keep changes: the threads give way, and the loop's own delay is counted."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time

import pytest
from serving_models import eventually, images, served

from burnish.serving.loop_lag import LoopLag
from burnish.serving.refusals import Refused


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of theirs")
@pytest.mark.parametrize(("slo_ms", "more"), [(math.inf, 0), (10_000.0, 10)])
def test_the_engines_threads_give_way_where_there_is_a_time_to_keep(
    slo_ms: float, more: int
) -> None:
    async def run() -> None:
        model, _ = served(streams=2, slo_ms=slo_ms, name="giving")
        await model.submit(images(1))
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        threads = [one for one in threading.enumerate() if one.name.startswith("giving-1-")]
        assert len(threads) == 2
        await eventually(
            lambda: (
                {os.getpriority(os.PRIO_PROCESS, one.native_id) for one in threads}
                == {min(19, own + more)}
            )
        )
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
        await model.retire()

    asyncio.run(run())


def test_the_reserve_follows_what_is_seen_of_the_loop() -> None:
    lag = LoopLag()
    assert lag.reserve_ms == 0.0
    for _ in range(64):
        lag.add(1.0)
    assert lag.reserve_ms == 2.0
    for _ in range(12):  # more than a tenth of those kept
        lag.add(30.0)
    assert lag.reserve_ms == 60.0
    for _ in range(64):
        lag.add(0.5)
    assert lag.reserve_ms == 1.0


@pytest.mark.parametrize(("lag_ms", "in_time"), [(0.0, True), (5.0, True), (45.0, False)])
def test_where_others_wait_the_loops_delay_is_taken_off_a_requests_time(
    lag_ms: float, in_time: bool
) -> None:
    """Three of 40 ms each, of 150: the third is in time, unless the loop needs some too."""

    async def run() -> None:
        model, session = served(slo_ms=150.0, max_batch_size=1, table=[(1, 40.0)])
        model._batcher.reserve_ms = lag_ms
        session.gate.clear()
        asked = [model.submit(images(1)), model.submit(images(1))]
        if in_time:
            asked.append(model.submit(images(1)))
        else:
            with pytest.raises(Refused, match="would be late"):
                model.submit(images(1))
        session.gate.set()
        await asyncio.gather(*asked, return_exceptions=True)
        await model.retire()

    asyncio.run(run())


def test_a_loop_that_blocked_once_does_not_refuse_all_for_ever() -> None:
    """A model that needs most of its time is tried as soon as nothing waits."""

    async def run() -> None:
        model, _ = served(slo_ms=100.0, max_batch_size=1, table=[(1, 80.0)])
        blocked = model.submit(images(1))
        time.sleep(0.3)
        await asyncio.gather(blocked, return_exceptions=True)
        for _ in range(8):
            model._lag.add(300.0)
        model._batcher.reserve_ms = model._lag.reserve_ms
        for _ in range(64):
            await model.submit(images(1))
        assert model._lag.reserve_ms < 300.0
        await model.retire()

    asyncio.run(run())
