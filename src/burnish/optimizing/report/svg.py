# SPDX-License-Identifier: Apache-2.0
"""Inline SVG: elements, scales, ticks, and labels that keep out of each other's way.

Text is escaped here, once, so that no name reaches the page as markup.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup, escape

from burnish.optimizing.report import figures

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""
FONT = 12.5
_NARROW, _WIDE = set("iljtfrI.,:;|!'()[]/ -·"), set("mwMW@%—…→�")


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """Returns an element; `class_` and `font_size` stand for class and font-size.

    >>> str(tag("text", "a < b", x=1.25, class_="label"))
    '<text x="1.2" class="label">a &lt; b</text>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_number(one)}"'
        for key, one in attributes.items()
        if one is not None
    )
    return Markup(f"<{name}{said}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Returns the parts one after another, escaped where they are not markup yet."""
    return Markup("").join(escape(part) for part in parts)


def _number(one: object) -> str:
    return f"{one:.1f}" if isinstance(one, float) else str(escape(one))


def figure(
    key: str, title: str, description: str, width: int, height: float, parts: Sequence[str]
) -> Markup:
    """Returns the whole chart, named and described for who cannot see it."""
    name, said = f"{key}-{width}-title", f"{key}-{width}-description"
    return tag(
        "svg",
        tag("title", title, id=name),
        tag("desc", description, id=said),
        *parts,
        role="img",
        aria_labelledby=f"{name} {said}",
        viewBox=f"0 0 {width} {height:.0f}",
        width=width,
        height=math.ceil(height),
    )


def text_width(text: str, size: float = FONT, bold: bool = False) -> float:
    """Returns about how wide the text is, in pixels, rather too wide than too narrow.

    The shares are those of DejaVu Sans, the widest of the fonts that the page may get.
    """
    each = (
        0.36 if one in _NARROW else 1.0 if one in _WIDE or ord(one) > 0x2E80
        else 0.72 if one.isupper() else 0.63
        for one in text
    )  # fmt: skip
    return size * sum(each) * (1.1 if bold else 1.0)


@dataclass(frozen=True)
class Axis:
    """Maps values from `low`..`high` to pixels from `start`..`end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Returns the pixel of a value, held to the axis."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, n: int = 6) -> list[tuple[float, str]]:
        """Returns up to about `n` round values on the axis, written with equal decimals."""
        values = _log_ticks(self.low, self.high, n) if self.log else []
        if len(values) < 3:
            values = _ticks(self.low, self.high, n)
        if self.log:
            return [(value, f"{value:,.10g}") for value in values]
        step = min((b - a for a, b in pairwise(values)), default=1.0)
        places = max(0, -math.floor(math.log10(step) + 1e-9))
        if step > 0 and abs(step * 10**places - round(step * 10**places)) > 1e-6:
            places += 1
        return [(value, figures.fixed(value, places)) for value in values]


def axis(values: Iterable[float], start: float, end: float, pad: float, log: bool) -> Axis:
    """Returns the axis that holds all values with a margin of `pad` of their span."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = min(finite), max(finite)
    if log:
        room = max(math.log(high / low) * pad, 0.08)
        return Axis(low * math.exp(-room), high * math.exp(room), start, end, True)
    span = high - low or abs(high) * 0.1 or 1.0
    return Axis(low - span * pad, high + span * pad, start, end)


def _ticks(low: float, high: float, n: int) -> list[float]:
    """Steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, n: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [float(f"{k}e{d}") for d in decades for k in steps]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= n + 1:
            return inside
    return inside


@dataclass(frozen=True)
class Label:
    """A text placed beside its point; `leader` is drawn from the point when it is far."""

    text: str
    x: float
    y: float
    anchor: Literal["start", "middle", "end"]
    box: Box
    leader: tuple[float, float, float, float] | None
    """From the point's edge to the text, when that stands away from it."""


def place(
    points: Sequence[tuple[str, float, float, float, float]],
    bounds: Box,
    taken: Sequence[Box],
    avoid: Sequence[Box] = (),
) -> list[Label | None]:
    """Returns a label for each (text, its width, x, y, radius), or None where no room is free.

    Earlier points choose first. No label overlaps another, a leader, a box in `taken`, or
    the bounds; boxes in `avoid` are kept clear while there is room elsewhere.
    """
    boxes, drawn, labels = list(taken), list[Box](), list[Label | None]()
    for point in points:
        chosen: Label | None = None
        for label in _around(*point):
            if not _inside(label.box, bounds) or _hits(label.box, boxes):
                continue
            if any(_hits(dot, drawn) for dot in _trail(label)):
                continue
            if not _hits(label.box, avoid):
                chosen = label
                break
            chosen = chosen or label
        labels.append(chosen)
        if chosen is not None:
            boxes += [chosen.box, *_trail(chosen)]
            drawn += [chosen.box, *_trail(chosen)]
    return labels


def _hits(one: Box, boxes: Iterable[Box]) -> bool:
    left, top, right, bottom = one
    return any(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in boxes)


def _trail(label: Label) -> list[Box]:
    """Small boxes along the leader."""
    if label.leader is None:
        return []
    x1, y1, x2, y2 = label.leader
    n = max(2, int(math.hypot(x2 - x1, y2 - y1) / 4))
    dots = (((x2 - x1) * i / n + x1, (y2 - y1) * i / n + y1) for i in range(n))
    return [(x - 1.5, y - 1.5, x + 1.5, y + 1.5) for x, y in dots]


def _around(text: str, width: float, x: float, y: float, radius: float) -> Iterable[Label]:
    high = FONT * 1.3
    for distance in (4, 10, 18, 28, 40, 54, 70, 90, 112):
        for angle in (0, 180, -45, -135, 45, 135, -90, 90, -20, -160, 20, 160, -70, 70, -110, 110):
            reach = radius + distance
            at_x = x + reach * math.cos(math.radians(angle))
            at_y = y + reach * math.sin(math.radians(angle))
            side = math.cos(math.radians(angle))
            anchor: Literal["start", "middle", "end"] = (
                "start" if side > 0.3 else "end" if side < -0.3 else "middle"
            )
            left = at_x - (0 if anchor == "start" else width if anchor == "end" else width / 2)
            # A label right above or below stands on its edge, not on its middle.
            middle = at_y + high / 2 * (1 if angle == 90 else -1 if angle == -90 else 0)
            box = (left - 2, middle - high / 2, left + width + 2, middle + high / 2)
            leader = _leader(x, y, radius, box) if distance > 10 else None
            yield Label(text, at_x, middle + FONT * 0.35, anchor, box, leader)


def _leader(x: float, y: float, radius: float, box: Box) -> tuple[float, float, float, float]:
    to_x, to_y = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    reach = math.hypot(to_x - x, to_y - y)
    edge = min(radius / reach, 1.0) if reach else 0.0
    return x + edge * (to_x - x), y + edge * (to_y - y), to_x, to_y


def _inside(box: Box, bounds: Box) -> bool:
    return (
        box[0] >= bounds[0] and box[1] >= bounds[1] and box[2] <= bounds[2] and box[3] <= bounds[3]
    )


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Returns positions near the wanted ones, at least `gap` apart and within the range.

    When they cannot all fit they share the range evenly.

    >>> spread([10.0, 11.0, 50.0], 8.0, 0.0, 100.0)
    [6.5, 14.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    if len(order) > 1 and gap * (len(order) - 1) > high - low:
        gap = (high - low) / (len(order) - 1)
    groups: list[tuple[float, int]] = []  # the middle of a run of touching labels, and its length
    for i in order:
        groups.append((wanted[i], 1))
        groups[-1] = _hold(groups[-1], gap, low, high)
        while (
            len(groups) > 1
            and _top(groups[-2], gap) + gap > groups[-1][0] - (groups[-1][1] - 1) * gap / 2 + 1e-9
        ):
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [_hold(((a * n + b * m) / (n + m), n + m), gap, low, high)]
    found = [middle + (k - (n - 1) / 2) * gap for middle, n in groups for k in range(n)]
    placed = [0.0] * len(order)
    for i, position in zip(order, found, strict=True):
        placed[i] = position
    return placed


def _top(group: tuple[float, int], gap: float) -> float:
    return group[0] + (group[1] - 1) * gap / 2


def _hold(group: tuple[float, int], gap: float, low: float, high: float) -> tuple[float, int]:
    half = (group[1] - 1) * gap / 2
    return min(max(group[0], low + half), max(high - half, low + half)), group[1]
