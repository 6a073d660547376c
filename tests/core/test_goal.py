# SPDX-License-Identifier: Apache-2.0
"""Verdicts say met only when the whole interval holds, and not shown when it cannot tell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.candidate import Candidate, Setting, dominates, frontier
from burnish.core.errors import Misuse
from burnish.core.goal import Goal, Verdict, overall
from burnish.core.measurement import Measurement
from burnish.core.technique import Skipped


def measured(quantity: str, value: float, low: float, high: float, n: int = 100) -> Measurement:
    better = "higher" if quantity in ("speedup", "throughput", "metric") else "lower"
    return Measurement(quantity, value, "u", better, low, high, n)


def exactly(quantity: str, value: float) -> Measurement:
    return measured(quantity, value, value, value, 1)


@pytest.mark.parametrize(
    ("goal", "got", "status"),
    [
        (Goal(max_drop=None, max_latency_ms=5), measured("latency", 4, 3, 4.9), "met"),
        (Goal(max_drop=None, max_latency_ms=5), measured("latency", 4, 3, 5), "met"),
        (Goal(max_drop=None, max_latency_ms=5), measured("latency", 4, 3, 5.1), "not shown"),
        (Goal(max_drop=None, max_latency_ms=5), measured("latency", 5.5, 4.9, 6), "not shown"),
        (Goal(max_drop=None, max_latency_ms=5), measured("latency", 6, 5.1, 7), "not met"),
        (Goal(max_drop=None, min_speedup=2), measured("speedup", 3, 2.1, 4), "met"),
        (Goal(max_drop=None, min_speedup=2), measured("speedup", 3, 1.9, 4), "not shown"),
        (Goal(max_drop=None, min_speedup=2), measured("speedup", 1.5, 1, 1.9), "not met"),
        (Goal(max_drop=None, min_throughput=10), measured("throughput", 9, 8, 9.9), "not met"),
        (Goal(max_drop=0.5), measured("drop", 0.1, -0.4, 0.5), "met"),
        (Goal(max_drop=0.0), exactly("drop", 0.0), "met"),
        (Goal(max_drop=0.5), measured("drop", 0.1, -0.4, 0.6), "not shown"),
        (Goal(max_drop=None, max_size_bytes=100), exactly("size", 101), "not met"),
        (Goal(max_drop=None, max_memory_bytes=100), exactly("memory", 99), "met"),
    ],
)
def test_one_limit(goal: Goal, got: Measurement, status: str) -> None:
    (verdict,) = goal.judge({got.quantity: got}, {})
    assert verdict.status == status
    assert status in str(verdict)


def test_what_was_not_measured_is_not_shown() -> None:
    (verdict,) = Goal(max_drop=1).judge({}, {})
    assert (verdict.status, verdict.got) == ("not shown", "not measured")


def test_relative_limits_follow_the_baseline() -> None:
    baseline = {"metric": exactly("metric", 80.0), "size": exactly("size", 1000)}
    goal = Goal(max_drop="1%", max_size_ratio=0.3)
    assert goal.drop_limit(80.0) == pytest.approx(0.8)
    got = {"drop": measured("drop", 0.5, 0.3, 0.79), "size": exactly("size", 300)}
    assert overall(goal.judge(got, baseline)) == "met"
    got["drop"] = measured("drop", 0.9, 0.81, 1.0)
    assert overall(goal.judge(got, baseline)) == "not met"
    both = Goal(max_drop=None, max_size_ratio=0.3, max_size_bytes=200)
    assert both.judge(got, baseline)[0].status == "not met"


def test_how_many_more_samples() -> None:
    """Half the interval is 0.4 and the room 0.1: 16 times the samples in all."""
    (verdict,) = Goal(max_drop=0.5).judge({"drop": measured("drop", 0.4, 0.0, 0.8, 100)}, {})
    assert verdict.status == "not shown"
    assert verdict.n_more == pytest.approx(1500, abs=2)
    assert "more samples would tell" in str(verdict)
    (hopeless,) = Goal(max_drop=5e-324).judge({"drop": measured("drop", 0.0, -1, 1)}, {})
    assert hopeless.n_more is None
    (beyond,) = Goal(max_drop=0.5).judge({"drop": measured("drop", 0.6, 0.0, 1.2)}, {})
    assert beyond.n_more is None


@given(
    st.floats(-10, 10), st.floats(0, 5), st.floats(0, 5), st.floats(0.0, 10), st.integers(1, 10**6)
)
def test_verdicts_are_sound(value: float, below: float, above: float, limit: float, n: int) -> None:
    got = measured("drop", value, value - below, value + above, n)
    (verdict,) = Goal(max_drop=limit).judge({"drop": got}, {})
    if verdict.status == "met":
        assert got.high <= limit
    elif verdict.status == "not met":
        assert got.low > limit
    else:
        assert got.low <= limit < got.high
    if verdict.n_more is not None:
        assert verdict.n_more >= 0


def test_overall() -> None:
    met, missed, open_ = (Verdict("r", status, "") for status in ("met", "not met", "not shown"))
    assert overall(()) == "met"
    assert overall((met, met)) == "met"
    assert overall((met, open_)) == "not shown"
    assert overall((open_, missed, met)) == "not met"


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"max_latency_ms": 0}, "max_latency_ms must be a number above 0"),
        ({"min_speedup": -1}, "min_speedup"),
        ({"max_size_ratio": math.nan}, "max_size_ratio"),
        ({"max_memory_bytes": "1G"}, "max_memory_bytes"),
        ({"max_drop": -0.1}, "0 or more"),
        ({"max_drop": math.nan}, "0 or more"),
        ({"max_drop": "one percent"}, "written like"),
        ({"objective": "latancy"}, "did you mean 'latency'"),
    ],
)
def test_wrong_goals(fields: dict, word: str) -> None:
    with pytest.raises(Misuse, match=word):
        Goal(**fields)


def test_plain_data_and_back() -> None:
    goal = Goal(max_drop="1%", min_speedup=2, objective="size")
    assert goal.to_dict() == {"max_drop": "1%", "min_speedup": 2, "objective": "size"}
    assert Goal(**goal.to_dict()) == goal
    unlimited = Goal(max_drop=None)
    assert Goal(**unlimited.to_dict()) == unlimited
    assert Goal().max_drop == "1%"  # accuracy never falls unnoticed
    one = measured("latency", 1.0, 0.5, 2.0)
    assert Measurement.from_dict(one.to_dict()) == one
    assert one.overlaps(measured("latency", 3, 2, 4))
    assert not one.overlaps(measured("latency", 3, 2.1, 4))
    candidate = Candidate(
        "int8", ({"technique": "fuse"},), "abc", "onnxruntime", Setting(2, 1), {"latency": one},
        (Verdict("r", "met", "g", 3),), ("fused",), (Skipped("conv1", "why"),), {"k": [1]},
    )  # fmt: skip
    assert Candidate.from_dict(candidate.to_dict()) == candidate
    assert str(candidate.setting) == "2 threads × 1 stream"


def candidate(name: str, **values: float) -> Candidate:
    return Candidate(name, (), "", "", Setting(), {k: exactly(k, v) for k, v in values.items()})


def test_dominates() -> None:
    quantities = ["latency", "speedup"]
    best = candidate("a", latency=1, speedup=3)
    assert dominates(best, candidate("b", latency=2, speedup=3), quantities)
    assert dominates(best, candidate("b", latency=1, speedup=2), quantities)
    assert not dominates(best, candidate("b", latency=1, speedup=3), quantities)
    assert not dominates(best, candidate("b", latency=0.5, speedup=1), quantities)
    assert not dominates(best, candidate("b"), quantities)
    assert dominates(best, candidate("b", latency=2), quantities)


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(points)
def test_frontier_holds_exactly_what_nothing_dominates(rows: list[tuple[int, int, int]]) -> None:
    quantities = ["latency", "size", "speedup"]
    given_ = [candidate(str(i), latency=a, size=b, speedup=c) for i, (a, b, c) in enumerate(rows)]
    kept = frontier(given_, quantities)
    for one in kept:
        assert not any(dominates(other, one, quantities) for other in given_)
    for other in given_:
        assert other in kept or any(dominates(one, other, quantities) for one in kept)
    assert kept == [one for one in given_ if one in kept]
