# SPDX-License-Identifier: Apache-2.0
"""What is cut follows from what int8 falls short of."""

from __future__ import annotations

from dataclasses import replace

import digits_net
import pytest

from burnish.core.candidate import Candidate, Setting
from burnish.core.goal import Goal
from burnish.core.measurement import Measurement
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.optimizing.entries import Entry
from burnish.optimizing.structures import Shortfall, shortfall, structures

LEAD = Entry("int8", digits_net.network(), OnnxRuntime(), Setting(2))


def candidate(**values):
    measured = {
        name: Measurement(name, value, "", "lower", value, value, 10)
        for name, value in values.items()
    }
    return Candidate("one", (), "digest", "engine", Setting(), measured)


FP32 = candidate(latency=4.0, size=1000, metric=90.0)
INT8 = candidate(latency=2.0, speedup=2.0, size=300, drop=0.4, memory=50, throughput=100)


SPEEDUP = Measurement("speedup", 2.01, "×", "higher", 1.96, 2.06, 10)
LATENCY = Measurement("latency", 1.99, "ms", "lower", 1.9, 2.5, 10)


@pytest.mark.parametrize(
    ("goal", "missing"),
    [
        (Goal(max_drop=0.5), Shortfall()),
        (Goal(max_drop=0.5, min_speedup=2.0), Shortfall()),
        (Goal(max_drop=0.5, min_speedup=4.0), Shortfall(latency_ratio=0.5)),
        (Goal(max_drop=0.5, max_latency_ms=1.0), Shortfall(latency_ratio=0.5)),
        (Goal(max_drop=0.5, max_latency_ms=1.5, min_speedup=4), Shortfall(latency_ratio=0.5)),
        (Goal(max_drop=0.5, max_size_ratio=0.15), Shortfall(size_ratio=0.5)),
        (Goal(max_drop=0.5, max_size_bytes=75), Shortfall(size_ratio=0.25)),
        (Goal(max_drop=0.5, max_memory_bytes=40), Shortfall(smaller=True)),
        (Goal(max_drop=0.5, min_throughput=200), Shortfall(smaller=True)),
        (Goal(max_drop=0.1), Shortfall(drop=True)),
        (Goal(max_drop="1%"), Shortfall()),
        (Goal(max_drop=None, objective="size"), Shortfall()),
    ],
)
def test_shortfall_is_by_value(goal, missing):
    assert shortfall(INT8, FP32, goal) == missing


def test_a_latency_counts_by_the_worse_end_of_its_interval():
    raced = replace(INT8, measured=INT8.measured | {"speedup": SPEEDUP, "latency": LATENCY})
    twice = Goal(min_speedup=2.0)
    assert shortfall(raced, FP32, twice).latency_ratio == pytest.approx(0.98)
    briefly = shortfall(raced, FP32, twice, raced_briefly=True)
    assert briefly.latency_ratio == pytest.approx(0.92 * 2.01 / 2)
    faster = Goal(min_speedup=1.8)
    assert shortfall(raced, FP32, faster, raced_briefly=True) == Shortfall()
    in_time = Goal(max_latency_ms=2.0)
    assert shortfall(raced, FP32, in_time).latency_ratio == pytest.approx(0.8)
    briefly = shortfall(raced, FP32, in_time, raced_briefly=True)
    assert briefly.latency_ratio == pytest.approx(2.0 * 0.92 / 1.99)


def test_structures_aim_below_what_may_stay():
    found = structures(Shortfall(latency_ratio=0.8), LEAD, 20)
    assert [one.kind for one in found] == [
        *["blocks"] * 4,
        "channels by latency",
        "channels by MACs",
        "channels by MACs",
        "channels by MACs",
    ]
    assert [len(one.steps) for one in found[:4]] == [3, 4, 6, 8]  # of 20, 5.28 would do
    assert {(step.of, step.amount) for one in found[:4] for step in one.steps} == {("blocks", 1)}
    (step,) = found[4].steps
    assert (step.of, step.engine, step.threads) == ("latency", "onnxruntime", 2)
    assert step.amount == pytest.approx(0.264)
    assert [one.steps[0].amount for one in found[5:]] == [0.3, 0.5, 0.7]
    assert len({one.name for one in found}) == len(found)


@pytest.mark.parametrize(("blocks", "counts"), [(0, []), (1, []), (3, [1]), (54, [4, 6, 7, 11])])
def test_of_few_blocks_fewer_are_dropped_and_never_all(blocks, counts):
    found = structures(Shortfall(latency_ratio=0.95), LEAD, blocks)
    assert [len(one.steps) for one in found if one.kind == "blocks"] == counts


def test_much_is_also_cut_in_blocks_and_channels_together():
    found = structures(Shortfall(latency_ratio=0.5), LEAD, 9)
    (both,) = [one for one in found if one.kind == "blocks and channels"]
    left = 1.0
    for step in both.steps:
        left *= 1 - step.amount
    assert left == pytest.approx(0.46, abs=0.01)
    assert [one.steps[0].amount for one in found if one.kind == "channels by MACs"] == [0.7]


def test_a_size_is_cut_by_size_and_out_of_reach_is_nothing():
    found = structures(Shortfall(size_ratio=0.6), LEAD, 9)
    assert found[0].steps[0].of == "size"
    assert structures(Shortfall(smaller=True), LEAD, 9)
    assert structures(Shortfall(latency_ratio=0.05), LEAD, 9) == []
