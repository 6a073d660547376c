# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry spans: a request, and in it queue, batch, engine, reply.

Recorded when the process has a tracer provider (`opentelemetry-instrument burnish serve …`
sets one up); without it, or without the package, nothing is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from burnish.serving.served_model import Answer, ServedModel


@dataclass(frozen=True)
class Traced:
    """A request that was answered: when it began and ended, nanoseconds since 1970."""

    served: ServedModel
    answer: Answer
    identifier: str
    body_ms: float
    """From its beginning until it was in the queue."""
    began_ns: int
    ended_ns: int


class Tracing:
    """Where spans go."""

    def __init__(self) -> None:
        self._tracer: Any = None
        try:
            from opentelemetry import propagate, trace
        except ImportError:
            return
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            self._trace, self._propagate = trace, propagate
            self._tracer = trace.get_tracer("burnish.serving")

    @property
    def on(self) -> bool:
        """Whether anybody listens."""
        return self._tracer is not None

    def record(self, headers: Mapping[str, str], traced: Traced) -> None:
        """Records a request's spans, as a child of the trace that its headers name."""
        if self._tracer is None:
            return
        served, answer = traced.served, traced.answer
        request = self._tracer.start_span(
            "infer",
            context=self._propagate.extract(headers),
            kind=self._trace.SpanKind.SERVER,
            start_time=traced.began_ns,
            attributes={
                "burnish.model.name": served.name,
                "burnish.model.version": served.version,
                "burnish.batch_size": answer.batch_size,
                "burnish.request_id": traced.identifier,
            },
        )
        inside = self._trace.set_span_in_context(request)
        lengths_ns = [
            ("queue", answer.queue_ms),
            ("gather", answer.gather_ms),
            ("run", answer.run_ms),
        ]
        start_ns = traced.began_ns + _ns(traced.body_ms)
        for name, ms in lengths_ns:
            end_ns = start_ns + _ns(ms)
            span = self._tracer.start_span(name, context=inside, start_time=start_ns)
            span.end(end_ns)
            start_ns = end_ns
        span = self._tracer.start_span("respond", context=inside, start_time=start_ns)
        span.end(max(start_ns, traced.ended_ns))
        request.end(traced.ended_ns)


def _ns(ms: float) -> int:
    return max(0, round(ms * 1e6))
