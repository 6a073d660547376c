# SPDX-License-Identifier: Apache-2.0
"""The errors that reach a user.

BurnishError
├── Misuse        what was given to us is wrong: a file, a setting, an argument
├── Unsupported   this model cannot be run, or changed, in this way
├── Missing       an optional package is not installed
└── Broken        we broke a promise of our own: please report it

A message says what was expected, what was got and what to do, with names and
shapes. What a technique passed over is no error: it goes in `Outcome.skipped`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BurnishError(Exception):
    """Any error whose message is meant for the user; `exit_code` is the command's."""

    exit_code = 2


class Misuse(BurnishError):
    """What the user gave is wrong."""


class Unsupported(BurnishError):
    """The model is sound, but this engine or technique cannot take it."""


class Missing(BurnishError):
    """An optional package is needed and absent; the message has the pip command."""

    def __init__(self, what: str, package: str, extra: str | None = None) -> None:
        command = f"pip install 'burnish[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{what} needs the package {package!r}, which is not installed: {command}")
        self.command = command


class Broken(BurnishError):
    """A promise of Burnish itself did not hold."""

    exit_code = 1


def unknown(kind: str, name: str, known: Iterable[str]) -> Misuse:
    """Returns the error for a name that is none of `known`, with the nearest ones.

    >>> print(unknown("metric", "top_1", ["top1", "f1"]))
    unknown metric 'top_1': did you mean 'top1'? Known: f1, top1
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return Misuse(f"unknown {kind} {name!r}:{hint} Known: {', '.join(names) or 'none'}")
