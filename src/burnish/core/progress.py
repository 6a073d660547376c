# SPDX-License-Identifier: Apache-2.0
"""How long work says how far it has come: a function that the caller passes in."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Takes the work's name, how much of it is done, and the total (0 when unknown)."""

    def __call__(self, work: str, done: int, total: int) -> None: ...


def silent(work: str, done: int, total: int) -> None:
    """Reports nothing: the default."""
