# SPDX-License-Identifier: Apache-2.0
"""Puts a serving plan into a bundle's manifest, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from burnish.core.bundle import Bundle
from burnish.core.errors import Misuse
from burnish.core.model import write_whole
from burnish.serving.planning.planner import Planned
from burnish.serving.serving_plan import serving_plan

_MANIFEST = "manifest.json"


def check_writable(path: str | Path) -> None:
    """Raises `Misuse` when a plan could not be written to the bundle at `path`."""
    bundle = Bundle.load(path)
    if not os.access(bundle.path, os.W_OK | os.X_OK):
        raise Misuse(f"{bundle.path} cannot be written to: give a bundle of your own, or --dry-run")


def write_plan(path: str | Path, planned: Planned) -> Bundle:
    """Writes `plan.serving` into the bundle, all else left as it is, and returns the bundle.

    The manifest is read again first. Raises `Misuse` when nothing was chosen, or when the
    bundle holds another model by now than the one that was measured.
    """
    serving = planned.serving()
    bundle = Bundle.load(path)
    if bundle.manifest["model"]["digest"] != planned.model:
        raise Misuse(f"{bundle.path} was replaced by another model while this one was planned")
    manifest = {**bundle.manifest, "plan": {**bundle.manifest["plan"], "serving": serving}}
    serving_plan(manifest["plan"])  # what is written can be read
    write_whole(bundle.path / _MANIFEST, json.dumps(manifest, indent=2).encode())
    return Bundle.load(path)
