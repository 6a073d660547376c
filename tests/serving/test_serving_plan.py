# SPDX-License-Identifier: Apache-2.0
"""What a bundle's own measurements say about serving it."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.serving.serving_plan import serving_plan


def row(threads: int, streams: int, batch_size: int, ms: float) -> dict[str, Any]:
    return {
        "threads": threads,
        "streams": streams,
        "batch_size": batch_size,
        "latency_ms": ms,
        "samples_per_s": 1e3 * streams * batch_size / ms,
    }


def test_most_samples_a_second_decide_and_larger_batches_that_give_no_more_are_left_out() -> None:
    rows = [row(2, 1, 1, 5.0), row(2, 1, 8, 20.0), row(2, 1, 16, 48.0), row(1, 2, 1, 9.0)]
    plan = serving_plan({"latency_by_batch": rows})
    assert plan.setting == Setting(threads=2, streams=1)
    assert (plan.max_batch_size, plan.table) == (8, ((1, 5.0), (8, 20.0), (16, 48.0)))


@pytest.mark.parametrize(("ms", "streams"), [(10.5, 2), (12.0, 1)])
def test_of_those_about_as_good_the_one_with_most_streams(ms: float, streams: int) -> None:
    plan = serving_plan({"latency_by_batch": [row(2, 1, 1, 5.0), row(1, 2, 1, ms)]})
    assert plan.setting.streams == streams


def test_without_a_table_the_latency_that_was_measured() -> None:
    plan = serving_plan({"threads": 2, "streams": 1, "latency_ms": 3.0})
    assert (plan.setting, plan.table) == (Setting(2, 1), ((1, 3.0),))


def test_what_burnish_plan_wrote_goes_before() -> None:
    table = [{"batch_size": 1, "latency_ms": 4.0}]
    chosen = {"threads": 1, "streams": 2, "max_batch_size": 4, "latency_by_batch": table}
    plan = serving_plan({"latency_by_batch": [row(2, 1, 1, 1.0)], "serving": chosen})
    assert (plan.setting, plan.max_batch_size, plan.slo_ms) == (Setting(1, 2), 4, None)


@pytest.mark.parametrize("plan", [{}, {"latency_by_batch": [{}]}, {"serving": {}}])
def test_a_damaged_plan_is_said_to_be_one(plan: dict[str, Any]) -> None:
    with pytest.raises(Misuse, match="damaged"):
        serving_plan(plan)
