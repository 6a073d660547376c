# SPDX-License-Identifier: Apache-2.0
"""The metrics, read back by Prometheus's own parsers."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from showing_models import busy, model, shelf

from burnish.serving.counts import Histogram
from burnish.serving.showing import resources
from burnish.serving.showing.metrics import exposition, prefers_openmetrics, seen, written

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"


def samples(text: bytes, **labels: str) -> dict[str, float]:
    """Returns the values of the samples with these labels, by name."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    }


def test_text_is_read_back_with_what_was_counted() -> None:
    text, kind = exposition(shelf(busy()), Histogram())
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    net = {"model": "net", "version": "1"}
    assert samples(text, **net, outcome="answered")["burnish_requests_total"] == 3
    assert samples(text, **net, outcome="failed")["burnish_requests_total"] == 1
    assert samples(text, **net, outcome="rejected")["burnish_requests_total"] == 2
    assert samples(text, **net, outcome="cancelled")["burnish_requests_total"] == 4
    assert samples(text, **net, reason="deadline")["burnish_requests_rejected_total"] == 2
    assert samples(text, **net, reason="late")["burnish_requests_rejected_total"] == 0
    found = samples(text, **net)
    assert found["burnish_requests_in_slo_total"] == 2
    assert found["burnish_rows_total"] == 9
    assert found["burnish_queue_depth"] == 2
    assert found["burnish_requests_in_flight"] == 5
    assert found["burnish_engine_busy_seconds_total"] == pytest.approx(0.010)
    assert found["burnish_batch_rows_sum"] == 7
    assert found["burnish_batch_rows_count"] == 3
    assert found["burnish_request_duration_seconds_sum"] == pytest.approx(70.00305)


def test_openmetrics_is_read_back_and_ends() -> None:
    text, kind = exposition(shelf(busy()), Histogram(), OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    names = {family.name for family in openmetrics_families(text.decode())}
    assert {"burnish_requests", "burnish_request_duration_seconds", "burnish_build"} <= names


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_histograms_rise_to_their_count(accept: str) -> None:
    lag = Histogram()
    lag.add(1.0)
    text, _ = exposition(shelf(busy(), model("idle")), lag, accept)
    read: Any = openmetrics_families if accept else text_string_to_metric_families
    seen_series = 0
    for family in read(text.decode()):
        if family.type != "histogram":
            continue
        buckets: dict[Any, list[tuple[float, float]]] = {}
        counts: dict[Any, float] = {}
        for sample in family.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", None)
            key = tuple(sorted(labels.items()))
            if bound is not None:
                buckets.setdefault(key, []).append((float(bound), sample.value))
            elif sample.name.endswith("_count"):
                counts[key] = sample.value
        assert buckets.keys() == counts.keys()
        for key, listed in buckets.items():
            assert listed == sorted(listed)
            assert [count for _, count in listed] == sorted(count for _, count in listed)
            assert listed[-1] == (float("inf"), counts[key])
            seen_series += 1
    assert seen_series == 2 * (1 + 4 + 1) + 1


def test_a_time_is_counted_below_its_bound_and_not_before() -> None:
    text, _ = exposition(shelf(busy()), Histogram())
    (family,) = (
        one
        for one in text_string_to_metric_families(text.decode())
        if one.name == "burnish_request_duration_seconds"
    )
    counts = {float(one.labels["le"]): one.value for one in family.samples if "le" in one.labels}
    assert max(count for bound, count in counts.items() if bound < 0.003) == 1
    assert min(count for bound, count in counts.items() if bound >= 0.003) == 2
    assert max(count for bound, count in counts.items() if bound < 70) == 2


def test_names_follow_the_rules() -> None:
    text, _ = exposition(shelf(busy()), Histogram())
    for family in text_string_to_metric_families(text.decode()):
        assert family.name.startswith("burnish_"), family.name
        assert family.documentation.endswith("."), family.name
        assert "_ms" not in family.name
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            else:
                assert not sample.name.endswith("_total"), sample.name
        if any(word in family.name for word in ("duration", "lag", "slo_s", "cpu", "time")):
            assert family.name.endswith("_seconds"), family.name


def test_what_is_not_loaded_is_not_ready() -> None:
    text, _ = exposition(shelf(busy(), missing=(("gone", "unloaded"),)), Histogram())
    assert samples(text, model="net")["burnish_model_ready"] == 1
    assert samples(text, model="gone")["burnish_model_ready"] == 0


def test_names_with_quotes_are_read_back() -> None:
    text, _ = exposition(shelf(busy(name='a"b\\c\nd')), Histogram())
    assert samples(text, model='a"b\\c\nd')["burnish_rows_total"] == 9


def test_what_is_seen_does_not_change_with_the_counts() -> None:
    one = busy()
    before = seen(shelf(one), Histogram())
    one.counts.batches[1] += 100
    one.counts.stages["total"].add(1.0)
    one.counts.rejections["late"] += 1
    found = samples(written(before)[0], model="net")
    assert found["burnish_batch_rows_count"] == 3
    assert found["burnish_request_duration_seconds_count"] == 3


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        (OPENMETRICS, True),
        ("text/plain, application/openmetrics-text;q=0.2", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        (";;,,q=;", False),
    ],
)
def test_openmetrics_is_given_to_whom_prefers_it(accept: str, preferred: bool) -> None:
    assert prefers_openmetrics(accept) is preferred


def test_gpus_are_shown_where_nvml_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def refuse(handle: Any) -> Any:
        raise NVMLError

    nvml = ModuleType("pynvml")
    for name, value in {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"Card",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2**30, total=2**34),
        "nvmlDeviceGetUtilizationRates": refuse,
    }.items():
        setattr(nvml, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    resources._nvml.cache_clear()
    try:
        text, _ = exposition(shelf(), Histogram())
    finally:
        resources._nvml.cache_clear()
    found = samples(text, gpu="0", name="Card")
    assert found == {
        "burnish_gpu_memory_used_bytes": 2**30,
        "burnish_gpu_memory_size_bytes": 2**34,
    }


def test_no_gpu_is_shown_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    resources._nvml.cache_clear()
    try:
        text, _ = exposition(shelf(), Histogram())
    finally:
        resources._nvml.cache_clear()
    assert b"burnish_gpu" not in text
    assert b"burnish_process_cpu_seconds_total" in text
