# SPDX-License-Identifier: Apache-2.0
"""Which program this is: what is kept in a store holds for the program that made it."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def program() -> str:
    """Returns Burnish's version and a digest of its source, as "0.1.0+3f2a9c01d4e5".

    A step that another state of the source made may differ, and is not reused.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{version('burnish')}+{digest.hexdigest()[:12]}"
