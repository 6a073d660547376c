# SPDX-License-Identifier: Apache-2.0
"""The engines that --engine names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from burnish.core import catalogue

if TYPE_CHECKING:
    from burnish.engines.engine import Engine


def chosen_engines(names: Sequence[str] | None) -> list[Engine] | None:
    """Returns the named engines, each once, or None when none is named.

    Raises `Misuse` for a name that is no engine's, `Missing` for one not installed.
    """
    if not names:
        return None
    from burnish.engines.engine import by_name

    return [by_name(name) for name in dict.fromkeys(names)]


def complete_engine(incomplete: str) -> list[str]:
    """Returns the engines that a shell may complete to."""
    return [name for name in catalogue.names("engines") if name.startswith(incomplete)]
