# SPDX-License-Identifier: Apache-2.0
"""The engines that --engine names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from burnish.core import catalogue
from burnish.core.errors import Misuse

if TYPE_CHECKING:
    from burnish.engines.engine import Engine


def chosen_engines(names: Sequence[str] | None) -> list[Engine] | None:
    """Returns the named engines, each once, or None when none is named.

    Raises `Misuse` for a name that is no engine's, `Missing` for one not installed.
    """
    if not names:
        return None
    from burnish.engines.engine import by_name

    for name in names:
        if catalogue.find("engines", name).bound:
            raise Misuse(
                f"the engine {name!r} runs only the module that a model came from: it is "
                f"measured as a baseline when MODEL is file.py:function"
            )
    return [by_name(name) for name in dict.fromkeys(names)]


def complete_engine(incomplete: str) -> list[str]:
    """Returns the engines that a shell may complete to."""
    return [name for name in catalogue.names("engines") if name.startswith(incomplete)]
