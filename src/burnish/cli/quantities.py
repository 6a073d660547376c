# SPDX-License-Identifier: Apache-2.0
"""Limits as people write them, with their units: "4ms", "3x", "1MB", "30%"."""

from __future__ import annotations

import math
import re

from burnish.core.errors import Misuse

_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([^\d\s.]*)\s*", re.ASCII | re.IGNORECASE)
_MS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {"b": 1} | {
    f"{prefix}{ending}": base**power
    for ending, base in (("b", 1000), ("ib", 1024))
    for power, prefix in enumerate("kmgt", start=1)
}


def drop(text: str) -> float | str | None:
    """Returns `Goal.max_drop`: points, a share of the baseline as "1%", or None for "none".

    >>> drop("0.5"), drop("1 %"), drop("none")
    (0.5, '1%', None)

    Raises `Misuse` for anything else.
    """
    if text.strip().lower() == "none":
        return None
    value, unit = _parts(text, 'points as "0.5", a share as "1%", or "none"')
    if unit not in ("", "%"):
        raise _wrong(text, 'points as "0.5", a share as "1%", or "none"')
    return f"{value:f}".rstrip("0").rstrip(".") + "%" if unit else value


def latency(text: str) -> dict[str, float]:
    """Returns the Goal's field for a latency in time, or as a speed-up over the best fp32 engine.

    >>> latency("4ms"), latency("500 us"), latency("3x")
    ({'max_latency_ms': 4.0}, {'max_latency_ms': 0.5}, {'min_speedup': 3.0})

    Raises `Misuse` for anything else, a number without a unit included.
    """
    expected = 'a time as "4ms" (us, ms, s), or a speed-up as "3x"'
    value, unit = _parts(text, expected)
    if unit in ("x", "×"):
        return {"min_speedup": _above_0(value, text)}
    if unit not in _MS:
        raise _wrong(text, expected)
    return {"max_latency_ms": _above_0(value * _MS[unit], text)}


def milliseconds(text: str) -> float:
    """Returns a time in milliseconds.

    >>> milliseconds("50ms"), milliseconds("0.1 s")
    (50.0, 100.0)

    Raises `Misuse` for anything else, a number without a unit included.
    """
    expected = 'a time as "50ms" (us, ms, s)'
    value, unit = _parts(text, expected)
    if unit not in _MS:
        raise _wrong(text, expected)
    return _above_0(value * _MS[unit], text)


def size(text: str) -> dict[str, float]:
    """Returns the Goal's field for a file size: bytes, or a share of the original's.

    >>> size("1MB"), size("30%")
    ({'max_size_bytes': 1000000}, {'max_size_ratio': 0.3})

    Raises `Misuse` for anything else.
    """
    value, unit = _parts(text, 'a size as "1MB", or a share of the original\'s as "30%"')
    if unit == "%":
        return {"max_size_ratio": _above_0(value / 100, text)}
    return {"max_size_bytes": n_bytes(text)}


def n_bytes(text: str) -> int:
    """Returns a number of bytes: kB, MB, GB, TB are powers of 1000, KiB … TiB of 1024.

    >>> n_bytes("1.5 kB"), n_bytes("2MiB")
    (1500, 2097152)

    Raises `Misuse` for anything else.
    """
    expected = 'a size as "1MB" (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)'
    value, unit = _parts(text, expected)
    if unit not in _BYTES:
        raise _wrong(text, expected)
    found = _above_0(value * _BYTES[unit], text)
    if found < 1:
        raise Misuse(f"{text!r} is less than one byte")
    return round(found)


def per_second(text: str) -> float:
    """Returns samples per second.

    >>> per_second("200"), per_second("1e3/s")
    (200.0, 1000.0)

    Raises `Misuse` for anything else.
    """
    value, unit = _parts(text, 'samples per second as "200" or "200/s"')
    if unit not in ("", "/s"):
        raise _wrong(text, 'samples per second as "200" or "200/s"')
    return _above_0(value, text)


def _parts(text: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise _wrong(text, expected)
    value = float(match[1])
    if not math.isfinite(value):
        raise Misuse(f"{_short(text)} is too large to be a limit")
    return value, match[2].lower()


def _above_0(value: float, text: str) -> float:
    if not 0 < value < math.inf:
        raise Misuse(f"{_short(text)} must be above 0 and finite")
    return value


def _wrong(text: str, expected: str) -> Misuse:
    return Misuse(f"expected {expected}, got {_short(text)}")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
