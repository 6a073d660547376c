# SPDX-License-Identifier: Apache-2.0
"""Numbers as text, the same way in every report.

Sizes are decimal (1 MB = 1,000,000 bytes), times in ms to three significant digits,
percentages to one
decimal and differences of percentages (points) to two. An interval has the decimals of its value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from burnish.core.goal import Verdict
from burnish.core.measurement import Measurement

NOTHING = "–"
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_RATIOS = ("x", "×", "ratio")
_UNITS = {"size": "bytes", "memory": "bytes", "latency": "ms", "speed-up": "×"}
_ACRONYMS = {"cpu": "CPU", "gpu": "GPU", "os": "OS"}
_LIMIT = re.compile(
    r"(?P<words>(?P<what>\S+) at (?:most|least)) (?P<limit>[-+.\de]+)(?: (?P<unit>.+))?"
)


def fixed(value: float, places: int) -> str:
    """Returns a number with this many decimals.

    >>> fixed(1234.5, 0), fixed(-0.25, 1), fixed(-0.001, 1), fixed(float("nan"), 1)
    ('1,234', '−0.2', '0.0', '–')
    """
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text.replace("-", "−")


def decimals(value: float, digits: int = 3) -> int:
    """Returns how many decimals show `digits` significant digits of the value.

    >>> decimals(12.3), decimals(0.0123), decimals(9.999), decimals(12345.0), decimals(0.0)
    (1, 4, 1, 0, 0)
    """
    if not math.isfinite(value) or value == 0:
        return 0
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    return max(0, digits - 1 - exponent)


def significant(value: float, digits: int = 3) -> str:
    """Returns a number to `digits` significant digits.

    >>> significant(12.345), significant(0.00312), significant(1234.5), significant(2.5e-9)
    ('12.3', '0.00312', '1,234', '2.5e−9')
    """
    if math.isfinite(value) and value != 0 and not 1e-5 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    return fixed(value, decimals(value, digits))


def _style(value: float, unit: str) -> tuple[float, int, str]:
    """Returns what to divide by, the decimals, and what to write after the number."""
    if unit == "bytes":
        size, name = next(((s, n) for s, n in _SIZES if abs(value) >= s), _SIZES[-1])
        return size, decimals(value / size) if size > 1 else 0, f" {name}"
    if unit in _RATIOS:
        return 1.0, 2 if abs(value) < 1.95 else 1 if abs(value) < 99.5 else 0, "×"
    if unit == "%":  # 99.96 must not read as 100.0
        return 1.0, 2 if 99.5 <= abs(value) < 100 else 1, " %"
    if unit == "points":
        return 1.0, 2, " points"
    return 1.0, min(decimals(value), 9), f" {unit}" if unit else ""


def quantity(value: float, unit: str) -> str:
    """Returns a value with its unit.

    >>> quantity(25_600_000, "bytes"), quantity(12.34, "ms"), quantity(2.91, "×")
    ('25.6 MB', '12.3 ms', '2.9×')
    """
    if not math.isfinite(value):
        return fixed(value, 0)
    divisor, places, suffix = _style(value, unit)
    number = fixed(value / divisor, places) if abs(value) >= 1e-5 else significant(value)
    return number + suffix


def limit(value: float, unit: str) -> str:
    """Returns a limit as short as it can be said.

    >>> limit(29_430_000, "bytes"), limit(4.0, "ms"), limit(0.5, "points")
    ('29.43 MB', '4 ms', '0.5 points')
    """
    divisor, _, suffix = _style(value, unit)
    text = f"{value / divisor:.4g}"
    if "e" in text:
        text = significant(float(text), 4)
    return f"{text}{suffix}".replace("-", "−")


def value(one: Measurement, unit: bool = True) -> str:
    """Returns the measured value, with its unit unless told otherwise."""
    if unit or not math.isfinite(one.value):
        return quantity(one.value, one.unit)
    divisor, places, _ = _style(one.value, one.unit)
    return fixed(one.value / divisor, places)


def interval(one: Measurement) -> str:
    """Returns the interval without its unit, or nothing when it has no width.

    >>> interval(Measurement("latency", 12.34, "ms", "lower", 12.1, 12.64, 40))
    '[12.1, 12.6]'
    """
    if one.low == one.high or not math.isfinite(one.value):
        return ""
    divisor, places, _ = _style(one.value, one.unit)
    low, high = fixed(one.low / divisor, places), fixed(one.high / divisor, places)
    return f"[{low}, {high}]"


def full(one: Measurement) -> str:
    """Returns value, unit and interval.

    >>> full(Measurement("drop", 0.1, "points", "lower", -0.2, 0.4, 1017))
    '0.10 points [−0.20, 0.40]'
    """
    return f"{value(one)} {interval(one)}".rstrip()


def drop(one: Measurement) -> Measurement:
    """Returns the drop with its unit as it is read: percentages differ by points."""
    return replace(one, unit="points") if one.unit == "%" else one


def count(n: int, noun: str) -> str:
    """Returns a count with its noun.

    >>> count(1, "sample"), count(1017, "sample")
    ('1 sample', '1,017 samples')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def more_samples(verdict: Verdict) -> str:
    """Returns how many more samples would settle a verdict, or nothing when unknown.

    >>> more_samples(Verdict("drop at most 0.5 points", "not shown", "0.3", 1234))
    'about 1,200 more samples would tell'
    """
    if verdict.status != "not shown" or not verdict.n_more:
        return ""
    n = round(verdict.n_more, 1 - int(math.log10(verdict.n_more)))
    noun = "sample" if n == 1 else "samples"
    return f"about {n:,} more {noun} would tell"


def requirement(verdict: Verdict) -> str:
    """Returns the requirement with its limit written as every other figure is.

    >>> requirement(Verdict("size at most 2.943e+07 bytes", "met", ""))
    'size at most 29.43 MB'
    """
    match = _LIMIT.fullmatch(verdict.requirement)
    if match is None:
        return verdict.requirement
    unit = match["unit"] or _UNITS.get(match["what"], "")
    if (match["what"], unit) == ("drop", "%"):
        unit = "points"
    try:
        return f"{match['words']} {limit(float(match['limit']), unit)}"
    except ValueError:
        return verdict.requirement


def duration(seconds: float) -> str:
    """Returns a time in words.

    >>> duration(3.21), duration(65), duration(1200), duration(3720)
    ('3.21 s', '1 min 5 s', '20 min', '1 h 2 min')
    """
    if not math.isfinite(seconds) or seconds < 59.5:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def entry(key: str, value: Any) -> tuple[str, str]:
    """Returns a key and value of plain data as words, the unit taken from the key's suffix.

    >>> entry("budget_s", 1200), entry("memory_bytes", 16e9), entry("seed", 0)
    (('Budget', '20 min'), ('Memory', '16.0 GB'), ('Seed', '0'))
    """
    text = ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for suffix, unit in (("_bytes", "bytes"), ("_ms", "ms"), ("_ratio", "×"), ("_s", "s")):
            if key.endswith(suffix):
                key = key.removesuffix(suffix)
                text = duration(value) if unit == "s" else quantity(value, unit)
                break
    words = [_ACRONYMS.get(word, word) for word in key.removeprefix("n_").split("_") if word]
    said = " ".join(words)
    return said[:1].upper() + said[1:], text or _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return fixed(value, 0) if value.is_integer() else f"{value:.4g}".replace("-", "−")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items()) or NOTHING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value)) or NOTHING
    return str(value) or NOTHING
