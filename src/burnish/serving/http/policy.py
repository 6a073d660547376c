# SPDX-License-Identifier: Apache-2.0
"""What the server allows its clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from burnish.serving.http.message import BodyLimits
from burnish.serving.oip.framing import Limits as JsonLimits


@dataclass(frozen=True)
class Policy:
    """What the server allows. `repository_control`: whether clients may load and unload."""

    body: BodyLimits = field(default_factory=BodyLimits)
    json: JsonLimits = field(default_factory=JsonLimits)
    tokens: tuple[str, ...] = ()
    rate_per_s: float | None = None
    repository_control: bool = False
