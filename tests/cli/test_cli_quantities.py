# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.cli import quantities
from burnish.core.errors import Misuse
from burnish.core.goal import Goal

positive = st.floats(1e-3, 1e6, allow_nan=False)
spaces = st.sampled_from(["", " ", "  "])
PARSERS = [
    quantities.drop,
    quantities.latency,
    quantities.size,
    quantities.n_bytes,
    quantities.per_second,
]


@given(positive, spaces, st.sampled_from([("us", 1e-3), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)]))
def test_latency_in_any_unit_is_milliseconds(value, space, unit):
    parsed = quantities.latency(f"{space}{value!r}{space}{unit[0]}{space}")
    assert parsed == {"max_latency_ms": pytest.approx(value * unit[1])}
    assert Goal(**parsed).max_latency_ms == parsed["max_latency_ms"]


@given(positive, st.sampled_from(["x", "X", "×"]))
def test_latency_as_a_ratio_is_a_speedup(value, sign):
    assert quantities.latency(f"{value!r}{sign}") == {"min_speedup": pytest.approx(value)}


@given(
    st.integers(1, 10**6),
    st.sampled_from(["B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"]),
    st.sampled_from([str, str.lower, str.upper]),
)
def test_bytes_in_any_unit(value, unit, case):
    power = "BKMGT".index(unit[0].upper())
    expected = value * (1024 if "i" in unit else 1000) ** power
    assert quantities.n_bytes(f"{value} {case(unit)}") == expected
    assert quantities.size(f"{value}{unit}") == {"max_size_bytes": expected}


@given(st.integers(1, 10**5))
def test_size_as_a_share(percent):
    assert quantities.size(f"{percent}%") == {"max_size_ratio": pytest.approx(percent / 100)}


@given(st.decimals(0, 1000, places=4))
def test_drop_is_points_or_a_share_that_the_goal_reads(value):
    assert quantities.drop(f"{value}") == float(value)
    share = quantities.drop(f"{value}%")
    limit = Goal(max_drop=share).drop_limit(200.0)
    assert limit == pytest.approx(2 * float(value))


def test_drop_none_lifts_the_limit():
    assert quantities.drop(" None ") is None


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text(max_size=60))
def test_any_text_gives_a_goal_or_misuse(parse, text):
    try:
        found = parse(text)
    except Misuse:
        return
    values = found.values() if isinstance(found, dict) else [found]
    for value in values:
        if isinstance(value, int | float):
            assert math.isfinite(value)
            assert value > 0 or parse is quantities.drop
    if isinstance(found, dict):
        Goal(**found)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text", ["", "-1", "-1ms", "nan", "inf", "1e999ms", "9" * 400 + "MB", "5 parsecs"]
)
def test_nonsense_is_refused_with_what_was_expected(parse, text):
    with pytest.raises(Misuse, match=r"expected|too large|finite"):
        parse(text)


@pytest.mark.parametrize("text", ["4", "0ms", "0x"])
def test_latency_needs_a_unit_and_a_value_above_0(text):
    with pytest.raises(Misuse):
        quantities.latency(text)


@pytest.mark.parametrize("text", ["30", "0%", "0.4B", "1Mb/s"])
def test_size_needs_a_unit_and_at_least_a_byte(text):
    with pytest.raises(Misuse):
        quantities.size(text)
