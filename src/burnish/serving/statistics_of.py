# SPDX-License-Identifier: Apache-2.0
"""What a served model counted, in the words of the protocol's statistics extension."""

from __future__ import annotations

from burnish.serving.counts import Histogram, ModelCounts
from burnish.serving.oip.statistics import BatchStatistics, Duration, ModelStatistics


def statistics_of(name: str, version: str, counts: ModelCounts) -> ModelStatistics:
    """Returns the statistics of one version of one model.

    Success takes from arrival to the answer's last byte being ready, where a server counted
    that; its count is that of the answers. Failures are requests that the model failed on or
    that were rejected, with the time of the former; who went away is in neither. The engine's
    time is counted by batch size, that of gathering and responding by request only.

    >>> counts = ModelCounts(answered=2, rows=3)
    >>> counts.stages["run"].add(1.5)
    >>> statistics_of("m", "1", counts).compute_infer
    Duration(count=1, ns=1500000)
    """
    stages = counts.stages
    return ModelStatistics(
        name=name,
        version=version,
        last_inference_ms=int(counts.last_answer_s * 1e3),
        inference_count=counts.rows,
        execution_count=counts.batches.total(),
        success=Duration(counts.answered, _ns(stages["total"].sum_ms)),
        fail=Duration(counts.failed + counts.rejections.total(), _ns(counts.failed_ms)),
        queue=_duration(stages["queue"]),
        compute_input=_duration(stages["gather"]),
        compute_infer=_duration(stages["run"]),
        compute_output=_duration(stages["respond"]),
        batches=tuple(
            BatchStatistics(rows, compute_infer=Duration(runs, _ns(counts.batch_ms[rows])))
            for rows, runs in sorted(counts.batches.items())
        ),
    )


def _duration(histogram: Histogram) -> Duration:
    return Duration(histogram.n, _ns(histogram.sum_ms))


def _ns(ms: float) -> int:
    return round(ms * 1e6)
