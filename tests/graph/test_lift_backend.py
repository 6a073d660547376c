# SPDX-License-Identifier: Apache-2.0
"""The lift against ONNX's own operator tests, run by the script that writes docs/lift.md."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from burnish.core.errors import Unsupported
from burnish.graph.lift import families
from burnish.graph.lift.module import lift
from burnish.graph.lift.registry import operators

_SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "make_lift_coverage.py"
_spec = importlib.util.spec_from_file_location("make_lift_coverage", _SCRIPT)
coverage = importlib.util.module_from_spec(_spec)
sys.modules["make_lift_coverage"] = coverage
_spec.loader.exec_module(coverage)
families.load()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_first_cases_of_every_operator_pass(family):
    about = coverage.subjects()
    seen: Counter[str] = Counter()
    verdicts = []
    for case in coverage.cases():
        operator = about[case.name]
        known = operators().get(operator)
        if known is None or known.family != family or "_expanded" in case.name:
            continue
        seen[operator] += 1
        if seen[operator] <= 2:
            verdicts.append(coverage.judge(case, operator))
    assert [one for one in verdicts if one.outcome == "failed"] == []
    assert Counter(one.outcome for one in verdicts)["passed"] >= 2


@pytest.mark.slow
def test_every_case_passes_or_has_a_reason_and_the_page_says_so():
    about = coverage.subjects()
    verdicts = [coverage.judge(case, about[case.name]) for case in coverage.cases()]
    counts = Counter(one.outcome for one in verdicts)
    assert [one for one in verdicts if one.outcome == "failed"] == []
    assert counts["passed"] > 1700
    assert counts["skipped"] < 150
    written = coverage.PAGE.read_text(encoding="utf-8")
    assert written == coverage.page(verdicts), "docs/lift.md is out of date: run make docs"


@pytest.mark.slow
def test_what_is_skipped_is_refused_by_the_lift():
    wrong = []
    for case in coverage.cases():
        reason = coverage.skip_reason(case)
        if not reason or reason == coverage._LIVE:
            continue
        try:
            lift(ir.from_proto(case.model))
        except Unsupported:
            continue
        wrong.append((case.name, reason))
    assert wrong == []


def test_every_operator_of_the_default_domain_is_lifted_or_has_a_reason():
    without = coverage.default_operators() - set(operators())
    assert without - set(coverage._REASONS) == set()
    assert set(coverage._REASONS) & set(operators()) == set()
