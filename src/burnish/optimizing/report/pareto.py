# SPDX-License-Identifier: Apache-2.0
"""The plot of quality against latency, size as area: which candidates are worth having.

The vertical whisker of a candidate is the paired interval of its difference from the best
fp32 engine, laid at the baseline's value, since that is what the verdict rests on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from burnish.core.measurement import Measurement
from burnish.optimizing.report import figures, names
from burnish.optimizing.report.rows import Row, rows
from burnish.optimizing.report.svg import (
    Axis,
    Box,
    Label,
    axis,
    figure,
    join,
    place,
    tag,
    text_width,
)
from burnish.optimizing.result import Result

_LOG_FROM = 5.0
_FAR = 1.5


@dataclass(frozen=True)
class _Point:
    row: Row
    latency: Measurement
    quality: Measurement
    low: float
    high: float
    """The whisker, on the axis of quality."""


def pareto(result: Result, width: int = 960) -> Markup | None:
    """Returns the plot, `width` pixels wide, or None when nothing has both figures."""
    points, far = _near(_points(result))
    if not points:
        return None
    wide = width > 500
    height = 480 if wide else 400
    left, top, right, bottom = (66.0 if wide else 50.0), 30.0, width - 16.0, height - 52.0
    limits = _limits(result, points)
    spans = [value for p in points for value in (p.latency.low, p.latency.high)]
    positive = [value for value in spans if value > 0]
    log = len(positive) == len(spans) and max(spans) / min(spans) > _LOG_FROM
    xs = axis([*spans, *limits[:1]], left, right, 0.09, log)
    ys = axis([v for p in points for v in (p.low, p.high)] + limits[1:], bottom, top, 0.12, False)
    name = names.metric(result)
    if points[0].quality.quantity == "agreement":
        name = "agreement with fp32"
    higher = points[0].quality.better == "higher"
    parts = _frame(xs, ys, wide)
    goal, boxes, lines = _goal(limits, xs, ys, higher)
    parts += goal
    unit = points[0].quality.unit
    parts += _titles(name, unit, higher, xs, ys, height)
    parts.append(_frontier(points, xs, ys, higher))
    for i, p in enumerate(far):
        text = f"{names.shorten(p.row.label, 30 if wide else 18)}: {figures.value(p.latency)} →"
        at = bottom - 10 - 18 * i
        parts.append(tag("text", text, x=right - 6, y=at, text_anchor="end", class_="tick halo"))
        boxes.append((right - 8 - text_width(text, 12), at - 12, right, at + 4))
    marks, discs = _marks(result, points, xs, ys, wide)
    parts += marks
    ranked = sorted(zip(points, discs, strict=True), key=lambda one: _rank(one[0], points, higher))
    wanted = []
    for p, disc in ranked:
        text = names.shorten(p.row.label, 36 if wide else 22)
        radius = (disc[2] - disc[0]) / 2
        x, y = xs.at(p.latency.value), ys.at(p.quality.value)
        wanted.append((text, text_width(text, bold=p.row.chosen), x, y, radius))
    whiskers = [_upright(p, xs, ys) for p in points]
    obstacles = [*boxes, *map(_shrunk, discs), *(whiskers if wide else ())]
    avoid = [*lines, *_steps(points, xs, ys, higher), *whiskers]
    placed = place(wanted, (left + 2, top + 2, right - 2, bottom - 2), obstacles, avoid)
    for (p, _), label in zip(ranked, placed, strict=True):
        if label is not None:
            parts += _label(label, p.row.look)
    description = f"{figures.count(len(points), 'point')}, lower latency to the left. " + "; ".join(
        f"{p.row.label}: {_said(p, name)}" for p in points
    )
    title = f"{name[:1].upper() + name[1:]} against latency"
    if "latency" in result.best.measured:
        description += f". Chosen: {names.printable(result.best.name)}."
    return figure("pareto", title, description, width, height, parts)


def _points(result: Result) -> list[_Point]:
    every = rows(result)
    kept = [row for row in every if row.role == "kept"] or every
    key = "metric" if any("metric" in row.candidate.measured for row in kept) else "agreement"
    base = result.fp32.measured.get(key)
    points = []
    for row in every:
        measured = row.candidate.measured
        if "latency" not in measured or key not in measured:
            continue
        quality, drop = measured[key], measured.get("drop")
        low, high = quality.low, quality.high
        if key == "metric" and drop is not None and base is not None:
            sign = -1 if quality.better == "higher" else 1
            low, high = sorted((base.value + sign * drop.low, base.value + sign * drop.high))
        elif (
            key == "metric"
            and row.role != "kept"
            and any("drop" in r.candidate.measured for r in kept)
        ):
            low = high = quality.value  # the reference itself has no difference
        values = (measured["latency"].value, quality.value, low, high)
        if all(map(math.isfinite, values)):
            points.append(_Point(row, measured["latency"], quality, low, high))
    return points


def _near(points: list[_Point]) -> tuple[list[_Point], list[_Point]]:
    """Parts off the source framework's run where it would squeeze all others into a corner.

    It is then named at the edge, with its latency, instead of drawn.
    """
    others = [p.latency.value for p in points if p.row.role != "eager"]
    edge = _FAR * max(others) if len(others) > 1 else math.inf
    far = [p for p in points if p.row.role == "eager" and p.latency.value > edge]
    return [p for p in points if p not in far], far


def _limits(result: Result, points: list[_Point]) -> list[float]:
    """The goal's latency limit and quality limit; nan where there is none.

    A limit that all keep by far is left out, since it would squeeze the plot.
    """
    latency, base = math.inf, result.fp32.measured
    if result.goal.max_latency_ms is not None:
        latency = result.goal.max_latency_ms
    if result.goal.min_speedup is not None and "latency" in base:
        latency = min(latency, base["latency"].value / result.goal.min_speedup)
    quality = math.nan
    if "metric" in base and points[0].quality.quantity != "agreement":
        drop = result.goal.drop_limit(base["metric"].value)
        if drop is not None:
            sign = -1 if base["metric"].better == "higher" else 1
            quality = base["metric"].value + sign * drop
            low, high = min(p.low for p in points), max(p.high for p in points)
            beyond = low - quality if sign < 0 else quality - high
            if beyond > 1.5 * (high - low) > 0:
                quality = math.nan
    if latency > 2 * max(p.latency.high for p in points):
        latency = math.nan
    return [latency if math.isfinite(latency) else math.nan, quality]


def _frame(xs: Axis, ys: Axis, wide: bool) -> list[Markup]:
    parts = []
    for value, text in ys.ticks(6 if wide else 5):
        y = ys.at(value)
        parts.append(tag("line", x1=xs.start, x2=xs.end, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", text, x=xs.start - 8, y=y + 4, text_anchor="end", class_="tick"))
    for value, text in xs.ticks(9 if wide else 5):
        x = xs.at(value)
        parts.append(tag("line", x1=x, x2=x, y1=ys.start, y2=ys.start + 5, class_="axis"))
        parts.append(tag("text", text, x=x, y=ys.start + 19, text_anchor="middle", class_="tick"))
    parts.append(tag("line", x1=xs.start, x2=xs.end, y1=ys.start, y2=ys.start, class_="axis"))
    return parts


def _titles(name: str, unit: str, higher: bool, xs: Axis, ys: Axis, height: int) -> list[Markup]:
    better = "higher is better" if higher else "lower is better"
    scale = ", log scale" if xs.log else ""
    middle = (xs.start + xs.end) / 2
    said = f"{names.shorten(name, 24)}{f', {unit}' if unit else ''} ({better})"
    return [
        tag("text", said, x=2, y=ys.end - 14, class_="axis-title"),
        tag("text", f"latency at the median, ms{scale} (lower is better)", x=middle,
            y=height - 8, text_anchor="middle", class_="axis-title"),
    ]  # fmt: skip


def _goal(
    limits: list[float], xs: Axis, ys: Axis, higher: bool
) -> tuple[list[Markup], list[Box], list[Box]]:
    """Shades what the goal rules out and names its limits; also the names' and lines' boxes."""
    latency, quality = limits
    parts, boxes, lines = list[Markup](), list[Box](), list[Box]()
    x = xs.at(latency) if not math.isnan(latency) else xs.end
    if not math.isnan(latency):
        parts.append(_shade(x, ys.end, xs.end, ys.start))
        parts.append(tag("line", x1=x, x2=x, y1=ys.end, y2=ys.start, class_="limit"))
        text = f"goal: at most {figures.limit(latency, 'ms')}"
        width, left = text_width(text, 12), x + 6
        if left + width > xs.end:
            left = x - 6 - width
        boxes.append((left, ys.end + 2, left + width, ys.end + 18))
        lines.append((x - 1, ys.end, x + 1, ys.start))
        parts.append(tag("text", text, x=left, y=ys.end + 14, class_="limit-label halo"))
    if not math.isnan(quality):
        y = ys.at(quality)
        parts.append(_shade(xs.start, y, x, ys.start) if higher else _shade(xs.start, ys.end, x, y))
        parts.append(tag("line", x1=xs.start, x2=xs.end, y1=y, y2=y, class_="limit"))
        words = "at least" if higher else "at most"
        text = f"goal: {words} {quality:.4g}"
        width = text_width(text, 12)
        text_y = y + 15 if higher else y - 6
        boxes.append((xs.end - width - 6, text_y - 12, xs.end - 4, text_y + 3))
        lines.append((xs.start, y - 1, xs.end, y + 1))
        parts.append(
            tag("text", text, x=xs.end - 6, y=text_y, text_anchor="end", class_="limit-label halo")
        )
    return parts, boxes, lines


def _shade(left: float, top: float, right: float, bottom: float) -> Markup:
    return tag(
        "rect", x=left, y=top, width=max(right - left, 0.0), height=max(bottom - top, 0.0),
        class_="outside",
    )  # fmt: skip


def frontier(points: list[tuple[float, float]]) -> list[int]:
    """Returns which (latency, loss) points no other beats in both, from fast to slow.

    >>> frontier([(3.0, 1.0), (2.0, 2.0), (4.0, 1.0), (2.5, 2.5)])
    [1, 0]
    """
    found, least = list[int](), math.inf
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if points[i][1] < least:
            found.append(i)
            least = points[i][1]
    return found


def _on_frontier(points: list[_Point], higher: bool) -> list[_Point]:
    sign = -1.0 if higher else 1.0
    order = frontier([(p.latency.value, sign * p.quality.value) for p in points])
    return [points[i] for i in order]


def _frontier(points: list[_Point], xs: Axis, ys: Axis, higher: bool) -> Markup:
    """Steps: between two points of the frontier only the worse quality is on offer."""
    found = _on_frontier(points, higher)
    path = f"M{xs.at(found[0].latency.value):.1f},{ys.start if higher else ys.end:.1f}"
    for p in found:
        path += f"H{xs.at(p.latency.value):.1f}V{ys.at(p.quality.value):.1f}"
    return tag("path", d=path + f"H{xs.end:.1f}", class_="frontier")


def _steps(points: list[_Point], xs: Axis, ys: Axis, higher: bool) -> list[Box]:
    """Boxes around the frontier's lines, for labels to keep clear of."""
    found, boxes = _on_frontier(points, higher), list[Box]()
    edge = ys.start if higher else ys.end
    ends = [xs.at(p.latency.value) for p in found[1:]] + [xs.end]
    for p, end in zip(found, ends, strict=True):
        x, y = xs.at(p.latency.value), ys.at(p.quality.value)
        boxes += [(x, y - 2, end, y + 2), (x - 2, min(edge, y), x + 2, max(edge, y))]
        edge = y
    return boxes


def _rank(point: _Point, points: list[_Point], higher: bool) -> tuple[int, float]:
    """Who chooses the place of its label first."""
    if point.row.chosen:
        return 0, 0.0
    if point.row.role == "fp32":
        return 1, 0.0
    if point in _on_frontier(points, higher):
        return 2, point.latency.value
    return 3 if point.row.role in ("eager", "other fp32") else 4, point.latency.value


def _marks(
    result: Result, points: list[_Point], xs: Axis, ys: Axis, wide: bool
) -> tuple[list[Markup], list[Box]]:
    sizes = [p.row.candidate.measured.get("size") for p in points]
    largest = max((one.value for one in sizes if one is not None), default=0.0)
    parts, discs = list[Markup](), list[Box]()
    for p, size in zip(points, sizes, strict=True):
        x, y, look = xs.at(p.latency.value), ys.at(p.quality.value), p.row.look
        radius = 5.0
        if size is not None and largest > 0:
            radius = max(3.0, (17 if wide else 13) * math.sqrt(size.value / largest))
        whiskers = [(xs.at(p.latency.low), y, xs.at(p.latency.high), y)]
        whiskers.append((x, ys.at(p.low), x, ys.at(p.high)))
        lines = [tag("line", x1=a, y1=b, x2=c, y2=d) for a, b, c, d in whiskers]
        shape = tag("circle", cx=x, cy=y, r=radius, class_="disc" if size else "disc unsized")
        dot = tag("circle", cx=x, cy=y, r=1.6, class_="dot")
        tip = tag("title", f"{p.row.label}: {_said(p, names.metric(result))}")
        parts.append(tag("g", tip, shape, *lines, dot, class_=f"mark {look}"))
        discs.append((x - radius, y - radius, x + radius, y + radius))
    # The chosen mark is drawn last, on top of its neighbours.
    order = sorted(range(len(parts)), key=lambda i: points[i].row.chosen)
    return [join([parts[i] for i in order])], discs


def _shrunk(box: Box) -> Box:
    """The square inside a disc's bounds that a label may not enter; corners are free."""
    trim = (box[2] - box[0]) * 0.06
    return box[0] + trim, box[1] + trim, box[2] - trim, box[3] - trim


def _upright(point: _Point, xs: Axis, ys: Axis) -> Box:
    x = xs.at(point.latency.value)
    low, high = sorted((ys.at(point.low), ys.at(point.high)))
    return x - 1.5, low, x + 1.5, high


def _label(label: Label, look: str) -> list[Markup]:
    text = tag(
        "text",
        label.text,
        x=label.x,
        y=label.y,
        text_anchor=label.anchor,
        class_=f"label halo {look}",
    )
    if label.leader is None:
        return [text]
    x1, y1, x2, y2 = label.leader
    return [tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader"), text]


def _said(point: _Point, name: str) -> str:
    size = point.row.candidate.measured.get("size")
    text = f"{figures.full(point.latency)}, {name} {figures.value(point.quality)}"
    return f"{text}, {figures.value(size)}" if size else text
