# SPDX-License-Identifier: Apache-2.0
"""Whether to ask again, and when: exponential backoff with full jitter. No clock, no sleep.

Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015, "Full
Jitter": sleep = random_between(0, min(cap, base * 2 ** attempt)).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED = frozenset({429, 503})
"""The statuses that say that the same request may be answered later."""

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_MOST_DOUBLINGS = 60


@dataclass(frozen=True)
class Retrying:
    """How often to ask again, and how long to wait before.

    retries: beyond the first attempt; base_s, cap_s: the backoff's, as in the source.
    """

    retries: int = 3
    base_s: float = 0.1
    cap_s: float = 10.0

    def wait_s(
        self, failures: int, room_s: float, asked_s: float | None, drawn: float
    ) -> float | None:
        """Returns how long to wait, always less than `room_s`; None to give up.

        failures: attempts before this one that failed. asked_s: what the server asked to be
        left alone for; the jitter comes on top of it, so that all who were told the same do not
        come at once. drawn: uniform in [0, 1).

        >>> Retrying().wait_s(2, math.inf, None, 0.5), Retrying().wait_s(0, 5.0, 1.5, 0.5)
        (0.2, 1.55)
        >>> Retrying().wait_s(0, 1.0, 1.5, 0.5) is None
        True
        """
        least_s = asked_s or 0.0
        if failures >= self.retries or least_s >= room_s:
            return None
        backoff_s = min(self.cap_s, self.base_s * 2.0 ** min(failures, _MOST_DOUBLINGS))
        wait_s = least_s + drawn * min(backoff_s, room_s - least_s)
        return wait_s if wait_s < room_s else least_s  # the sum may be rounded up


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Returns what Retry-After-Ms says or, without it, Retry-After, in seconds.

    headers: by lower-case name. None without either. A date counts from the answer's own, so
    that it does not matter which of the two clocks is right (RFC 9110, 10.2.3).

    >>> retry_after_s({"retry-after": "1", "retry-after-ms": "37.5"}), retry_after_s({})
    (0.0375, None)
    >>> at = "Fri, 27 Nov 2026 12:00:{:02} GMT".format
    >>> retry_after_s({"date": at(1), "retry-after": at(31)})
    30.0
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if _NUMBER.fullmatch(value):
            return float(value) * scale
    due, now = (_date(headers.get(name, "")) for name in ("retry-after", "date"))
    return None if due is None or now is None else max(0.0, (due - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        return parsedate_to_datetime(value).replace(tzinfo=UTC)  # HTTP has GMT alone
    except (ValueError, OverflowError):
        return None


def is_patience(value: object) -> bool:
    """Returns whether something is a time that one can wait: a number, above 0, finite."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )
