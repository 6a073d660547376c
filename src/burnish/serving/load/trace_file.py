# SPDX-License-Identifier: Apache-2.0
"""Recorded arrival times, in milliseconds: JSON lines, or CSV with or without a heading."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from burnish.core.errors import Misuse
from burnish.serving.load.schedule import MOST_REQUESTS, Trace

COLUMN = "at_ms"
_JSON = {".jsonl", ".ndjson", ".json"}


def read_trace(path: Path) -> Trace:
    """Returns the trace in a file: its suffix says which form it has."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return parse_trace(lines, str(path), path.suffix.lower() in _JSON)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misuse(f"{path}: cannot be read as a trace: {error}") from error


def parse_trace(lines: Iterable[str], name: str, as_json: bool) -> Trace:
    """Returns the trace in lines of text, sorted; `name` is for messages.

    JSON: a number a line, or an object with `at_ms`. CSV: the column `at_ms`, or the first.

    >>> parse_trace(["at_ms,rows", "10,1", "12.5,1"], "a.csv", as_json=False).at_ms
    (10.0, 12.5)
    """
    found = []
    for number, value in _json(lines) if as_json else _csv(lines):
        at_ms = _time(value)
        if at_ms is None:
            raise Misuse(
                f"{name}, line {number}: expected a time in ms of 0 or more, "
                f"got {str(value)[:80]!r}"
            )
        found.append(at_ms)
        if len(found) > MOST_REQUESTS:
            raise Misuse(f"{name}: a trace has at most {MOST_REQUESTS:,} arrivals")
    if not found:
        raise Misuse(f"{name}: the trace has no arrivals")
    return Trace(tuple(sorted(found)))


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        at_ms = float(value)
    except (ValueError, OverflowError):
        return None
    return at_ms if 0 <= at_ms < math.inf else None


def _json(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = line.strip()
        yield number, value.get(COLUMN) if isinstance(value, dict) else value


def _csv(lines: Iterable[str]) -> Iterator[tuple[int, object]]:
    reader = csv.reader(lines)
    column = 0
    for first, row in enumerate(reader):
        if not row:
            continue
        if first == 0 and _time(row[0]) is None:
            names = [name.strip() for name in row]
            column = names.index(COLUMN) if COLUMN in names else 0
            continue
        yield reader.line_num, row[column] if column < len(row) else None
