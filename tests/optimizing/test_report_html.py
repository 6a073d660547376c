# SPDX-License-Identifier: Apache-2.0
"""The HTML page: well formed, self-contained, complete, accessible, and deaf to attacks."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import report_results

from burnish.optimizing.report import charts, names
from burnish.optimizing.report.html import html
from burnish.optimizing.report.pareto import frontier
from burnish.optimizing.report.rows import rows
from burnish.optimizing.result import Result

_VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page: its elements, ids, text, and whether each tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({key for key, _ in attrs}) == len(attrs), f"an attribute twice on {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title", "desc"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Returns the attributes of each element of this kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def test_well_formed_and_self_contained(any_result: Result) -> None:
    """Tags balance, ids are unique, links stay in the page, nothing is fetched or run."""
    text = html(any_result)
    page = Page(text)
    assert page.open == []
    ids = [str(a["id"]) for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.tags:
        assert not any(key.startswith("on") or key in ("src", "srcset") for key in attributes)
        if "href" in attributes:
            assert str(attributes["href"])[:1] == "#"
            assert str(attributes["href"])[1:] in ids
        for key in ("aria-labelledby", "aria-describedby"):
            assert set(str(attributes.get(key) or "").split()) <= set(ids)
    assert not page.all("script")
    assert not page.all("link")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?:", text)
    policy = next(a for a in page.all("meta") if "http-equiv" in a)["content"]
    assert str(policy).startswith("default-src 'none'")


def test_complete(any_result: Result) -> None:
    """Every candidate, verdict, reason, warning and fact is on the page as text."""
    page = Page(html(any_result))
    said = page.text
    for one in (*any_result.baselines, *any_result.candidates):
        assert names.printable(one.name) in said
    for skipped in (*any_result.passed_over, *any_result.best.skipped):
        assert names.printable(skipped.place) in said
        assert names.printable(skipped.reason) in said
    for warning in any_result.warnings:
        assert names.printable(warning) in said
    for verdict in any_result.verdicts:
        assert verdict.status in said
    assert names.printable(any_result.command, newline=True) in said


def test_accessible(any_result: Result) -> None:
    """One h1, headings that skip no level, header cells with a scope, named charts."""
    page = Page(html(any_result))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(a.get("scope") in ("row", "col") for a in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    for svg in page.all("svg"):
        assert svg["role"] == "img"
        assert len(str(svg["aria-labelledby"]).split()) == 2


def test_hostile_names_are_text() -> None:
    """An attack in every field of the result adds no element and no attribute."""
    page, plain = Page(html(report_results.hostile())), Page(html(report_results.not_met()))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {"details"}
    assert '<script>alert("1")</script>' in page.text
    assert "\x1b" not in html(report_results.hostile())


@pytest.mark.parametrize("make", [charts.pareto, charts.latencies, charts.throughput, charts.sizes])
def test_charts(make: object, any_result: Result) -> None:
    """A chart is None or a named SVG with axis titles, whose coordinates are all numbers."""
    assert callable(make)
    for width in (1010, 340):
        svg = make(any_result, width)
        if svg is None:
            assert report_results.missing() == any_result
            continue
        page = Page(str(svg))
        assert page.open == []
        assert "axis-title" in svg
        assert "nan" not in re.sub(r">[^<]*<", "><", str(svg))
        for circle in page.all("circle"):
            assert 0 <= float(str(circle["cx"])) <= width


@pytest.mark.parametrize("width", [1010, 340])
def test_the_chosen_point_is_named_however_crowded(width: int) -> None:
    """The label of the choice finds a place also on a phone."""
    for make in report_results.EVERY:
        svg = charts.pareto(make(), width)
        assert svg is None or 'class="label halo chosen"' in svg


def test_each_empty_chart_says_so() -> None:
    """Without data there is a sentence in the place of each chart."""
    page = Page(html(report_results.missing()))
    assert not page.all("svg")
    for sentence in charts.EMPTY.values():
        assert sentence in page.text


def test_pareto_whiskers_are_the_paired_interval() -> None:
    """The vertical whisker spans fp32 minus the drop's interval, not the metric's own."""
    svg = str(charts.pareto(report_results.not_met(), 1010))
    assert "3.02 ms" in svg
    ticks = dict(re.findall(r'y="([\d.]+)" text-anchor="end" class="tick">([\d.]+)<', svg))
    at = sorted((float(value), float(y)) for y, value in ticks.items())
    (low, y_low), (high, y_high) = at[0], at[-1]
    scale = (y_high - y_low) / (high - low)
    mark = re.findall(r"<g class=\"mark chosen\">.*?</g>", svg)[0]
    vertical = [
        (float(y1), float(y2))
        for x1, y1, x2, y2 in re.findall(
            r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', mark
        )
        if x1 == x2
    ]
    spanned = abs((vertical[0][1] - vertical[0][0]) / scale)
    assert spanned == pytest.approx(0.5, abs=0.02)


def test_frontier_is_what_no_other_beats() -> None:
    """The frontier equals the definition, worked out pair by pair."""
    points = [(float(i * 7 % 11), float(i * 5 % 13)) for i in range(11)]
    beaten = {
        i
        for i, a in enumerate(points)
        if any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in points)
    }
    assert sorted(frontier(points)) == sorted(set(range(11)) - beaten)


def test_throughput_takes_the_best_setting_at_each_batch() -> None:
    """Of two settings at a batch size the faster one is drawn and described."""
    result = report_results.met()
    svg = str(charts.throughput(result, 1010))
    entries = [e for e in result.best.detail["throughput"] if e["batch_size"] == 8]
    best = max(entry["samples_per_s"] for entry in entries)
    label = next(row.label for row in rows(result) if row.chosen)
    described = svg[svg.index(f"{label}: ") :]
    assert f"{best:,.0f} at batch 8" in described.split(";")[0]


def test_damaged_details_do_not_stop_the_report() -> None:
    """Infinities and empty lists in the plain data are left out, not drawn."""
    result = report_results.not_met()
    detail = {
        "round_medians_ms": [float("nan"), 3.0, 3.1],
        "throughput": [{"batch_size": 1, "samples_per_s": float("inf")}],
        "percentiles_ms": {},
    }
    best = replace(result.best, detail=detail)
    page = Page(html(replace(result, best=best, candidates=(best,))))
    assert page.open == []
