# SPDX-License-Identifier: Apache-2.0
"""Sends requests when they are due, and counts what comes back: the work of one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from burnish.core.errors import Misuse
from burnish.serving.load.alarm import Alarm
from burnish.serving.load.connection import Connection, response_parser
from burnish.serving.load.histogram import Histogram
from burnish.serving.load.plan import Order
from burnish.serving.load.result import CONNECTION, PROTOCOL, TIMEOUT, Part
from burnish.serving.trust import trusting

_TICK_S = 0.02
IDLE_S = 1.0
"""For how long a connection rested at least, that a server may have ended for that."""
_AGAIN_S = 0.1  # until a closed loop tries again to connect
_clock = time.monotonic

Tick = Callable[[int], None]
"""Told now and then how many requests are done; what it raises ends the run."""


async def generate(
    order: Order,
    wire: bytes,
    times_s: Sequence[float],
    begin: Callable[[], float],
    tick: Tick,
) -> Part:
    """Returns what came of sending `wire` at `times_s`, or again and again in a closed loop.

    begin: called when the connections are open; gives the start on the monotonic clock.
    Raises `Misuse` where nobody listens.
    """
    clients = _ClosedLoop(order, wire) if order.closed else _OpenLoop(order, wire)
    try:
        await clients.connect()
        with _no_collector():
            cpu_s = time.thread_time()
            start_s = begin()
            clients.start(start_s, times_s)
            while not clients.over():
                clients.give_up(_clock())
                tick(clients.done)
                await asyncio.sleep(_TICK_S)
            cpu_s = time.thread_time() - cpu_s
        return clients.part(start_s, cpu_s)
    finally:
        clients.close()


class _Clients(ABC):
    """The connections of one process, and the tally of what they were told."""

    def __init__(self, order: Order, wire: bytes) -> None:
        self._order, self._wire = order, wire
        self._loop = asyncio.get_running_loop()
        self._parser = response_parser()
        self._host, self._port = order.host, order.port
        certificate = None if order.certificate is None else Path(order.certificate)
        self._tls = trusting(certificate) if order.tls else None
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []  # the last one used goes first: the others may time out
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        self._count_from_s = 0.0
        self._last_s = 0.0
        self._latency, self._service, self._late = array("d"), array("d"), array("d")
        self._refusals = array("d")
        self._failures: Counter[str] = Counter()
        self._resent = self._waited = self._opened = 0
        self.done = 0

    async def connect(self) -> None:
        """Opens all connections."""
        try:
            first = await self._connected()
        except ssl.SSLError as error:
            where = f"{self._order.host}:{self._order.port}"
            raise Misuse(f"no TLS with {where}: {error}: is its certificate trusted?") from error
        except (OSError, TimeoutError) as error:
            said = str(error) or "no answer in time"
            raise Misuse(
                f"nobody listens at {self._order.host}:{self._order.port}: {said}"
            ) from error
        if first.transport is not None:  # a name is looked up once
            self._host, self._port = first.transport.get_extra_info("peername")[:2]
        self._idle.append(first)
        for _ in range(self._order.connections - 1):
            self._open()
        while self._opening:
            await asyncio.wait(self._opening)

    def start(self, start_s: float, times_s: Sequence[float]) -> None:
        """Begins to send."""
        self._count_from_s = start_s + self._order.count_from_s

    @abstractmethod
    def over(self) -> bool:
        """Says whether all is sent, and answered or given up."""

    def part(self, start_s: float, cpu_s: float) -> Part:
        """Returns the tally."""
        limit = self._order.slo_ms
        return Part(
            latency=Histogram(self._latency),
            service=Histogram(self._service),
            late=Histogram(self._late),
            refusals=Histogram(self._refusals),
            failures=dict(self._failures),
            in_slo=None if limit is None else int(np.sum(1e3 * np.array(self._latency) <= limit)),
            last_s=max(0.0, self._last_s - start_s),
            resent=self._resent,
            waited=self._waited,
            opened=self._opened,
            cpu_s=cpu_s,
            wall_s=_clock() - start_s,
        )

    def close(self) -> None:
        """Ends all connections."""
        self._closed = True
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.close()

    def give_up(self, now_s: float) -> None:
        """Ends the requests that took too long, and their connections."""
        before_s = now_s - self._order.timeout_s
        for connection in list(self._all):
            if connection.busy and connection.due_s < before_s:
                connection.close()
                self._failed(TIMEOUT, connection.due_s)

    def answered(self, connection: Connection) -> None:
        """Counts an answer; called by the connection."""
        now_s = _clock()
        self.done += 1
        connection.rests_from_s = now_s
        if connection.due_s >= self._count_from_s:
            self._last_s = now_s
            if 200 <= connection.status < 300:
                self._latency.append(now_s - connection.due_s)
                self._service.append(now_s - connection.sent_s)
            else:
                self._failures[str(connection.status)] += 1
                self._refusals.append(now_s - connection.sent_s)
        if connection.keep:
            self._free(connection)
        else:
            connection.close()

    def lost(self, connection: Connection) -> None:
        """Counts a connection that ended; called by the connection."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._closed:
            return
        if connection.busy:
            connection.busy = False
            rested_s = connection.sent_s - connection.rests_from_s
            if rested_s > IDLE_S and not (connection.heard or connection.resent):
                # The server ended an idle connection just then, as it may (RFC 9112, 9.3.1).
                self._resent += 1
                self._again(connection.due_s)
            else:
                self._failed(PROTOCOL if connection.garbled else CONNECTION, connection.due_s)
        self._pump()

    def _failed(self, kind: str, due_s: float) -> None:
        self.done += 1
        if due_s >= self._count_from_s:
            self._failures[kind] += 1
            self._last_s = _clock()

    @abstractmethod
    def _free(self, connection: Connection) -> None:
        """Takes a connection that is open and has nothing to do."""

    @abstractmethod
    def _again(self, due_s: float) -> None:
        """Sends once more what a server did not read before it ended the connection."""

    @abstractmethod
    def _refused(self) -> None:
        """Hears of a connection that could not be made."""

    @abstractmethod
    def _pump(self) -> None:
        """Sends what is due, as far as connections are free."""

    @property
    def _busy(self) -> bool:
        return any(one.busy for one in self._all)

    @property
    def _room(self) -> int:
        return self._order.connections - len(self._all) - len(self._opening)

    def _open(self) -> None:
        task = self._loop.create_task(self._opened_one())
        self._opening.add(task)

    async def _opened_one(self) -> None:
        task = asyncio.current_task()
        try:
            connection = await self._connected()
        except (OSError, TimeoutError):
            self._opening.discard(task)
            self._refused()
            return
        self._opening.discard(task)
        self._free(connection)

    async def _connected(self) -> Connection:
        _, connection = await asyncio.wait_for(
            self._loop.create_connection(
                lambda: Connection(self, self._parser),
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._order.host if self._tls else None,
            ),
            self._order.timeout_s,
        )
        if connection.transport is None or connection.transport.is_closing():
            raise ConnectionResetError("the server ended the connection at once")
        self._all.add(connection)
        self._opened += 1
        return connection


class _OpenLoop(_Clients):
    """Requests are due by the clock. Those for which no connection is free wait, and age."""

    def __init__(self, order: Order, wire: bytes) -> None:
        super().__init__(order, wire)
        self._times: list[float] = []
        self._next = 0
        self._waiting: deque[tuple[float, bool]] = deque()
        self._alarm = Alarm(self._loop, self._due)

    def start(self, start_s: float, times_s: Sequence[float]) -> None:
        super().start(start_s, times_s)
        self._times = [start_s + one for one in times_s]
        if self._times:
            self._alarm.set(self._times[0])

    def over(self) -> bool:
        return self._next >= len(self._times) and not self._waiting and not self._busy

    def close(self) -> None:
        self._alarm.close()
        super().close()

    def give_up(self, now_s: float) -> None:
        super().give_up(now_s)
        before_s = now_s - self._order.timeout_s
        while self._waiting and self._waiting[0][0] < before_s:
            self._failed(TIMEOUT, self._waiting.popleft()[0])
        self._pump()

    def _due(self) -> None:
        times, waiting, end = self._times, self._waiting, len(self._times)
        i = self._next
        while i < end and times[i] <= (now_s := _clock()):
            due_s = times[i]
            if due_s >= self._count_from_s:
                self._late.append(now_s - due_s)
            i += 1
            if self._idle and not waiting:
                self._idle.pop().send(self._wire, due_s, now_s)
            else:
                self._waited += due_s >= self._count_from_s
                waiting.append((due_s, False))
        self._next = i
        if waiting:
            self._pump()
        if i < end:
            self._alarm.set(times[i])

    def _free(self, connection: Connection) -> None:
        if self._waiting:
            due_s, resent = self._waiting.popleft()
            connection.send(self._wire, due_s, _clock(), resent)
        else:
            self._idle.append(connection)

    def _again(self, due_s: float) -> None:
        self._waiting.appendleft((due_s, True))

    def _refused(self) -> None:
        if self._waiting and not self._idle:
            self._failed(CONNECTION, self._waiting.popleft()[0])
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._idle:
            self._free(self._idle.pop())
        if self._closed:
            return
        for _ in range(min(len(self._waiting) - len(self._opening), self._room)):
            self._open()


class _ClosedLoop(_Clients):
    """Every connection sends again when it was answered."""

    def __init__(self, order: Order, wire: bytes) -> None:
        super().__init__(order, wire)
        self._begun = False
        self._start_s = self._until_s = 0.0
        self._left = order.requests
        self._alarm = Alarm(self._loop, self._begin)

    def start(self, start_s: float, times_s: Sequence[float]) -> None:
        super().start(start_s, times_s)
        self._start_s = start_s
        self._until_s = start_s + self._order.until_s
        self._alarm.set(start_s)

    def over(self) -> bool:
        return self._begun and not self._sending and not self._busy

    def close(self) -> None:
        self._alarm.close()
        super().close()

    def _begin(self) -> None:
        if _clock() < self._start_s:  # a loop's own timer may be early
            self._alarm.set(self._start_s)
            return
        self._begun = True
        self._pump()

    @property
    def _sending(self) -> bool:
        return self._begun and self._left != 0 and _clock() < self._until_s

    def _free(self, connection: Connection) -> None:
        now_s = _clock()
        if not self._begun or self._left == 0 or now_s >= self._until_s:
            self._idle.append(connection)
            return
        if self._left is not None:
            self._left -= 1
        connection.send(self._wire, now_s, now_s)

    def _again(self, due_s: float) -> None:
        if self._left is not None:
            self._left += 1

    def _refused(self) -> None:
        if self._begun:
            self._failed(CONNECTION, _clock())
            self._loop.call_later(_AGAIN_S, self._pump)

    def _pump(self) -> None:
        if self._closed or not self._sending:
            return
        idle, self._idle = self._idle, []
        for connection in idle:
            self._free(connection)
        for _ in range(self._room):
            self._open()


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Keeps the garbage collector from pausing the run, of which nothing is garbage."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
