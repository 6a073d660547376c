# SPDX-License-Identifier: Apache-2.0
"""A measured quantity: never a bare float."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Measurement:
    """What was measured, where, and how sure it is.

    `value` and the 95 % interval `low`..`high` are in `unit`; `better` says which
    direction is an improvement. `n` counts the samples behind the value. `machine` is
    the machine's fingerprint and `engine` the engine's identity (empty when the quantity
    depends on neither, as a file's size does). `conditions` holds what else it depends
    on: batch size, threads, streams.
    """

    quantity: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    low: float
    high: float
    n: int
    machine: str = ""
    engine: str = ""
    conditions: Mapping[str, Any] = field(default_factory=dict)

    def overlaps(self, other: Measurement) -> bool:
        """Returns whether the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data; `from_dict` is its inverse.

        JSON has no infinity: an unbounded end of the interval is None.
        """
        data = asdict(self) | {"conditions": dict(self.conditions)}
        return data | {
            name: data[name] if math.isfinite(data[name]) else None
            for name in ("value", "low", "high")
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Measurement:
        """Returns the measurement that `to_dict` wrote."""
        unbounded = {"value": math.nan, "low": -math.inf, "high": math.inf}
        known = {name: value for name, value in data.items() if value is not None}
        return Measurement(**{**unbounded, **known})

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit} [{self.low:.4g}, {self.high:.4g}] (n={self.n})"
