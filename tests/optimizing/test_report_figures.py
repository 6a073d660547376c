# SPDX-License-Identifier: Apache-2.0
"""Numbers and names as text: every magnitude, and nothing that restyles a terminal."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.core.candidate import Candidate
from burnish.core.goal import Goal, Verdict
from burnish.core.measurement import Measurement
from burnish.optimizing.report import figures, names
from burnish.optimizing.report.account import by_reason
from burnish.optimizing.report.svg import Axis, axis, place, spread, text_width
from burnish.optimizing.result import Result


@given(st.floats(1e-4, 1e8))
def test_significant_keeps_three_digits(value: float) -> None:
    """The text, read back, is within half a unit of the third digit."""
    back = float(figures.significant(value).replace(",", ""))
    assert back == pytest.approx(value, rel=0.0051)


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["bytes", "ms", "%", ""]))
def test_every_float_has_a_text(value: float, unit: str) -> None:
    """Nothing raises, no ASCII minus and no negative zero is written."""
    text = figures.quantity(value, unit)
    assert text
    assert "-" not in text
    assert text.split()[0] not in {"−0", "−0.0", "−0.00"}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (999, "bytes", "999 B"),
        (3_721_000, "bytes", "3.72 MB"),
        (2.5e9, "bytes", "2.50 GB"),
        (0.04321, "ms", "0.0432 ms"),
        (1234.5, "ms", "1,234 ms"),
        (99.96, "%", "99.96 %"),
        (100.0, "%", "100.0 %"),
        (-0.1, "points", "−0.10 points"),
        (1.04, "×", "1.04×"),
        (12.34, "x", "12.3×"),
        (math.nan, "ms", "–"),
    ],
)
def test_units(value: float, unit: str, text: str) -> None:
    """Each unit has its own way, the same everywhere."""
    assert figures.quantity(value, unit) == text


def test_interval_has_the_decimals_and_scale_of_its_value() -> None:
    """A size in MB has its interval in MB; an interval without width says nothing."""
    size = Measurement("size", 1.5e6, "bytes", "lower", 0.95e6, 2e6, 3)
    assert figures.full(size) == "1.50 MB [0.95, 2.00]"
    assert figures.interval(Measurement("size", 1.0, "bytes", "lower", 1.0, 1.0, 1)) == ""


@given(st.floats(1e-3, 1e9))
def test_requirements_of_every_limit_are_rewritten(limit: float) -> None:
    """The verdicts that a goal really gives are all understood."""
    goal = Goal(max_latency_ms=limit, min_speedup=limit, max_size_bytes=math.ceil(limit))
    for verdict in goal.judge({}, {}):
        assert verdict.status == "not shown"
        assert figures.requirement(verdict).startswith(verdict.requirement.split(" at ")[0])
        assert "e+" not in figures.requirement(verdict)


def test_unknown_requirement_stays_as_it_is() -> None:
    """A wording from elsewhere is shown, not lost."""
    assert figures.requirement(Verdict("no regret", "met", "")) == "no regret"
    assert figures.requirement(Verdict("size at most e.e", "met", "")) == "size at most e.e"


@given(st.text())
def test_printable_leaves_no_control_character(text: str) -> None:
    """No escape, no direction mark, no line break survives, and the length is kept."""
    clean = names.printable(text)
    assert len(clean) == len(text)
    assert not any(ord(one) < 32 or 0x7F <= ord(one) < 0xA0 for one in clean)
    assert not set("\u202a\u202e\u2066\u2028\ufeff") & set(clean)


@given(st.text(), st.integers(3, 40))
def test_shorten_keeps_to_the_length(text: str, length: int) -> None:
    """A short text is itself; a long one fits."""
    short = names.shorten(text, length)
    assert len(short) <= length
    assert short == text or len(text) > length


def test_reasons_gather_their_places(met_result: Result) -> None:
    """Every place is found under its own reason, once."""
    passed = by_reason([*met_result.best.skipped, *met_result.best.skipped])
    assert [len(one.places) for one in passed] == [1, 4]


@given(st.lists(st.floats(0, 400), min_size=1, max_size=20))
def test_spread_keeps_labels_apart_and_in_range(wanted: list[float]) -> None:
    """Gaps hold (or the range is shared evenly) and the order is that of the wishes."""
    placed = spread(wanted, 16.0, 0.0, 400.0)
    gap = min(16.0, 400.0 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert all(placed[b] - placed[a] >= gap - 1e-6 for a, b in pairwise(order))
    assert all(-1e-6 <= one <= 400 + 1e-6 for one in placed)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(80, 700), st.floats(40, 400), st.floats(2, 17)), max_size=16),
    st.data(),
)
def test_labels_never_overlap(
    points: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    """Whatever the points, no two labels share a pixel, nor leave the plot."""
    bounds = (66.0, 30.0, 840.0, 420.0)
    texts = [data.draw(st.text("abc ", min_size=1, max_size=30)) for _ in points]
    wanted = [(t, text_width(t), *point) for t, point in zip(texts, points, strict=True)]
    found = [one for one in place(wanted, bounds, []) if one is not None]
    for i, one in enumerate(found):
        assert bounds[0] <= one.box[0] <= one.box[2] <= bounds[2]
        assert bounds[1] <= one.box[1] <= one.box[3] <= bounds[3]
        for other in found[i + 1 :]:
            apart_x = one.box[2] <= other.box[0] or other.box[2] <= one.box[0]
            apart_y = one.box[3] <= other.box[1] or other.box[3] <= one.box[1]
            assert apart_x or apart_y


@given(st.floats(0.01, 1e5), st.floats(1.001, 1e4), st.booleans())
def test_ticks_are_few_round_and_inside(low: float, ratio: float, log: bool) -> None:
    """Between 2 and a dozen distinct ticks, each on the axis and truly what it says."""
    made = axis([low, low * ratio], 0.0, 800.0, 0.05, log)
    ticks = made.ticks(7)
    assert 2 <= len(ticks) <= 12
    assert len({text for _, text in ticks}) == len(ticks)
    for value, text in ticks:
        assert made.low <= value * (1 + 1e-9)
        assert value * (1 - 1e-9) <= made.high
        said = float(text.replace(",", "").replace("−", "-"))
        assert said == pytest.approx(value, abs=1e-6 * (made.high - made.low))


def test_axis_holds_outliers() -> None:
    """A value beyond the axis is drawn at its edge."""
    assert Axis(1.0, 10.0, 0.0, 100.0, log=True).at(1e9) == 100.0


def test_engine_of_an_unknown_runtime_is_its_own_name() -> None:
    """Third-party engines are shown under the name they give."""
    one = Candidate("x", (), "m", "tvm 0.20 (cpu)", setting=None)  # type: ignore[arg-type]
    assert names.engine(one) == "tvm"
