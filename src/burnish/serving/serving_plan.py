# SPDX-License-Identifier: Apache-2.0
"""How a bundle is to be served, as far as its measurements tell: streams, threads, batches.

`burnish plan` writes what it measured as `plan.serving` of the manifest. Without it the
bundle's own table of throughput decides: the threads and streams that answered most samples
a second, at whatever batch size. Of those about as good, the one with most streams: threads
that wait for each other at every operator lose most to the server's own work beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse

_MOST_ROWS = 64
_ABOUT_AS_GOOD = 0.9  # of the most samples a second
_UNKNOWN_MS = 10.0  # until calls are seen, where a bundle says nothing of its latency


@dataclass(frozen=True)
class ServingPlan:
    """Threads, streams, the largest batch; milliseconds by batch size, all streams busy."""

    setting: Setting
    max_batch_size: int
    table: tuple[tuple[int, float], ...]
    slo_ms: float | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of free axes, besides the batch, that the table was measured at."""

    def with_setting(self, threads: int | None, streams: int | None) -> ServingPlan:
        """Returns the plan with other threads or streams."""
        setting = Setting(threads or self.setting.threads, streams or self.setting.streams)
        return replace(self, setting=setting)


def serving_plan(plan: Mapping[str, Any]) -> ServingPlan:
    """Returns the plan that a bundle's manifest holds under "plan". Raises `Misuse`."""
    try:
        chosen = plan.get("serving")
        if chosen is not None:
            measured = chosen.get("measured") or {}
            return ServingPlan(
                Setting(int(chosen["threads"]), int(chosen["streams"])),
                int(chosen["max_batch_size"]),
                _table(chosen["latency_by_batch"]),
                None if chosen.get("slo_ms") is None else float(chosen["slo_ms"]),
                {str(axis): int(size) for axis, size in (measured.get("axes") or {}).items()},
            )
        rows = plan.get("latency_by_batch") or []
        if not rows:
            ms = float(plan.get("latency_ms") or _UNKNOWN_MS)
            setting = Setting(int(plan["threads"]), int(plan["streams"]))
            return ServingPlan(setting, _MOST_ROWS, ((1, ms),))
        enough_per_s = _ABOUT_AS_GOOD * max(float(row["samples_per_s"]) for row in rows)
        good = [row for row in rows if float(row["samples_per_s"]) >= enough_per_s]
        best = max(good, key=lambda row: (int(row["streams"]), float(row["samples_per_s"])))
        setting = Setting(int(best["threads"]), int(best["streams"]))
        own = [
            row
            for row in rows
            if (row["threads"], row["streams"]) == (best["threads"], best["streams"])
        ]
        table = _table(own)
        # Where a larger batch answers no more samples a second it only makes them wait.
        most = max(table, key=lambda row: row[0] / row[1])[0]
        return ServingPlan(setting, min(most, _MOST_ROWS), table)
    except (KeyError, TypeError, ValueError) as error:
        raise Misuse(
            f"the bundle is damaged: its plan cannot be read: {error!r}; write the bundle again"
        ) from error


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, float], ...]:
    return tuple(sorted((int(row["batch_size"]), float(row["latency_ms"])) for row in rows))
