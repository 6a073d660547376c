# SPDX-License-Identifier: Apache-2.0
"""How much time an optimization may take, and how much of it is left."""

from __future__ import annotations

import math
import re
import time

from burnish.core.errors import Misuse

_UNITS_S = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
}


class Budget:
    """Seconds to spend, counted from when it is made."""

    def __init__(self, total_s: float) -> None:
        self.total_s = total_s
        self._start = time.monotonic()

    @property
    def spent_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float:
        """The seconds left; 0 when the budget is spent."""
        return max(0.0, self.total_s - self.spent_s)


def seconds(text: str | float) -> float:
    """Returns the seconds that a duration means: a number of seconds, or text with a unit.

    >>> seconds("20 min"), seconds("90s"), seconds(5)
    (1200.0, 90.0, 5.0)

    Raises `Misuse` for anything else.
    """
    if isinstance(text, int | float):
        value = float(text)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
        if not match or (match[2] and match[2] not in _UNITS_S):
            raise Misuse(f'a duration is written like "90s", "20 min" or "1.5 h", got {text!r}')
        value = float(match[1]) * _UNITS_S[match[2] or "s"]
    if not (math.isfinite(value) and value > 0):
        raise Misuse(f"a duration must be above 0, got {text!r}")
    return value
