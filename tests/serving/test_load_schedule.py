# SPDX-License-Identifier: Apache-2.0
"""When requests are due, and traces read from text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.serving.load.knee import Search, knee
from burnish.serving.load.schedule import (
    Bursts,
    ClosedLoop,
    Constant,
    Poisson,
    Trace,
    at_rate,
    described,
    shares,
    timetable,
)
from burnish.serving.load.trace_file import parse_trace, read_trace

RATES = st.floats(0.5, 2000)
SECONDS = st.floats(0.1, 3)
SCHEDULES = st.one_of(
    RATES.map(Poisson), RATES.map(Constant), st.builds(Bursts, RATES, st.integers(1, 20))
)


@given(SCHEDULES, SECONDS, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_times_ascend_within_the_duration(schedule, seconds, seed):
    table = timetable(schedule, seconds, seed)
    assert np.all(np.diff(table.times_s) >= 0)
    assert np.all((table.times_s >= 0) & (table.times_s < seconds))
    assert table.span_s == seconds
    again = timetable(schedule, seconds, seed)
    assert np.array_equal(table.times_s, again.times_s)


@given(SCHEDULES, SECONDS, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_rate_is_the_one_asked_for(schedule, seconds, seed):
    n = len(timetable(schedule, seconds, seed).times_s)
    expected = schedule.per_s * seconds
    size = getattr(schedule, "size", 1)
    deviation = 0.0 if isinstance(schedule, Constant) else math.sqrt(expected * size)
    assert abs(n - expected) <= 1 + 6 * deviation + 6 * size


def test_poisson_gaps_are_exponential():
    gaps = np.diff(timetable(Poisson(1000), 60, seed=3).times_s)
    assert np.mean(gaps) == pytest.approx(1e-3, rel=0.03)
    assert np.std(gaps) == pytest.approx(1e-3, rel=0.03)
    assert np.mean(gaps > 2e-3) == pytest.approx(math.exp(-2), rel=0.05)


def test_bursts_come_at_once():
    times = timetable(Bursts(400, 8), 5, seed=1).times_s
    _, counts = np.unique(times, return_counts=True)
    assert set(counts.tolist()) == {8}


@given(SCHEDULES, st.integers(1, 8), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_shares_make_up_the_whole(schedule, of, most):
    table = timetable(schedule, 1, seed=0, most=most)
    parts = [table.share(one, of) for one in range(of)]
    assert sorted(np.concatenate(parts).tolist()) == table.times_s.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [len(part) for part in parts] == shares(len(table.times_s), of)


def test_a_bound_on_requests_keeps_the_rate():
    table = timetable(Constant(100), 10, seed=0, most=50)
    assert len(table.times_s) == 50
    assert len(table.times_s) / table.span_s == pytest.approx(100)


@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=50))
def test_a_trace_is_replayed_as_it_was(at_ms):
    recorded = tuple(sorted(at_ms))
    table = timetable(Trace(recorded), 100, seed=0)
    expected = (np.array(recorded) - recorded[0]) / 1e3
    assert np.allclose(table.times_s, expected, rtol=0, atol=1e-9)


def test_a_trace_ends_with_the_duration():
    table = timetable(Trace((1000.0, 1500.0, 4000.0)), 2, seed=0)
    assert table.times_s.tolist() == [0, 0.5]
    assert table.span_s == 2
    whole = timetable(Trace((0.0, 100.0, 200.0)), 10, seed=0)
    assert len(whole.times_s) / whole.span_s == pytest.approx(10)


def test_too_much_is_refused():
    with pytest.raises(Misuse, match="at most 5,000,000 requests"):
        timetable(Poisson(1e9), 10, seed=0)
    with pytest.raises(Misuse, match="cannot be changed"):
        at_rate(ClosedLoop(), 5)
    assert described(at_rate(Bursts(1, 4), 50)) == "bursts of 4, 50/s"


@pytest.mark.parametrize(
    ("text", "as_json"),
    [
        ("5\n1.5\n30\n", False),
        ("at_ms\n5\n1.5\n30\n", False),
        ("rows, at_ms\n1,5\n2,1.5\n\n1,30\n", False),
        ("5\n1.5\n\n30", True),
        ('{"at_ms": 5, "rows": 1}\n{"at_ms": 1.5}\n{"at_ms": 30}\n', True),
    ],
)
def test_traces_as_text(text, as_json):
    assert parse_trace(text.splitlines(), "t", as_json).at_ms == (1.5, 5, 30)


@pytest.mark.parametrize(
    ("text", "as_json", "line"),
    [("1\n-2", False, 2), ("1\nnan", False, 2), ("a,at_ms\n1,2\n3", False, 3),
     ("1\n{}", True, 2), ("[1]", True, 1), ("true", True, 1), ("1e999", True, 1)],
)  # fmt: skip
def test_what_is_no_time_is_named(text, as_json, line):
    with pytest.raises(Misuse, match=f"line {line}: expected a time in ms"):
        parse_trace(text.splitlines(), "t", as_json)


def test_trace_files(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"at_ms": i}) for i in range(3)))
    assert read_trace(tmp_path / "a.jsonl").at_ms == (0, 1, 2)
    (tmp_path / "b.csv").write_text("at_ms\n")
    with pytest.raises(Misuse, match="no arrivals"):
        read_trace(tmp_path / "b.csv")
    with pytest.raises(Misuse, match="cannot be read"):
        read_trace(tmp_path / "c.csv")


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(1.3, 4))
@settings(max_examples=200)
def test_the_knee_is_found(true, start, growth):
    search = Search(start, growth=growth, most_steps=80, most_down=1e9)
    tried = []
    while (rate := search.next_rate(tried)) is not None:
        tried.append((rate, rate <= true))
    found = knee(tried)
    assert found is not None
    assert found <= true <= found * 1.05 * (1 + 1e-9)
    assert len(tried) < 80


def test_the_search_is_bounded():
    endless = Search(100, most_per_s=1000)
    tried = []
    while (rate := endless.next_rate(tried)) is not None:
        tried.append((rate, True))
    assert [rate for rate, _ in tried] == [100, 200, 400, 800, 1000]
    hopeless = Search(100)
    tried = []
    while (rate := hopeless.next_rate(tried)) is not None:
        tried.append((rate, False))
    assert knee(tried) is None
    assert len(tried) == 11  # down to a 1024th
    assert knee([(100, True), (200, False), (400, True)]) == 100  # the last was luck
