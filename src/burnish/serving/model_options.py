# SPDX-License-Identifier: Apache-2.0
"""What may be said of a served model: where it is, and how it is to be served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from burnish.core.errors import Misuse

_MOST = {"threads": 1024, "streams": 1024, "max_batch_size": 65_536}


@dataclass(frozen=True)
class ModelOptions:
    """One model of the configuration. What is None is taken from the bundle's plan.

    `version` is its folder's name in a repository of versions, or "1". `queue` bounds the
    requests that wait, `queue_bytes` what they hold. `padding` are ascending sizes by axis,
    to which requests are padded so that they can run together; `fill` is what padding
    holds, by input.
    """

    path: Path
    name: str = ""
    version: str = "1"
    threads: int | None = None
    streams: int | None = None
    max_batch_size: int | None = None
    slo_ms: float | None = None
    linger_ms: float = 0.0
    queue: int = 1024
    queue_bytes: int = 512 * 2**20
    padding: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fill: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [
            f"{key} must be at least 1, got {value}"
            for key in ("threads", "streams", "max_batch_size", "queue", "queue_bytes")
            if (value := getattr(self, key)) is not None and value < 1
        ]
        faults += [
            f"{key} must be at most {most}, got {value}"
            for key, most in _MOST.items()
            if (value := getattr(self, key)) is not None and value > most
        ]
        if self.slo_ms is not None and not 0 < self.slo_ms < math.inf:
            faults.append(f"slo_ms must be above 0, got {self.slo_ms}")
        if not 0 <= self.linger_ms < math.inf:
            faults.append(f"linger_ms must be at least 0, got {self.linger_ms}")
        if not _plain(self.served_name):
            faults.append(
                f"the name {self.served_name!r} must be letters, digits, '.', '_' and '-', and "
                "not begin with '.'"
            )
        if not _plain(self.version):
            faults.append(f"the version {self.version!r} must be letters, digits, '.', '_' and '-'")
        if faults:
            raise Misuse(f"model {self.served_name!r}: " + "; ".join(faults))

    @property
    def served_name(self) -> str:
        """The name, or that of the bundle's folder."""
        return self.name or self.path.resolve().name


def _plain(name: str) -> bool:
    return (
        0 < len(name) <= 200
        and not name.startswith(".")
        and all(one.isascii() and (one.isalnum() or one in "._-") for one in name)
    )
