# SPDX-License-Identifier: Apache-2.0
"""The live page's data: all that was counted, as JSON that any reader takes."""

from __future__ import annotations

import json
import math

from showing_models import IMAGE, busy, model, shelf

from burnish.serving.counts import BOUNDS_MS, STAGES, Histogram
from burnish.serving.showing.status import snapshot


def test_it_is_json_without_nan() -> None:
    lag = Histogram()
    lag.add(0.3)
    found = shelf(busy(), model("idle"), missing=(("gone", "unloaded"),))
    text = json.dumps(snapshot(found, lag), allow_nan=False)
    document = json.loads(text)
    assert [one["name"] for one in document["models"]] == ["net", "idle"]
    assert document["unavailable"] == [{"name": "gone", "version": "1", "reason": "unloaded"}]
    assert document["models"][1]["last_answer_s"] is None
    assert document["models"][1]["stages"]["total"] == {"counts": [], "n": 0, "sum_ms": 0.0}


def test_counts_are_those_of_the_model() -> None:
    (one,) = snapshot(shelf(busy(slo_ms=50.0)), Histogram())["models"]
    assert one["slo_ms"] == 50.0
    assert (one["answered"], one["rows"], one["in_slo"], one["failed"]) == (3, 9, 2, 1)
    assert one["rejections"] == {"deadline": 2}
    assert one["batches"] == [
        {"rows": 1, "runs": 2, "run_ms": 4.0},
        {"rows": 5, "runs": 1, "run_ms": 6.0},
    ]
    assert (one["waiting"], one["in_flight"], one["queue_limit"]) == (2, 5, 100)
    assert set(one["stages"]) == set(STAGES)
    for stage in one["stages"].values():
        assert sum(stage["counts"]) == stage["n"] == 3
        assert len(stage["counts"]) <= len(BOUNDS_MS) + 1


def test_no_objective_is_null() -> None:
    (one,) = snapshot(shelf(model(slo_ms=math.inf)), Histogram())["models"]
    assert one["slo_ms"] is None


def test_the_process_is_there() -> None:
    server = snapshot(shelf(), Histogram())["server"]
    assert server["cores"] >= 1
    assert server["cpu_s"] > 0
    assert 0 < server["resident_bytes"] < server["memory_bytes"]
    assert server["uptime_s"] >= 0


def test_it_stays_small() -> None:
    models = [busy(name=f"net-{place}", inputs=(IMAGE,)) for place in range(20)]
    assert len(json.dumps(snapshot(shelf(*models), Histogram()))) < 60_000
