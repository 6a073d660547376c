# SPDX-License-Identifier: Apache-2.0
"""The environment variables that Burnish reads, once, and what each is for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from burnish.core.errors import Misuse


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    `data`: BURNISH_DATA, the folder that data and weights are read from, or None.
    `store`: BURNISH_STORE, where finished steps are kept for reuse.
    `store_bytes`: BURNISH_STORE_BYTES, the store's largest size; the oldest steps go first.
    `threads`: BURNISH_THREADS, the most threads to use, or None for every usable core.
    `token`: BURNISH_TOKEN, the bearer token to send to a server, or None.
    """

    data: Path | None
    store: Path
    store_bytes: int
    threads: int | None
    token: str | None = None


@cache
def settings() -> Settings:
    """Returns the settings, read from the environment at the first call."""
    data = os.environ.get("BURNISH_DATA")
    store = os.environ.get("BURNISH_STORE")
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Settings(
        data=Path(data) if data else None,
        store=Path(store) if store else cache_home / "burnish",
        store_bytes=_whole("BURNISH_STORE_BYTES") or 10 * 1024**3,
        threads=_whole("BURNISH_THREADS"),
        token=os.environ.get("BURNISH_TOKEN") or None,
    )


def _whole(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise Misuse(f"{name} must be a whole number above 0, got {text!r}")
    return int(text)
