# SPDX-License-Identifier: Apache-2.0
"""The choice among measured candidates keeps its promises for every set of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.candidate import Candidate, Setting
from burnish.core.goal import OBJECTIVES, Goal
from burnish.core.measurement import Measurement
from burnish.optimizing.choose import choose, closeness, improves, judged, leads, order, promise

BETTER = {
    "latency": "lower",
    "size": "lower",
    "memory": "lower",
    "throughput": "higher",
    "metric": "higher",
    "drop": "lower",
    "speedup": "higher",
}


QUANTITY = {name: name for name in OBJECTIVES} | {"accuracy": "metric"}


def measured(quantity, value, spread=0.0, n=100):
    return Measurement(quantity, value, "u", BETTER[quantity], value - spread, value + spread, n)


def candidate(name, *, latency=10.0, speedup=None, drop=0.0, spread=0.0, **more):
    """Returns a candidate of a 90 % original that takes 10 ms and 1000 bytes."""
    own = {
        "latency": measured("latency", latency),
        "metric": measured("metric", 90.0 - drop),
        "drop": measured("drop", drop, spread),
        "size": measured("size", more.get("size", 1000.0)),
        "memory": measured("memory", more.get("memory", 1e6)),
        "throughput": measured("throughput", more.get("throughput", 100.0)),
    }
    if speedup is not None:
        own["speedup"] = measured("speedup", speedup, more.get("speed_spread", 0.0))
    return Candidate(name, (), name, "engine 1 (cpu)", Setting(), own)


def verdict(goal, *candidates, fp32=None):
    fp32 = fp32 or candidate("fp32")
    base = judged(fp32, fp32, goal)
    return choose([judged(one, base, goal) for one in candidates], base, goal)


some = st.builds(
    lambda name, speedup, wide, drop, spread, size, memory, rate: candidate(
        name,
        latency=10.0 / speedup,
        speedup=speedup,
        speed_spread=wide,
        drop=drop,
        spread=spread,
        size=size,
        memory=memory,
        throughput=rate,
    ),
    st.sampled_from("abcdefgh"),
    st.sampled_from([0.5, 0.9, 1.0, 1.1, 2.0, 4.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([-1.0, 0.0, 0.3, 1.0, 5.0, 60.0]),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([250.0, 500.0, 1000.0, 1500.0]),
    st.sampled_from([5e5, 1e6, 2e6]),
    st.sampled_from([50.0, 100.0, 400.0]),
)
goals = st.builds(
    Goal,
    max_drop=st.sampled_from([None, "1%", 0.0, 0.5, 2]),
    max_latency_ms=st.sampled_from([None, 1.0, 5.0, 20.0]),
    min_speedup=st.sampled_from([None, 1.5, 3.0]),
    max_size_ratio=st.sampled_from([None, 0.3, 0.6]),
    max_size_bytes=st.sampled_from([None, 600]),
    max_memory_bytes=st.sampled_from([None, 700_000]),
    min_throughput=st.sampled_from([None, 200.0]),
    objective=st.sampled_from(OBJECTIVES),
)


@given(st.lists(some, max_size=6, unique_by=lambda one: one.name), goals)
def test_every_choice_keeps_the_promises(candidates, goal):
    fp32 = candidate("fp32")
    base = judged(fp32, fp32, goal)
    rows = [judged(one, base, goal) for one in candidates]
    best, status = choose(rows, base, goal)
    assert best in [base, *rows]
    assert status == best.status
    if best is not base and not improves(best, base, goal):
        # Not better than the original: only what brings the goal nearer.
        assert base.status != "met"
        assert closeness(best, base, goal) < closeness(base, base, goal)
    better = [one for one in rows if improves(one, base, goal)]
    if any(one.status == "met" for one in [base, *better]):
        assert status != "not met"
    if any(one.status == "met" for one in better):
        assert status == "met"
        assert improves(best, base, goal)
        met = [one for one in better if one.status == "met"]
        first, chosen = (
            one.measured[QUANTITY[goal.objective]] for one in (order(met, goal)[0], best)
        )
        assert abs(chosen.value - first.value) <= 0.03 * abs(first.value)
        if goal.objective == "accuracy":
            assert chosen.value == first.value
    if status == "not shown" and base.status == "met":
        assert all(one.status == "met" or one.within for one in best.verdicts)
        assert improves(best, base, goal)
    if status == "not met":
        fewest = min(closeness(one, base, goal) for one in [base, *better])
        assert closeness(best, base, goal) <= fewest
    # The order in which they come does not matter.
    assert choose(rows[::-1], base, goal)[0].name == best.name


@given(st.lists(some, max_size=6, unique_by=lambda one: one.name), goals)
def test_one_that_leads_stays_whatever_is_left_out(candidates, goal):
    fp32 = candidate("fp32")
    base = judged(fp32, fp32, goal)
    rows = [judged(one, base, goal) for one in candidates]
    kept = [one for one in rows if leads(one, rows, goal)]
    assert bool(kept) == bool(rows)
    with_all = choose(rows, base, goal)[1]
    assert choose(kept, base, goal)[1] == with_all or with_all != "met"


def test_met_beats_a_faster_one_that_is_not_shown():
    goal = Goal(max_drop=0.5)
    shown = candidate("shown", latency=5, speedup=2.0)
    wide = candidate("wide", latency=2.5, speedup=4.0, drop=0.2, spread=1.0)
    assert verdict(goal, wide, shown)[0].name == "shown"


def test_not_shown_within_its_limits_beats_the_original_and_says_so():
    goal = Goal(max_drop=0.5)
    wide = candidate("wide", latency=5, speedup=2.0, drop=0.2, spread=1.0)
    best, status = verdict(goal, wide)
    assert (best.name, status) == ("wide", "not shown")
    assert best.verdicts[0].n_more > 0


def test_not_shown_outside_its_limits_does_not():
    over = candidate("over", latency=5, speedup=2.0, drop=0.6, spread=1.0)
    best, status = verdict(Goal(max_drop=0.5), over)
    assert (best.name, status) == ("fp32", "met")


def test_an_original_that_no_few_samples_could_judge_meets_its_own_drop():
    """Against itself it is known to drop by nothing (`candidates.make_candidate`)."""
    best, status = verdict(Goal(max_drop=0.0))
    assert (best.name, status) == ("fp32", "met")


def test_an_impossible_speed_up_is_not_met_and_the_nearest_is_the_fastest():
    rows = [candidate("slow", latency=9, speedup=1.1), candidate("fast", latency=5, speedup=2.0)]
    best, status = verdict(Goal(min_speedup=100), *rows)
    assert (best.name, status) == ("fast", "not met")
    assert verdict(Goal(min_speedup=100))[1] == "not met"


def test_the_nearest_is_not_the_one_that_lost_all_accuracy():
    goal = Goal(max_drop=0.5, max_latency_ms=4.0)
    near = candidate("near", latency=3.0, speedup=3.3, drop=0.6)
    ruined = candidate("ruined", latency=2.9, speedup=3.4, drop=40.0)
    best, status = verdict(goal, ruined, near)
    assert (best.name, status) == ("near", "not met")


def test_a_limit_the_original_breaks_can_be_bought_with_the_objective():
    small = candidate("small", latency=20, speedup=0.5, size=250.0)
    best, status = verdict(Goal(max_size_ratio=0.5), small)
    assert (best.name, status) == ("small", "met")
    assert verdict(Goal(), small)[0].name == "fp32"


@pytest.mark.parametrize(
    ("objective", "good"),
    [
        ("latency", {"latency": 5, "speedup": 2.0}),
        ("accuracy", {"drop": -1.0}),
        ("size", {"size": 250.0}),
        ("throughput", {"throughput": 300.0}),
        ("memory", {"memory": 5e5}),
    ],
)
def test_each_objective_finds_the_best_in_it(objective, good):
    worse = {"latency": 15, "speedup": 0.7, "drop": 0.1, "size": 1500.0, "throughput": 10.0}
    bad = candidate("bad", **worse, memory=2e6)
    best, status = verdict(Goal(objective=objective), bad, candidate("good", **good))
    assert (best.name, status) == ("good", "met")


def test_a_ratio_that_may_be_below_one_is_no_improvement():
    unsure = candidate("unsure", latency=9.9, speedup=1.01, speed_spread=0.02)
    assert verdict(Goal(), unsure)[0].name == "fp32"


def test_without_limits_only_the_objective_counts():
    ruined = candidate("ruined", latency=1, speedup=10.0, drop=80.0)
    assert verdict(Goal(max_drop=None), ruined) == (ruined, "met")


def test_without_a_task_the_drop_is_not_shown_and_the_faster_is_nearest():
    def blind(one):
        kept = {k: m for k, m in one.measured.items() if k not in ("drop", "metric")}
        return replace(one, measured=kept)

    fast = blind(candidate("fast", latency=5, speedup=2.0))
    unsure = blind(candidate("unsure", latency=4.9, speedup=1.0, speed_spread=0.1))
    best, status = verdict(Goal(), unsure, fast, fp32=blind(candidate("fp32")))
    assert (best.name, status) == ("fast", "not shown")
    assert "nan" not in str(best.verdicts[0])


def test_of_equally_fast_ones_the_most_faithful_is_chosen():
    def agreeing(one, percent):
        found = Measurement("agreement", percent, "%", "higher", percent, percent, 100)
        return one.with_measured(agreement=found)

    fast = agreeing(candidate("fast", latency=5.0, speedup=2.0), 95.0)
    alike = agreeing(candidate("alike", latency=5.1, speedup=1.96), 99.0)
    slower = agreeing(candidate("slower", latency=6.0, speedup=1.66), 100.0)
    assert verdict(Goal(), fast, alike, slower)[0].name == "alike"
    assert leads(alike, [fast, alike, slower], Goal())


def test_what_is_tried_first_is_what_the_goal_asks_for():
    fast, small = (1000.0, 1.0), (250.0, 9.0)

    def first(goal):
        return min([fast, small], key=lambda one: promise(*one, 1000.0, goal))

    assert first(Goal()) == first(Goal(max_size_ratio=1.0)) == fast
    assert first(Goal(max_size_ratio=0.3)) == first(Goal(max_size_bytes=999)) == small
    assert first(Goal(objective="size")) == first(Goal(objective="memory")) == small


def test_ties_go_by_name_whatever_the_order():
    rows = [candidate(name, latency=5, speedup=2.0) for name in "cab"]
    assert verdict(Goal(), *rows)[0].name == "a"
    assert [one.name for one in order(rows, Goal())] == ["a", "b", "c"]


def test_one_that_is_as_good_but_less_sure_drops_none_that_is_met():
    goal = Goal(max_drop=1.0)
    fp32 = candidate("fp32")
    sure = judged(candidate("sure", latency=5.1, speedup=1.9, drop=0.3, spread=0.2), fp32, goal)
    unsure = judged(candidate("unsure", latency=5, speedup=2.0, drop=0.2, spread=2.0), fp32, goal)
    assert leads(sure, [sure, unsure], goal)
    assert leads(unsure, [sure, unsure], goal)
    slow = judged(candidate("slow", latency=6, speedup=1.6, drop=0.3, spread=0.2), fp32, goal)
    assert not leads(slow, [sure, unsure, slow], goal)
