# SPDX-License-Identifier: Apache-2.0
"""Spans: a request is one, what it waited for are its children, in order and inside it."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from burnish.serving.served_model import Answer
from burnish.serving.tracing import Traced, Tracing


class Named:
    name, version = "net", "3"


def test_nothing_is_recorded_without_a_provider() -> None:
    assert not Tracing().on


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracing = Tracing()
    assert tracing.on
    answer = Answer({"y": np.zeros(1)}, 2.0, 0.5, 4.0, 8)
    parent = "0af7651916cd43dd8448eb211c80319c"
    traced = Traced(Named(), answer, "id-1", 1.0, 10_000_000, 20_000_000)  # type: ignore[arg-type]
    tracing.record({"traceparent": f"00-{parent}-b7ad6b7169203331-01"}, traced)
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert set(spans) == {"infer", "queue", "gather", "run", "respond"}
    request = spans["infer"]
    assert f"{request.context.trace_id:032x}" == parent
    assert dict(request.attributes)["burnish.batch_size"] == 8
    assert (request.start_time, request.end_time) == (10_000_000, 20_000_000)
    ends = [11_000_000]
    for name in ("queue", "gather", "run", "respond"):
        span = spans[name]
        assert span.parent.span_id == request.context.span_id
        assert span.start_time == ends[-1]
        ends.append(span.end_time)
    assert ends == [11_000_000, 13_000_000, 13_500_000, 17_500_000, 20_000_000]
