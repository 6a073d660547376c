# SPDX-License-Identifier: Apache-2.0
"""A result goes to JSON and back unchanged."""

from __future__ import annotations

import json
from dataclasses import replace

import report_results
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.candidate import Candidate
from burnish.core.goal import Goal
from burnish.core.measurement import Measurement
from burnish.optimizing.report.html import html
from burnish.optimizing.report.markdown import markdown
from burnish.optimizing.report.rows import rows
from burnish.optimizing.result import Result


def test_json_round_trip(any_result: Result) -> None:
    """What was written is read back equal, and reports read the same."""
    back = Result.from_dict(json.loads(json.dumps(any_result.to_dict(), allow_nan=False)))
    assert back == any_result
    assert html(back) == html(any_result)
    assert markdown(back) == markdown(any_result)


finite = st.floats(-1e9, 1e9)
measurements = st.builds(
    Measurement,
    quantity=st.sampled_from(["latency", "drop"]),
    value=finite,
    unit=st.text(max_size=5),
    better=st.sampled_from(["lower", "higher"]),
    low=finite,
    high=finite,
    n=st.integers(0, 10**6),
    conditions=st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@given(st.text(), measurements, measurements, st.one_of(st.none(), st.floats(0, 1e6)))
def test_candidate_round_trip(
    name: str, latency: Measurement, drop: Measurement, limit: float | None
) -> None:
    """So is any candidate with any measurement and verdict."""
    measured = {"latency": latency, "drop": drop}
    verdicts = Goal(max_drop=limit).judge(measured, {})
    one = Candidate(name, (), "m", "e 1 (cpu)", report_results.candidate("x").setting, measured)
    one = replace(one, verdicts=verdicts)
    assert Candidate.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_rows_are_in_order_and_name_the_chosen_once(any_result: Result) -> None:
    """Source framework, best fp32, other fp32, candidates; labels differ; one is chosen."""
    found = rows(any_result)
    order = ["eager", "fp32", "other fp32", "kept"]
    assert [row.role for row in found] == sorted((row.role for row in found), key=order.index)
    assert len({row.label for row in found}) == len(found)
    assert [row.candidate for row in found if row.chosen] == [any_result.best]
    kept = [row.candidate for row in found if row.role == "kept"]
    assert kept == list(any_result.candidates)


def test_a_chosen_candidate_that_was_not_kept_is_still_shown() -> None:
    """The choice is never missing from the table."""
    result = report_results.met()
    result = replace(result, candidates=result.candidates[1:])
    assert rows(result)[3].candidate == result.best


def test_ratio_is_paired_where_measured_and_of_medians_elsewhere() -> None:
    """The ratio's second line says which it is."""
    found = {row.label: row for row in rows(report_results.met())}
    assert found["original, OpenVINO"].ratio.main == "1×"
    assert found["original, ONNX Runtime"].ratio == type(found["fused"].ratio)(
        "0.89×", "of medians"
    )
    assert found["fused"].ratio.main == "1.07×"
    assert found["fused"].ratio.below.startswith("[")
