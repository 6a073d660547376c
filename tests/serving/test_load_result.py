# SPDX-License-Identifier: Apache-2.0
"""Histograms against numpy, parts that are added up, and the page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.serving.load.histogram import Histogram
from burnish.serving.load.page import page
from burnish.serving.load.result import LoadResult, Part, add_up
from burnish.serving.load.rows import doubts
from burnish.serving.load.slo import Slo
from burnish.serving.load.sweep import Step, SweepResult
from burnish.serving.load.table import load_table

LATENCIES = st.lists(st.floats(2e-6, 3000), min_size=1, max_size=200)


def part(latencies=(0.01,), late=(0.0,), in_slo=1, **failures):
    return Part(
        latency=Histogram(latencies), service=Histogram(latencies), late=Histogram(late),
        failures=failures, in_slo=in_slo, last_s=1.0, resent=1, waited=2, opened=3, cpu_s=0.1,
        wall_s=1.0,
    )  # fmt: skip


def result(latencies=(0.01,), slo=None, offered=100.0, late=(0.0,), **failures):
    return LoadResult(
        url="http://h:1", model="<m>", schedule="poisson, 100/s", slo=slo, offered_per_s=offered,
        elapsed_s=2.0, latency=Histogram(latencies), service=Histogram(latencies),
        late=Histogram(late), failures=failures, in_slo=None, resent=0, waited=0, opened=1,
        connections=1, processes=1, generator_cpu_ratio=0.1, request_bytes=1000, rows=1,
    )  # fmt: skip


@given(LATENCIES, st.sampled_from([0.1, 50, 90, 99, 99.9, 100]))
@settings(max_examples=60, deadline=None)
def test_percentiles_are_those_of_sorting(latencies, percentile):
    found = Histogram(latencies).percentile_ms(percentile)
    rank = max(1, math.floor(percentile * len(latencies) / 100 + 0.5))
    expected = sorted(latencies)[rank - 1] * 1e3
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-3)


def test_percentiles_are_the_librarys_own():
    from hdrh.histogram import HdrHistogram

    us = np.random.default_rng(0).integers(1, 10**7, 300).tolist()
    theirs = HdrHistogram(1, 3_600_000_000, 3)
    for one in us:
        theirs.record_value(one)
    ours = Histogram(np.array(us) / 1e6)
    for percentile in (0.1, 25, 50, 99, 99.9, 100):
        assert ours.percentile_ms(percentile) * 1e3 == theirs.get_value_at_percentile(percentile)
    assert ours.mean_ms * 1e3 == pytest.approx(theirs.get_mean_value(), rel=1e-3)


@given(LATENCIES, LATENCIES, LATENCIES)
@settings(max_examples=40, deadline=None)
def test_merged_is_as_if_recorded_in_one(first, second, third):
    merged = Histogram.merged(
        Histogram.from_text(Histogram(one).to_text()) for one in (first, second, third)
    )
    whole = Histogram([*first, *second, *third])
    assert list(merged) == list(whole)
    assert merged.n == len(first) + len(second) + len(third)
    assert merged.max_ms == pytest.approx(whole.max_ms, rel=2e-3)


def test_the_ends_of_the_range():
    histogram = Histogram([0.0, 1e9])
    assert histogram.n == 2
    assert histogram.percentile_ms(1) == pytest.approx(1e-3)
    assert histogram.max_ms == pytest.approx(3.6e6, rel=2e-3)
    empty = Histogram()
    assert math.isnan(empty.percentile_ms(50))
    assert math.isnan(empty.max_ms)
    assert Histogram.from_text(empty.to_text()).n == 0


def test_the_interval_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        low, high = Histogram(rng.exponential(0.01, 500)).interval_ms(90)
        held += low <= 10 * math.log(10) <= high * 1.001
    assert 180 <= held <= 199


def test_parts_add_up_over_json():
    parts = [
        part([0.01, 0.02], in_slo=2, **{"429": 3, "timeout": 1}),
        part([0.5], in_slo=0, **{"429": 1}),
    ]
    sent = [Part.from_dict(json.loads(json.dumps(one.to_dict()))) for one in parts]
    whole = add_up(sent)
    assert whole.latency.n == 3
    assert whole.failures == {"429": 4, "timeout": 1}
    assert (whole.in_slo, whole.resent, whole.waited, whole.opened) == (2, 2, 4, 6)
    assert whole.cpu_s == pytest.approx(0.2)


def test_an_slo_is_kept_or_not():
    fast = [0.01] * 99
    assert result(fast, Slo("p99", 20)).keeps()
    assert not result(fast, Slo("p99", 5)).keeps()
    assert not result(fast, Slo("p99", 20), **{"429": 1}).keeps()  # 1 % failed
    assert not result([], Slo("p99", 20)).keeps()
    assert not result(fast).keeps()
    with pytest.raises(Misuse, match="unknown percentile"):
        Slo("p98", 5)
    with pytest.raises(Misuse, match="above 0"):
        Slo("p99", math.nan)


def test_doubts_are_said():
    said = " ".join(doubts(result([0.01] * 100, late=[0.02] * 100)))
    assert "the generator itself was late" in said
    assert "at least 1,000 are needed" in said
    assert not doubts(result([0.01] * 1000))


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("answers", [0, 1, 5000])
def test_the_page_stands_alone(answers):
    rng = np.random.default_rng(0)
    slo = Slo("p99", 50)
    runs = [result(rng.exponential(0.01, answers), slo, 100.0 * i) for i in (1, 2, 3)]
    swept = SweepResult(slo, tuple(Step(100.0 * (i + 1), one) for i, one in enumerate(runs)), None)
    closed = result(rng.exponential(0.01, answers), offered=None)
    for measured in (*runs, swept, closed):
        text = page(measured, "burnish load '<x>'")
        read = Page()
        read.feed(text)
        assert not read.open
        assert not read.links
        assert "script" not in read.seen
        assert "svg" in read.seen
        assert "<m>" not in text
        assert "<x>" not in text
        assert "nan" not in text.split("</style>")[1]
        assert "prefers-color-scheme: dark" in text
        assert load_table(measured).row_count
    knee = SweepResult(slo, swept.steps, swept.steps[1])
    assert "200 requests/s keep p99" in page(knee)
