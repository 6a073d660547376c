# SPDX-License-Identifier: Apache-2.0
"""What was passed over, gathered by reason, so that a thousand places read as one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from burnish.core.technique import Skipped
from burnish.optimizing.report import names


@dataclass(frozen=True)
class Passed:
    """A reason, and every place that it holds for, in the order met."""

    reason: str
    places: tuple[str, ...]

    def short(self, n: int = 3) -> str:
        """Returns the reason with the first `n` places and how many more there are.

        >>> Passed("too small", ("a", "b", "c")).short(2)
        'a, b and 1 more: too small'
        """
        shown = ", ".join(names.shorten(place, 48) for place in self.places[:n])
        more = len(self.places) - n
        return f"{shown} and {more} more: {self.reason}" if more > 0 else f"{shown}: {self.reason}"


def by_reason(skipped: Iterable[Skipped]) -> list[Passed]:
    """Returns the reasons, in the order met, each with its places (each place once)."""
    places: dict[str, dict[str, None]] = {}
    for one in skipped:
        reason = names.printable(one.reason) or "no reason was given"
        places.setdefault(reason, {})[names.printable(one.place)] = None
    return [Passed(reason, tuple(them)) for reason, them in places.items()]
