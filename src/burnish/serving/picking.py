# SPDX-License-Identifier: Apache-2.0
"""Which of those that wait in a lane run together next.

The first in line always runs. Where more wait than a batch holds and they differ in size,
those go with it that are nearest to it in size, so that little is padded. Nobody waits long
for that: who was passed over once comes before those that are like the first; and nobody is
passed over whose deadline would not allow one batch more, nor for one of a lower priority.

Fang et al., "TurboTransformers", 2021 (arXiv:2010.05680), part all that waits into batches by
length, of the least time in all; here the order of arrival counts, and one batch is formed.
"""

from __future__ import annotations

import math
from itertools import islice

from burnish.serving.lane import Entry, Lane
from burnish.serving.request import Axes

_ROUNDING_MS = 1e-6  # sums of times differ in their last digits by the order of adding
_WINDOW = 4
"""Batches' worth of those that wait, among which the like ones are looked for."""


def pick(
    lane: Lane, size: int, start_ms: float, run_ms: float
) -> tuple[list[tuple[Entry, int]], list[Entry]]:
    """Returns the `size` rows that run next, from `start_ms` on for `run_ms`, and who is late.

    Rows are given as entries with how many of theirs; who is passed over is marked. Those
    are late that the batch would answer after their deadlines, of those that were looked at
    before it was full.
    """
    finish_ms = start_ms + run_ms
    by_size = bool(lane.bucket) and 1 < size < lane.rows
    waiting = lane.entries
    if by_size:
        waiting = _by_likeness(list(islice(waiting, _WINDOW * size)), size, finish_ms, run_ms)
    chosen: list[tuple[Entry, int]] = []
    late: list[Entry] = []
    room = size
    for entry in waiting:
        if not room:
            break
        if entry.request.deadline_ms < finish_ms - _ROUNDING_MS:
            late.append(entry)
            continue
        rows = min(room, entry.waiting_rows)
        chosen.append((entry, rows))
        room -= rows
    if by_size and chosen:
        last = max(entry.key for entry, _ in chosen)
        for entry in waiting[len(chosen) + len(late) :]:
            entry.passed_over = entry.passed_over or entry.key < last
    return chosen, late


def _by_likeness(entries: list[Entry], size: int, finish_ms: float, run_ms: float) -> list[Entry]:
    """Returns entries in the order in which they are taken."""
    first = entries[0]
    rows_before = 0
    order: list[tuple[int, int]] = []
    for entry in entries:
        last_row = rows_before + entry.waiting_rows - 1
        later_ms = finish_ms + run_ms * (1 + last_row // size)  # were it passed over
        hurries = entry is first or entry.passed_over or entry.request.deadline_ms < later_ms
        padded = -1 if hurries else _padded(first.request.axes, entry.request.axes)
        order.append((entry.request.priority, padded))
        rows_before += entry.waiting_rows
    return [entries[place] for place in sorted(range(len(entries)), key=order.__getitem__)]


def _padded(one: Axes, other: Axes) -> int:
    """Returns the elements that are padded when two requests run together."""
    sizes = [(a, b) for (_, a), (_, b) in zip(one, other, strict=True)]
    own = math.prod(a for a, _ in sizes) + math.prod(b for _, b in sizes)
    return 2 * math.prod(max(pair) for pair in sizes) - own
