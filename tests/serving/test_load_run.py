# SPDX-License-Identifier: Apache-2.0
"""Load on a server that answers as it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
from load_stub import METADATA, Stub, serving

from burnish.core.errors import Misuse
from burnish.serving.load.alarm import Alarm
from burnish.serving.load.knee import Search
from burnish.serving.load.payload import random_payload
from burnish.serving.load.plan import LoadPlan
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import Bursts, ClosedLoop, Constant, Poisson, Trace
from burnish.serving.load.slo import Slo
from burnish.serving.load.sweep import run_sweep

PAYLOAD = random_payload(METADATA)


def run(stub, schedule, **options):
    options = {"duration_s": 1.0, "connections": 16, "timeout_s": 5.0} | options
    with serving(stub):
        return run_load(LoadPlan(stub.url, PAYLOAD, schedule, **options))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "schedule", [Poisson(200), Constant(200), Bursts(200, 5), Trace(tuple(range(0, 1000, 5)))]
)
def test_every_request_arrives_once_and_whole(schedule, processes):
    stub = Stub()
    result = run(stub, schedule, processes=processes, warmup_s=0.2, duration_s=0.8)
    assert not result.failures
    assert result.ok == pytest.approx(0.8 * 200, abs=80)
    assert len(stub.bodies) >= result.ok
    assert set(stub.bodies) == {b"".join(PAYLOAD.encoded.buffers)}
    assert result.offered_per_s == pytest.approx(result.ok / 0.8)
    assert result.late.n == result.ok


def test_a_stall_is_charged_to_the_server():
    """One connection: what waits behind the stalled request is never sent meanwhile, so that
    counting from sending sees one slow answer in 200, and p99 misses it."""
    result = run(
        Stub(stalls=(0.3, 0.6)), Constant(200), connections=1, duration_s=1.0, slo=Slo("p99", 100)
    )
    assert result.ok == 200
    assert result.percentile_ms(99) > 150
    assert result.percentile_ms(90) > 100
    assert result.service.percentile_ms(99) < 0.5 * result.percentile_ms(99)
    assert result.service.percentile_ms(90) < 50
    assert result.waited > 30
    assert not result.keeps()
    assert result.goodput_per_s < 0.9 * result.achieved_per_s


def test_a_closed_loop_hides_the_stall():
    result = run(
        Stub(answer=lambda _: (0.002, 200), stalls=(0.3, 0.6)), ClosedLoop(), connections=1
    )
    assert result.percentile_ms(99) < 100  # the very coordination that is to be left out
    assert result.latency.max_ms > 150


@pytest.mark.parametrize("processes", [1, 2])
def test_a_closed_loop_against_littles_law(processes):
    """N connections and a service time of T: N / T a second, whatever sends them."""
    result = run(
        Stub(answer=lambda _: (0.02, 200)), ClosedLoop(), connections=8, processes=processes
    )
    assert 0.5 * 400 < result.achieved_per_s <= 401
    assert 19.9 < result.percentile_ms(50) < 40
    assert result.offered_per_s is None
    assert result.achieved_per_s * result.latency.mean_ms / 1e3 == pytest.approx(8, rel=0.2)


def test_statuses_are_counted_by_kind():
    kinds = [200, 429, 503, 504, 500, 0, -2]
    result = run(
        Stub(answer=lambda i: (0.0, kinds[i % 7])), Constant(140), connections=64, requests=70
    )
    assert result.requests == 70
    statuses = ("429", "500", "503", "504", "connection", "protocol")
    assert result.failures == dict.fromkeys(statuses, 10)
    assert (result.ok, result.rejected, result.resent) == (10, 20, 0)
    assert result.failure_ratio == pytest.approx(6 / 7)


@pytest.mark.parametrize("processes", [1, 2])
def test_refusals_are_timed_apart(processes):
    def answer(i):
        return (0.1, 200) if i % 2 else (0.03, 429)

    result = run(Stub(answer=answer), Constant(100), requests=40, processes=processes)
    assert (result.ok, result.refusals.n) == (20, 20)
    assert 29 < result.refusals.percentile_ms(50) < 80
    assert result.percentile_ms(50) > 99


def test_timeouts_end_requests_also_those_that_wait():
    start_s = time.monotonic()
    result = run(
        Stub(answer=lambda _: (0.0, -1)), Constant(100), connections=2, timeout_s=0.3,
        duration_s=0.5,
    )  # fmt: skip
    assert dict(result.failures) == {"timeout": 50}
    assert result.achieved_per_s == 0
    assert time.monotonic() - start_s < 5


def test_connections_are_kept_and_reopened():
    stub = Stub()
    kept = run(stub, Constant(100), connections=4, duration_s=0.5)
    assert stub.connections == kept.opened == 4
    closing = Stub(close_each=True)
    again = run(closing, Constant(100), connections=4, duration_s=0.5)
    assert again.ok == 50
    assert not again.failures
    assert closing.connections >= 50


def test_an_idle_connection_that_the_server_ended_is_no_failure(monkeypatch):
    monkeypatch.setattr("burnish.serving.load.generator.IDLE_S", 0.03)
    statuses = [200, 0, 200, 0, 0, 200]  # the second of two in a row is a failure
    stub = Stub(answer=lambda i: (0.0, statuses[i]))
    result = run(stub, Constant(10), connections=1, requests=4, duration_s=0.5)
    assert (result.ok, dict(result.failures), result.resent) == (3, {"connection": 1}, 2)


def test_requests_bound_a_run():
    for schedule, processes in ((Poisson(500), 1), (ClosedLoop(), 1), (ClosedLoop(), 2)):
        stub = Stub()
        result = run(stub, schedule, requests=25, processes=processes, duration_s=20)
        assert result.ok == len(stub.bodies) == 25
        assert result.elapsed_s < 10


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for processes in (1, 2):
        with pytest.raises(Misuse, match=f"nobody listens at 127.0.0.1:{port}"):
            run_load(LoadPlan(f"127.0.0.1:{port}", PAYLOAD, Poisson(10), processes=processes))


@pytest.mark.parametrize("processes", [1, 2])
def test_what_progress_raises_ends_the_run(processes):
    def progress(work, done, total):
        if done:
            raise KeyboardInterrupt

    start_s = time.monotonic()
    with serving(Stub()) as stub:
        plan = LoadPlan(stub.url, PAYLOAD, Constant(100), duration_s=60, processes=processes)
        with pytest.raises(KeyboardInterrupt):
            run_load(plan, progress)
    assert time.monotonic() - start_s < 20


@pytest.mark.parametrize(
    "wrong",
    [{"duration_s": 0}, {"timeout_s": float("nan")}, {"requests": 0}, {"connections": 0},
     {"processes": 3, "connections": 2}, {"warmup_s": -1}, {"processes": 1000}],
)  # fmt: skip
def test_plans_are_bounded(wrong):
    with pytest.raises(Misuse):
        LoadPlan("h", PAYLOAD, Poisson(1), **wrong)


def test_headers_are_sent():
    stub = Stub()
    run(stub, Constant(20), duration_s=0.2, headers={"Authorization": "Bearer x"})
    assert all(b"\r\nAuthorization: Bearer x\r\n" in head for head in stub.heads)


def test_a_sweep_finds_the_knee():
    """A server of 2 ms a request, one at a time, is full at 500/s."""

    def answer(number):
        nonlocal free_s
        now_s = time.monotonic()
        free_s = max(free_s, now_s) + 0.002
        return free_s - now_s, 200

    free_s = 0.0
    with serving(Stub(answer=answer)) as stub:
        plan = LoadPlan(
            stub.url, PAYLOAD, Constant(1), duration_s=0.6, slo=Slo("p90", 60), connections=64
        )
        swept = run_sweep(plan, Search(120, precision_ratio=0.3))
    assert swept.best is not None
    assert 200 < swept.best.per_s < 900
    assert swept.bracketed
    assert json.dumps(swept.to_dict()["steps"][0]["ok"])
    with pytest.raises(Misuse, match="needs an SLO"):
        run_sweep(LoadPlan("h", PAYLOAD, Constant(1)))


def test_the_alarm_rings_on_time():
    async def measure():
        rang: list[float] = []
        done = asyncio.Event()

        def ring():
            rang.append(time.monotonic())
            done.set()

        alarm = Alarm(asyncio.get_running_loop(), ring)
        late = []
        for ahead_s in (0.01, 0.0133, 0.0, -1.0):
            at_s = time.monotonic() + ahead_s
            done.clear()
            alarm.set(at_s)
            await asyncio.wait_for(done.wait(), 5)
            late.append(rang[-1] - at_s)
        alarm.set(time.monotonic() + 0.01)
        alarm.close()
        await asyncio.sleep(0.03)
        return rang, late

    rang, late = asyncio.run(measure())
    assert len(rang) == 4
    assert min(late) >= -1e-4
    assert min(late[:3]) < 0.05


def test_nor_is_one_that_was_never_used(monkeypatch):
    monkeypatch.setattr("burnish.serving.load.generator.IDLE_S", 0.0)
    statuses = [0, 200, 200]
    stub = Stub(answer=lambda i: (0.0, statuses[i]))
    result = run(stub, Constant(10), connections=1, requests=2, duration_s=0.5)
    assert (result.ok, dict(result.failures), result.resent) == (2, {}, 1)
