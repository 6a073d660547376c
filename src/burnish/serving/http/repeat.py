# SPDX-License-Identifier: Apache-2.0
"""A request with the very head that one before it on its connection had.

Clients keep a connection, and say the same of each tensor that they send on it: where it
goes, how long it is, who they are. What that says was found once, by the application and
with all its checks; from then on such a request goes straight to its model: it is no task
and no ASGI message, and only its body is looked at.

Where anything has to be waited for besides the body and the model, or anything is out of the
ordinary (the server drains, the model has to be opened first), `Repeat.begin` says so before
anything has happened, and the request goes the way of all others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from burnish.serving.http.inference import (
    Submitted,
    announced,
    decoded,
    reply_at_once,
    reply_by_thread,
    submitted,
)
from burnish.serving.http.message import (
    Call,
    Headers,
    Reply,
    aligned,
    coding_wanted,
    declared_bytes,
    too_slow,
)
from burnish.serving.http.outcome import Inferred, Outcomes
from burnish.serving.http.policy import Policy
from burnish.serving.large_json import LargeJson
from burnish.serving.oip.faults import Fault
from burnish.serving.repository import Repository
from burnish.serving.served_model import Answer, ServedModel

_NOT_FOR_US = (b"content-encoding", b"transfer-encoding", b"expect", b"upgrade")


class Application(Protocol):
    """What is asked of the application."""

    repository: Repository
    policy: Policy
    outcomes: Outcomes
    large_json: LargeJson
    draining: bool

    def check_rate(self, call: Call) -> None:
        """Raises `Refused` when the client has asked for more than its share."""


class Line(Protocol):
    """What is asked of a connection."""

    loop: asyncio.AbstractEventLoop

    def begin(self, came_bytes: int, body_bytes: int) -> None:
        """Takes the connection for a request, of whose body the first bytes have come."""

    def receive(self, place: memoryview, whole: Callable[[], None]) -> None:
        """Receives the rest of the body into `place`, and calls `whole` when it is full."""

    def stop_receiving(self) -> None:
        """Lets go of the place."""

    def when_gone(self, tell: Callable[[], object] | None) -> None:
        """Calls `tell` when the client goes away; None: nobody wants to know."""

    def answer(self, status: int, headers: Headers, body: bytes | memoryview) -> None:
        """Answers, and gives the connection free."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """What a head says."""

    app: Application
    call: Call
    """Without a body."""
    name: str
    version: str | None
    header_length: bytes
    ahead: int
    """Bytes of the JSON document."""
    size: int
    """Bytes of the body."""

    def begin(self, line: Line, came: memoryview) -> bool:
        """Begins with a request, of whose body `came` is there; False: it is not for us."""
        app = self.app
        if len(came) > self.size or app.draining or not app.repository.ready:
            return False
        try:
            served = app.repository.find(self.name, self.version)
        except Fault:
            return False
        line.begin(len(came), self.size)
        _Exchange(self, line).begin(served, came)
        return True


def repeat(app: Application, call: Call, name: str, version: str | None) -> Repeat | None:
    """Returns what a head says that was answered before, or None where it is not for us."""
    header_length, ahead = announced(call)
    size = declared_bytes(call, app.policy.body)
    if header_length is None or ahead is None or not ahead <= size or not size:
        return None
    if any(name in call.headers for name in _NOT_FOR_US) or coding_wanted(call) is not None:
        return None
    return Repeat(app, call, name, version, header_length, ahead, size)


class _Exchange:
    """One request on its way."""

    __slots__ = (
        "_alarm",
        "_began_ms",
        "_document",
        "_expected",
        "_head",
        "_identifier",
        "_line",
        "_place",
        "_served",
        "_submitted",
        "_writing",
    )

    def __init__(self, head: Repeat, line: Line) -> None:
        self._head, self._line = head, line
        self._began_ms = time.perf_counter() * 1e3
        self._identifier = head.app.outcomes.identifier(head.call)
        self._expected = False
        self._alarm: asyncio.TimerHandle | None = None
        self._submitted: Submitted | None = None
        self._writing: asyncio.Task[None] | None = None

    def begin(self, served: ServedModel, came: memoryview) -> None:
        """Receives the body, of which `came` is there."""
        self._served = served
        try:
            self._head.app.check_rate(self._head.call)
            self._expected = served.expect_body(self._head.size)
            rest = self._allot(came)
        except Exception as error:  # noqa: BLE001 - the worker: whoever asked is told
            self._fail(error)
            return
        if not len(rest):
            self._submit()
            return
        line = self._line
        self._alarm = line.loop.call_later(self._head.app.policy.body.seconds, self._late)
        line.when_gone(self._gone_early)
        line.receive(rest, self._whole)

    def _allot(self, came: memoryview) -> memoryview:
        """Finds places for the document and the tensors; returns what of them is still to come."""
        size, ahead = self._head.size, self._head.ahead
        n = len(came) - ahead
        if n < 0:  # a piece of the document: all goes to one place
            body = aligned(size, ahead)
            body[: len(came)] = came
            self._document, self._place = body[:ahead], body[ahead:]
            return body[len(came) :]
        place = self._served.landing.place(size - ahead)
        self._place = aligned(size - ahead, 0) if place is None else place
        self._place[:n] = came[ahead:]
        rest = self._place[n:]
        # What follows comes over what is here.
        self._document = memoryview(bytes(came[:ahead])) if len(rest) else came[:ahead]
        return rest

    def _whole(self) -> None:
        self._over()
        try:  # another may have taken its place by now
            self._served = self._head.app.repository.find(self._head.name, self._head.version)
        except Fault as fault:
            self._fail(fault)
            return
        self._submit()

    def _over(self) -> None:
        """Ends the time of the body."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
            self._line.when_gone(None)
        if self._expected:
            self._expected = False
            self._served.body_over()

    def _late(self) -> None:
        self._line.stop_receiving()
        self._fail(too_slow(self._head.app.policy.body))

    def _gone_early(self) -> None:
        self._line.stop_receiving()
        self._over()
        self._head.app.outcomes.gone(self._head.call, self._identifier)

    def _submit(self) -> None:
        head, served = self._head, self._served
        if self._expected:
            self._over()
        try:
            request = decoded(
                served, self._document, head.header_length, head.app.policy.json, self._place
            )
            self._submitted = submitted(served, request)
        except Exception as error:  # noqa: BLE001 - the worker: whoever asked is told
            self._fail(error)
            return
        finally:
            del self._document, self._place  # whoever needs them has a view
        future = self._submitted.future
        future.add_done_callback(self._answered)
        self._line.when_gone(future.cancel)

    def _answered(self, future: asyncio.Future[Answer]) -> None:
        assert self._submitted is not None
        self._line.when_gone(None)
        if future.cancelled():
            self._head.app.outcomes.gone(self._head.call, self._identifier)
            return
        try:
            answer = future.result()
            reply = reply_at_once(self._submitted.request, answer, self._served)
        except Exception as error:  # noqa: BLE001 - the worker: whoever asked is told
            self._fail(error)
            return
        if reply is None:
            self._writing = self._line.loop.create_task(self._write(answer))
        else:
            self._reply(reply, answer)

    async def _write(self, answer: Answer) -> None:
        assert self._submitted is not None
        large = self._head.app.large_json
        try:
            reply = await reply_by_thread(self._submitted.request, answer, self._served, large)
        except Exception as error:  # noqa: BLE001 - the worker: whoever asked is told
            self._fail(error)
            return
        self._reply(reply, answer)

    def _fail(self, error: Exception) -> None:
        self._over()
        reply, more = self._head.app.outcomes.failed(error, self._head.call, self._identifier)
        self._reply(reply, None, more)

    def _reply(self, reply: Reply, answer: Answer | None, more: Headers = ()) -> None:
        head, outcomes = self._head, self._head.app.outcomes
        sending_ms = time.perf_counter() * 1e3
        headers, body = reply.whole((*outcomes.headers(self._identifier), *more))
        self._line.answer(reply.status, headers, body)
        inferred = None
        if answer is not None and self._submitted is not None:
            inferred = Inferred(reply, self._served, answer, self._submitted.queued_ms)
        outcomes.answered(
            head.call, self._identifier, reply.status, inferred, self._began_ms, sending_ms
        )
