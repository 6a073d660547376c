# SPDX-License-Identifier: Apache-2.0
"""The charts of latency distributions, throughput by batch size, and file sizes, as SVG.

Each takes the width in pixels (a page holds a wide and a narrow drawing of each) and
returns None when there is nothing to draw; `EMPTY` says so in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from burnish.optimizing.report import figures, names
from burnish.optimizing.report.pareto import pareto
from burnish.optimizing.report.rows import Row, rows
from burnish.optimizing.report.svg import Axis, axis, figure, spread, tag, text_width
from burnish.optimizing.result import Result

__all__ = ["EMPTY", "latencies", "pareto", "sizes", "throughput"]

EMPTY = {
    "pareto": "Quality and latency were not both measured, so there is nothing to plot.",
    "latencies": "No latencies were recorded.",
    "throughput": "Throughput by batch size was not measured.",
    "sizes": "No file sizes were recorded.",
}
_STRIP = 90
_LOG_FROM = 6.0
_NARROW = 500


def latencies(result: Result, width: int = 960) -> Markup | None:
    """Returns a strip of round medians for each row, with quartiles, median and p99."""
    found = [(row, _rounds(row)) for row in rows(result)]
    found = [(row, values) for row, values in found if len(values)]
    if not found:
        return None
    wide = width > _NARROW
    left, right = (_names_width([row for row, _ in found]), 168.0) if wide else (8.0, 12.0)
    pitch, top = (34, 30) if wide else (54, 6)
    bottom = top + pitch * len(found)
    tails = [_tail(row) for row, _ in found]
    every = [*np.concatenate([values for _, values in found]), *(t for t in tails if t)]
    log = max(every) / min(every) > _LOG_FROM
    xs = (
        axis(every, left, width - right, 0.04, True)
        if log
        else Axis(0.0, max(every) * 1.04, left, width - right)
    )
    parts = _grid(xs, top, bottom, 8 if wide else 5)
    if wide:
        heading = "p50 [95 % interval], ms"
        parts.append(
            tag("text", heading, x=width - 2, y=top - 12, text_anchor="end", class_="axis-title")
        )
    for i, ((row, values), tail) in enumerate(zip(found, tails, strict=True)):
        middle = top + pitch * (i + 0.5) + (0 if wide else 12)
        parts.append(_strip(row, values, tail, xs, middle))
        said = _p50(row)
        if wide:
            label = names.shorten(row.label, 36)
            end, base = left - 12, middle + 4
            parts.append(
                tag("text", label, x=end, y=base, text_anchor="end", class_=f"label {row.look}")
            )
        else:
            base = middle - 17
            label = names.shorten(row.label, 26)
            parts.append(tag("text", label, x=left, y=base, class_=f"label halo {row.look}"))
        parts.append(tag("text", said, x=width - 2, y=base, text_anchor="end", class_="value halo"))
    parts.append(_x_title(f"latency of one request, ms{', log scale' if log else ''}", xs, bottom))
    described = "; ".join(
        f"{row.label}: median {figures.quantity(float(np.median(values)), 'ms')}, from "
        f"{figures.quantity(float(min(values)), 'ms')} to "
        f"{figures.quantity(float(max(values)), 'ms')}"
        for row, values in found
    )
    return figure("latencies", "Latency distributions", described, width, bottom + 48, parts)


def _rounds(row: Row) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(row.candidate.detail.get("round_medians_ms", ()), dtype=np.float64)
    return values[np.isfinite(values) & (values > 0)]


def _tail(row: Row) -> float | None:
    value = row.candidate.detail.get("percentiles_ms", {}).get("p99")
    return float(value) if value is not None and math.isfinite(value) and value > 0 else None


def _p50(row: Row) -> str:
    latency = row.candidate.measured.get("latency")
    if latency is None:
        return figures.quantity(float(np.median(_rounds(row))), "ms")
    return f"{figures.value(latency, unit=False)} {figures.interval(latency)}".rstrip()


def _strip(
    row: Row,
    values: np.ndarray[Any, np.dtype[np.float64]],
    tail: float | None,
    xs: Axis,
    middle: float,
) -> Markup:
    shown = np.sort(values)
    if len(shown) > _STRIP:  # evenly spaced quantiles keep the shape, and the ends
        shown = np.quantile(shown, np.linspace(0, 1, _STRIP))
    # The golden ratio scatters neighbours apart, the same way each time.
    heights = ((np.arange(len(shown)) * 0.6180339887) % 1 - 0.5) * 16
    dots = [
        tag("circle", cx=xs.at(float(x)), cy=middle + float(dy), r=1.5, class_="dust")
        for x, dy in zip(shown, heights, strict=True)
    ]
    low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    a, b, m = xs.at(low), xs.at(high), xs.at(median)
    box = tag("rect", x=a, y=middle - 9, width=max(b - a, 0.5), height=18, rx=2, class_="quartiles")
    line = tag("line", x1=m, x2=m, y1=middle - 12, y2=middle + 12, class_="median")
    marks = [*dots, box, line]
    if tail is not None:
        x = xs.at(tail)
        d = f"M{x:.1f},{middle - 5:.1f}l5,5l-5,5l-5,-5z"
        marks.append(tag("path", d=d, class_="tail"))
    return tag("g", *marks, class_=f"mark {row.look}")


@dataclass(frozen=True)
class _Line:
    row: Row
    points: tuple[tuple[float, float, float, float], ...]
    """Batch size, samples per second, and the interval of the latter."""


def throughput(result: Result, width: int = 960, labelled: int = 6) -> Markup | None:
    """Returns samples per second against batch size, each at its best threads and streams.

    The chosen one, the baselines and the quickest few are named; the rest stay grey.
    """
    lines = [_line(row) for row in rows(result)]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    wide = width > _NARROW
    fronts = sorted(lines, key=lambda one: (_weight(one.row), -one.points[-1][1]))[:labelled]
    tags = {id(one): names.shorten(one.row.label, 34 if wide else 16) for one in fronts}
    right = max(text_width(tags[id(one)], bold=one.row.chosen) for one in fronts) + 18
    left, top, height = (62.0 if wide else 46.0), 30.0, (380 if wide else 330)
    bottom = height - 52.0
    batches = sorted({p[0] for line in lines for p in line.points})
    low, high = math.log2(batches[0]), math.log2(batches[-1])
    xs = Axis(low - 0.15, high + 0.15, left, width - right)
    ys = Axis(0.0, max(p[3] for line in lines for p in line.points) * 1.05, bottom, top)
    parts = []
    for value, text in ys.ticks(5):
        y = ys.at(value)
        parts.append(tag("line", x1=xs.start, x2=xs.end, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", text, x=left - 8, y=y + 4, text_anchor="end", class_="tick"))
    last = -math.inf
    for batch in batches:
        x, text = xs.at(math.log2(batch)), f"{batch:g}"
        parts.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="axis"))
        if x - last > text_width(text) + 8:
            parts.append(tag("text", text, x=x, y=bottom + 19, text_anchor="middle", class_="tick"))
            last = x
    parts.append(tag("line", x1=xs.start, x2=xs.end, y1=bottom, y2=bottom, class_="axis"))
    parts += [_curve(one, xs, ys, id(one) in tags) for one in reversed(_drawn(lines, fronts))]
    wanted = [ys.at(one.points[-1][1]) for one in fronts]
    for one, y, at in zip(fronts, wanted, spread(wanted, 16, top, bottom), strict=True):
        x = xs.at(math.log2(one.points[-1][0]))
        look = one.row.look
        bend = f"M{x + 5:.1f},{y:.1f}L{xs.end + 10:.1f},{at:.1f}"
        parts.append(tag("path", d=bend, class_="leader"))
        parts.append(tag("text", tags[id(one)], x=xs.end + 14, y=at + 4, class_=f"label {look}"))
    parts.append(
        tag("text", "samples per second (higher is better)", x=2, y=top - 14, class_="axis-title")
    )
    parts.append(_x_title("batch size, log scale", xs, bottom))
    described = "; ".join(
        f"{one.row.label}: " + ", ".join(f"{p[1]:,.0f} at batch {p[0]:g}" for p in one.points)
        for one in lines
    )
    return figure("throughput", "Throughput by batch size", described, width, height, parts)


def _weight(row: Row) -> int:
    if row.chosen:
        return 0
    return {"fp32": 1, "eager": 2, "kept": 3, "other fp32": 4}[row.role]


def _drawn(lines: Sequence[_Line], fronts: Sequence[_Line]) -> list[_Line]:
    return [*fronts, *(line for line in lines if line not in fronts)]


def _line(row: Row) -> _Line:
    best: dict[float, tuple[float, float, float, float]] = {}
    for one in row.candidate.detail.get("throughput", ()):
        batch, rate = float(one["batch_size"]), float(one["samples_per_s"])
        # An end that is not known, of a single call, is None.
        low, high = (rate if (end := one.get(key)) is None else end for key in ("low", "high"))
        usable = batch > 0 and all(map(math.isfinite, (rate, low, high)))
        if usable and (batch not in best or rate > best[batch][1]):
            best[batch] = (batch, rate, low, high)
    return _Line(row, tuple(best[batch] for batch in sorted(best)))


def _curve(line: _Line, xs: Axis, ys: Axis, labelled: bool) -> Markup:
    at = [(xs.at(math.log2(p[0])), *map(ys.at, p[1:])) for p in line.points]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in at)
    parts = [tag("title", line.row.label)]
    if labelled:
        there = [f"{x:.1f},{high:.1f}" for x, _, _, high in at]
        back = [f"{x:.1f},{low:.1f}" for x, _, low, _ in reversed(at)]
        parts.append(tag("path", d="M" + "L".join(there + back) + "z", class_="band"))
    parts.append(tag("path", d=path, class_="curve"))
    parts += [tag("circle", cx=x, cy=y, r=2.6, class_="dot") for x, y, _, _ in at if labelled]
    look = line.row.look if labelled else "rest"
    return tag("g", *parts, class_=f"mark {look} {line.row.role.split()[0]}")


def sizes(result: Result, width: int = 960) -> Markup | None:
    """Returns a bar for each model's file; engines that run the same file share it."""
    found: dict[str, tuple[Row, float]] = {}
    for row in rows(result):
        measured = row.candidate.measured.get("size")
        if row.role == "eager" or measured is None or not math.isfinite(measured.value):
            continue
        key = row.candidate.model or row.label
        if key not in found or row.chosen:
            found[key] = (row, measured.value)
    if not found:
        return None
    wide = width > _NARROW
    base = result.fp32.measured.get("size")
    left = _names_width([row for row, _ in found.values()], plain=True) if wide else 8.0
    pitch = 28 if wide else 46
    xs = Axis(0.0, max(size for _, size in found.values()) or 1.0, left, width - 128.0)
    parts = []
    for i, (row, size) in enumerate(found.values()):
        top = 8 + pitch * i + (0 if wide else 18)
        label = names.shorten(row.name, 36)
        if wide:
            parts.append(tag("text", label, x=left - 12, y=top + 14, text_anchor="end",
                             class_=f"label {row.look}"))  # fmt: skip
        else:
            parts.append(tag("text", label, x=left, y=top - 5, class_=f"label {row.look}"))
        end = xs.at(size)
        parts.append(tag("rect", x=left, y=top, width=max(end - left, 1.0), height=18, rx=2,
                         class_=f"bar {row.look}"))  # fmt: skip
        said = figures.quantity(size, "bytes")
        if base is not None and base.value > 0 and row.role == "kept":
            said += f" · {figures.fixed(100 * size / base.value, 0)} %"
        parts.append(tag("text", said, x=end + 8, y=top + 14, class_="value"))
    bottom = 8 + pitch * len(found)
    parts.append(tag("line", x1=left, x2=left, y1=2, y2=bottom, class_="axis"))
    parts.append(_x_title("size of the file, MB (share of the original)", xs, bottom - 18))
    described = "; ".join(
        f"{row.name}: {figures.quantity(s, 'bytes')}" for row, s in found.values()
    )
    return figure("sizes", "File sizes", described, width, bottom + 30, parts)


def _names_width(found: Sequence[Row], plain: bool = False) -> float:
    return 14 + max(
        text_width(names.shorten(row.name if plain else row.label, 36), bold=row.chosen)
        for row in found
    )


def _grid(xs: Axis, top: float, bottom: float, n: int) -> list[Markup]:
    parts = []
    for value, text in xs.ticks(n):
        x = xs.at(value)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(tag("text", text, x=x, y=bottom + 17, text_anchor="middle", class_="tick"))
    return parts


def _x_title(text: str, xs: Axis, bottom: float) -> Markup:
    middle = max((xs.start + xs.end) / 2, text_width(text, 12) / 2 + 2)
    return tag("text", text, x=middle, y=bottom + 42, text_anchor="middle", class_="axis-title")
