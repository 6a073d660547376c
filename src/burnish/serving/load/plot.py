# SPDX-License-Identifier: Apache-2.0
"""Two charts as inline SVG: latency by percentile, and latency by the rate that was offered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup, escape

from burnish.serving.load.result import LoadResult
from burnish.serving.load.sweep import SweepResult

WIDTH, HEIGHT = 860, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 112, 16, 48
_CURVES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9))
_LEVELS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999)
_APART = 15.0

Place = Callable[[float], float]


def by_percentile(result: LoadResult) -> Markup:
    """Returns the latency against the percentile: from when due, and from sending."""
    n = max(result.ok, 2)
    top = max(99.0, 100 * (1 - 1 / n))
    levels = [level for level in _LEVELS if level <= top]
    fine = [100 * (1 - 10 ** (-i / 20)) for i in range(6, 101)]
    points = sorted({*levels, *(one for one in fine if 50 <= one <= top), top})
    curves = [("from when due", result.latency.percentiles_ms(points))]
    if not result.closed:
        curves.append(("from sending", result.service.percentiles_ms(points)))
    highest = max((max(values) for _, values in curves if result.ok), default=1.0)
    limit = result.slo.limit_ms if result.slo else None
    y = _linear(0.0, 1.08 * max(highest, limit or 0.0), HEIGHT - _BOTTOM, _TOP)
    x = _linear(_nines(50), _nines(top), _LEFT, WIDTH - _RIGHT)
    parts = [*_grid_y(_round_steps(max(highest, limit or 0.0)), y)]
    parts += _grid_x([(x(_nines(level)), f"p{level:g}") for level in levels], "percentile")
    parts += _limit(limit, y, str(result.slo))
    labels = []
    for i, (name, values) in enumerate(curves):
        if result.ok:
            line = [(x(_nines(one)), y(value)) for one, value in zip(points, values, strict=True)]
            parts.append(_line(line, i))
            labels.append((line[-1][1], name, i))
    return _svg("Latency by percentile", [*parts, *_labels(labels)])


def by_rate(sweep: SweepResult) -> Markup:
    """Returns percentiles of the latency against the offered rate, both on log scales."""
    steps = sorted(sweep.steps, key=lambda step: step.per_s)
    rates = [step.per_s for step in steps]
    curves = [(name, [step.result.percentile_ms(at) for step in steps]) for name, at in _CURVES]
    seen = [one for _, values in curves for one in values if one > 0] + [sweep.slo.limit_ms]
    y = _log(min(seen) / 1.3, max(seen) * 1.3, HEIGHT - _BOTTOM, _TOP)
    x = _log(min(rates) / 1.1, max(rates) * 1.1, _LEFT, WIDTH - _RIGHT)
    parts = [*_grid_y(_decades(min(seen) / 1.3, max(seen) * 1.3), y)]
    ticks = _decades(min(rates) / 1.1, max(rates) * 1.1)
    parts += _grid_x([(x(one), f"{one:g}") for one in ticks], "offered, requests/s")
    parts += _limit(sweep.slo.limit_ms, y, str(sweep.slo))
    if sweep.best is not None:
        at = x(sweep.best.per_s)
        parts.append(_tag("line", class_="knee", x1=at, x2=at, y1=_TOP, y2=HEIGHT - _BOTTOM))
        parts.append(
            _tag("text", f"{sweep.best.per_s:.4g}/s", class_="knee", x=at - 5, y=_TOP + 12,
                 text_anchor="end")
        )  # fmt: skip
    labels = []
    for i, (name, values) in enumerate(curves):
        line = [(x(rate), y(value)) for rate, value in zip(rates, values, strict=True) if value > 0]
        if line:
            parts.append(_line(line, i))
            parts += [_tag("circle", class_=f"c{i}", cx=px, cy=py, r=3) for px, py in line]
            labels.append((line[-1][1], name, i))
    return _svg("Latency by offered rate", [*parts, *_labels(labels)])


def _nines(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def _linear(low: float, high: float, start: float, end: float) -> Place:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _log(low: float, high: float, start: float, end: float) -> Place:
    place = _linear(math.log(low), math.log(high), start, end)
    return lambda value: place(math.log(value))


def _round_steps(highest: float) -> list[float]:
    """Returns about five round values from 0 up to the highest.

    >>> _round_steps(23.0)
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    step = highest / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(step))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= step * 0.999)
    return [round(i * step, 9) for i in range(int(highest / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten between two values; if few, all digits.

    >>> _decades(3, 40)
    [5.0, 10.0, 20.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [one * 10.0**power for power in powers for one in digits]
        found = [float(f"{one:.3g}") for one in found if low <= one <= high]
        if len(found) >= 3:
            break
    return found


def _grid_y(values: Iterable[float], y: Place) -> list[Markup]:
    parts = []
    for value in values:
        at = y(value)
        parts.append(_tag("line", class_="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at))
        parts.append(_tag("text", f"{value:g}", x=_LEFT - 8, y=at + 4, text_anchor="end"))
    parts.append(_tag("text", "ms", x=_LEFT - 8, y=HEIGHT - 8, text_anchor="end"))
    return parts


def _grid_x(ticks: Sequence[tuple[float, str]], title: str) -> list[Markup]:
    bottom = HEIGHT - _BOTTOM
    parts, last = [], -math.inf
    for at, text in ticks:
        parts.append(_tag("line", class_="grid", x1=at, x2=at, y1=_TOP, y2=bottom))
        if at - last > 8.0 * len(text):
            parts.append(_tag("text", text, x=at, y=bottom + 18, text_anchor="middle"))
            last = at
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return [*parts, _tag("text", title, x=middle, y=HEIGHT - 8, text_anchor="middle")]


def _limit(limit_ms: float | None, y: Place, text: str) -> list[Markup]:
    if limit_ms is None:
        return []
    at = y(limit_ms)
    return [
        _tag("line", class_="limit", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at),
        _tag("text", text, class_="limit", x=_LEFT + 6, y=at - 5),
    ]


def _line(points: Sequence[tuple[float, float]], number: int) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _tag("polyline", class_=f"curve c{number}", points=path)


def _labels(wanted: Sequence[tuple[float, str, int]]) -> list[Markup]:
    """Returns the curves' names at their right ends, pushed apart where they would overlap."""
    parts, last = [], math.inf
    for at, name, number in sorted(wanted, reverse=True):
        place = min(at + 4, last - _APART)
        parts.append(_tag("text", name, class_=f"c{number}", x=WIDTH - _RIGHT + 6, y=place))
        last = place
    return parts


def _svg(title: str, parts: Iterable[Markup]) -> Markup:
    return _tag("svg", _tag("title", title), *parts, role="img", viewBox=f"0 0 {WIDTH} {HEIGHT}")


def _tag(name: str, *children: str, **attributes: object) -> Markup:
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_number(one)}"' for key, one in attributes.items()
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{said}>{inner}</{name}>")


def _number(one: object) -> str:
    return f"{one:.1f}" if isinstance(one, float) else str(escape(one))
