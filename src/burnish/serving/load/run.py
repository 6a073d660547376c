# SPDX-License-Identifier: Apache-2.0
"""A plan from start to end, in this thread or in processes of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from burnish.core.progress import Progress, silent
from burnish.serving.load.address import address
from burnish.serving.load.generator import Tick
from burnish.serving.load.plan import LoadPlan, Order
from burnish.serving.load.result import LoadResult, Part, add_up
from burnish.serving.load.schedule import ClosedLoop, Timetable, described, shares, timetable
from burnish.serving.load.worker import Worker, generate_here

_SOON_S = 0.05
_POLL_S = 0.1


def run_load(plan: LoadPlan, progress: Progress = silent) -> LoadResult:
    """Returns what came of a plan.

    With one process the generator runs in this thread; a server that runs in the same
    Python process then shares its lock, which distorts: give such a one two processes.
    """
    with Crew(plan.processes) as crew:
        return crew.run(plan, progress)


class Crew:
    """The processes of runs that follow each other."""

    def __init__(self, processes: int) -> None:
        self._stack = contextlib.ExitStack()
        self._workers: list[Worker] = []
        self._processes = processes

    def __enter__(self) -> Crew:
        with contextlib.ExitStack() as starting:
            for _ in range(self._processes if self._processes > 1 else 0):
                worker = Worker()
                starting.callback(worker.close)
                self._workers.append(worker)
            self._stack = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, plan: LoadPlan, progress: Progress = silent) -> LoadResult:
        """Returns what came of a plan, whose number of processes is that of the crew."""
        where = address(plan.url)
        wire = plan.payload.wire(where, plan.headers)
        table = _timetable(plan)
        count = len(table.times_s)
        what = f"{described(plan.schedule)} to {where.authority}"

        def tick(done: int) -> None:
            progress(what, done, count or plan.requests or 0)

        orders = list(_orders(plan, table))
        if self._workers:
            parts = self._together(orders, wire, table, tick)
        else:
            parts = [generate_here(orders[0], wire, table.times_s.tolist(), tick)]
        return _result(plan, add_up(parts), table, len(wire))

    def _together(
        self, orders: list[Order], wire: bytes, table: Timetable, tick: Tick
    ) -> list[Part]:
        n = len(self._workers)
        for i, (worker, order) in enumerate(zip(self._workers, orders, strict=True)):
            worker.prepare(order, wire, table.share(i, n))
        for worker in self._workers:
            worker.ready()
        start_s = time.monotonic() + _SOON_S
        for worker in self._workers:
            worker.start(start_s)
        by_pipe: dict[Any, Worker] = {worker.pipe: worker for worker in self._workers}
        done = dict.fromkeys(self._workers, 0)
        parts: list[Part] = []
        while by_pipe:
            for pipe in wait(list(by_pipe), _POLL_S):
                said = by_pipe[pipe].heard()
                if isinstance(said, Part):
                    parts.append(said)
                    del by_pipe[pipe]
                else:
                    done[by_pipe[pipe]] = said
            tick(sum(done.values()))
        return parts


def _timetable(plan: LoadPlan) -> Timetable:
    seconds = plan.warmup_s + plan.duration_s
    if isinstance(plan.schedule, ClosedLoop):
        return Timetable(np.empty(0), seconds)
    return timetable(plan.schedule, seconds, plan.seed, plan.requests)


def _orders(plan: LoadPlan, table: Timetable) -> Iterator[Order]:
    where = address(plan.url)
    connections = shares(plan.connections, plan.processes)
    requests = None if plan.requests is None else shares(plan.requests, plan.processes)
    for i in range(plan.processes):
        yield Order(
            host=where.host,
            port=where.port,
            connections=connections[i],
            timeout_s=plan.timeout_s,
            count_from_s=plan.warmup_s,
            until_s=table.span_s,
            closed=plan.closed,
            requests=requests[i] if requests and plan.closed else None,
            slo_ms=None if plan.slo is None else plan.slo.limit_ms,
            tls=where.tls,
            certificate=None if plan.certificate is None else str(plan.certificate),
        )


def _result(plan: LoadPlan, part: Part, table: Timetable, request_bytes: int) -> LoadResult:
    counted = int(np.count_nonzero(table.times_s >= plan.warmup_s))
    span_s = max(table.span_s - plan.warmup_s, 0.0)
    after_s = part.last_s - plan.warmup_s
    ended_early = plan.closed and plan.requests is not None and after_s < span_s
    elapsed_s = max(after_s if ended_early else max(span_s, after_s), 1e-9)
    return LoadResult(
        url=plan.url,
        model=plan.payload.model,
        schedule=described(plan.schedule),
        slo=plan.slo,
        offered_per_s=None if plan.closed else counted / (span_s or elapsed_s),
        elapsed_s=elapsed_s,
        latency=part.latency,
        service=part.service,
        late=part.late,
        failures=part.failures,
        in_slo=part.in_slo,
        resent=part.resent,
        waited=part.waited,
        opened=part.opened,
        connections=plan.connections,
        processes=plan.processes,
        generator_cpu_ratio=part.cpu_s / part.wall_s if part.wall_s > 0 else 0.0,
        request_bytes=request_bytes,
        rows=plan.payload.rows,
        refusals=part.refusals,
    )
