# SPDX-License-Identifier: Apache-2.0
"""What was counted, in the protocol's words; compared with sums done by hand."""

from __future__ import annotations

import pytest

from burnish.serving.counts import ModelCounts
from burnish.serving.oip.statistics import BatchStatistics, Duration, statistics_document
from burnish.serving.statistics_of import statistics_of


def counted() -> ModelCounts:
    counts = ModelCounts(answered=2, rows=5, failed=1, failed_ms=0.25, last_answer_s=12.3456)
    for stage, times in {
        "queue": (1.0, 0.5), "gather": (0.1, 0.2), "run": (2.0, 2.5), "respond": (0.01, 0.02),
        "total": (4.0, 3.5),
    }.items():  # fmt: skip
        for ms in times:
            counts.stages[stage].add(ms)
    counts.rejections.update(["count", "count", "late"])
    counts.batches.update({4: 1, 1: 2})
    counts.batch_ms.update({4: 2.5, 1: 3})
    return counts


def test_each_number_has_its_place() -> None:
    made = statistics_of("m", "3", counted())
    assert (made.name, made.version, made.last_inference_ms) == ("m", "3", 12345)
    assert (made.inference_count, made.execution_count) == (5, 3)
    assert made.success == Duration(2, 7_500_000)
    assert made.fail == Duration(4, 250_000)
    assert made.queue == Duration(2, 1_500_000)
    assert made.compute_input == Duration(2, 300_000)
    assert made.compute_infer == Duration(2, 4_500_000)
    assert made.compute_output == Duration(2, 30_000)
    assert made.batches == (
        BatchStatistics(1, compute_infer=Duration(2, 3_000_000)),
        BatchStatistics(4, compute_infer=Duration(1, 2_500_000)),
    )


def test_nothing_was_asked() -> None:
    made = statistics_of("m", "1", ModelCounts())
    assert made.success == made.fail == made.queue == Duration(0, 0)
    assert made.batches == ()
    (document,) = statistics_document([made])["model_stats"]
    assert document["last_inference"] == 0


@pytest.mark.parametrize("ms", [1e-7, 0.1 + 0.2, 1e9])
def test_nanoseconds_are_whole(ms: float) -> None:
    counts = ModelCounts()
    counts.stages["run"].add(ms)
    assert statistics_of("m", "1", counts).compute_infer.ns == round(ms * 1e6)
