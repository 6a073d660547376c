# SPDX-License-Identifier: Apache-2.0
"""Finds techniques, engines and importers by name, ours and other packages'.

Each is a Python entry point, so that the nouns need not know who implements them and
a third-party package adds one by declaring it. The groups are

    burnish.techniques   name -> subclass of `Technique`
    burnish.engines      name -> subclass of `engines.engine.Engine`
    burnish.importers    "onnx", "torch", "task" -> the function that makes a Model or Task
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from burnish.core.errors import Broken, unknown

_KINDS = {"techniques": "technique", "engines": "engine", "importers": "importer"}


@cache
def _group(group: str) -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group=f"burnish.{group}")}
    if not found:
        raise Broken(
            f"no entry point burnish.{group} is registered: Burnish runs from its source "
            "without being installed; install it with: pip install -e ."
        )
    return found


def names(group: str) -> list[str]:
    """Returns the names registered in `group`, sorted."""
    return sorted(_group(group))


def find(group: str, name: str) -> Any:
    """Returns what is registered as `name` in `group`.

    Raises `Misuse`, with the nearest name, when there is none.
    """
    points = _group(group)
    if name not in points:
        raise unknown(_KINDS[group], name, points)
    return points[name].load()
