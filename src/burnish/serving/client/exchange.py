# SPDX-License-Identifier: Apache-2.0
"""One request and its retries: a generator that yields attempts and is sent what came of them.

Whoever drives it waits and sends; `blocking` and `awaiting` do, and differ in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from burnish.core.errors import BurnishError, Misuse
from burnish.serving.client.answer import Answer, accepted, refusal
from burnish.serving.client.ask import Ask
from burnish.serving.client.errors import DeadlineExceeded, ServerRefused
from burnish.serving.client.retrying import RETRIED, Retrying, is_patience
from burnish.serving.oip.faults import shown


@dataclass(frozen=True)
class Attempt:
    """To be sent after `after_s`, and given up at `until_s` on the clock of the terms."""

    ask: Ask
    after_s: float
    until_s: float


@dataclass(frozen=True)
class Failed:
    """No answer came; `again`: the server cannot have begun to answer, so one may ask again."""

    error: BurnishError
    again: bool


@dataclass(frozen=True)
class Late:
    """No answer came until the attempt was to be given up."""


Result: TypeAlias = Answer | Failed | Late
T = TypeVar("T")
Call: TypeAlias = Generator[Attempt, Result, T]


@dataclass(frozen=True)
class Terms:
    """What holds for all calls of a client. timeout_s: for one attempt, to the last byte.

    clock: seconds, monotonic; random: uniform in [0, 1).
    """

    timeout_s: float
    retrying: Retrying
    clock: Callable[[], float]
    random: Callable[[], float]

    def __post_init__(self) -> None:
        retries = self.retrying.retries
        if not is_patience(self.timeout_s):
            raise Misuse(f"expected timeout_s above 0, got {shown(self.timeout_s)}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise Misuse(f"expected retries, 0 or more, got {shown(retries)}")

    def due(self, deadline_s: float | None) -> Due:
        """Returns the deadline of a call that begins now."""
        if deadline_s is None:
            return Due(math.inf, math.inf)
        if not is_patience(deadline_s):
            raise Misuse(f"expected deadline_s in seconds, above 0, got {shown(deadline_s)}")
        return Due(deadline_s, self.clock() + deadline_s)


@dataclass(frozen=True)
class Due:
    """When a call is over: what was given, and the time on the clock."""

    deadline_s: float
    until_s: float

    def over(self, attempts: int, last: BurnishError | None) -> DeadlineExceeded:
        """Returns the error that says so."""
        said = "" if last is None else f", the last: {last}"
        return DeadlineExceeded(
            f"expected an answer within deadline_s={self.deadline_s:g}, got none in {attempts} "
            f"attempt{'' if attempts == 1 else 's'}{said}; give it longer, or load the server less"
        )


def exchange(
    build: Callable[[float], Ask], terms: Terms, due: Due, *, once: bool = False
) -> Call[Answer]:
    """Returns a successful answer to what `build(seconds left)` asks.

    once: no retries, and any answer is returned. Raises the errors of `errors`.
    """
    retrying = Retrying(retries=0) if once else terms.retrying
    failures, after_s = 0, 0.0
    last: BurnishError | None = None
    while True:
        now_s = terms.clock() + after_s
        if now_s >= due.until_s:
            raise due.over(failures, last) from last
        until_s = min(due.until_s, now_s + terms.timeout_s)
        result = yield Attempt(build(due.until_s - now_s), after_s, until_s)
        if isinstance(result, Answer):
            if once:
                return result
            if result.status not in RETRIED:
                return accepted(result)
        left_s = due.until_s - terms.clock()
        if isinstance(result, Late) and until_s >= due.until_s:
            raise due.over(failures + 1, last) from last
        error = _error(result, terms)
        if left_s <= 0:
            raise due.over(failures + 1, error) from error
        if isinstance(result, Late) or (isinstance(result, Failed) and not result.again):
            raise error
        asked_s = error.retry_after_s if isinstance(error, ServerRefused) else None
        # Without a deadline no server makes us wait longer than we wait for an answer.
        room_s = left_s if left_s < math.inf else terms.timeout_s
        wait_s = retrying.wait_s(failures, room_s, asked_s, terms.random())
        if wait_s is None:
            if failures < retrying.retries and left_s < math.inf:
                raise due.over(failures + 1, error) from error
            error.add_note(f"attempts: {failures + 1}")
            raise error
        failures, after_s, last = failures + 1, wait_s, error


def _error(result: Result, terms: Terms) -> BurnishError:
    if isinstance(result, Answer):
        return refusal(result)
    if isinstance(result, Failed):
        return result.error
    return DeadlineExceeded(
        f"expected an answer within timeout_s={terms.timeout_s:g}, got none: give "
        "Client(timeout_s=...) more, or load the server less"
    )
