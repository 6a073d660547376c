# SPDX-License-Identifier: Apache-2.0
"""Load against servers whose times are known: what it counts, and from when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_stub import Stub, serving

from burnish.core.errors import BurnishError, Misuse
from burnish.serving.load.ask import asked_payload, only_model
from burnish.serving.load.histogram import Histogram
from burnish.serving.load.knee import Search, knee
from burnish.serving.load.payload import Sizes, random_payload
from burnish.serving.load.plan import LoadPlan
from burnish.serving.load.result import LoadResult
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import Bursts, ClosedLoop, Constant, Poisson, timetable
from burnish.serving.load.slo import Slo
from burnish.serving.load.sweep import run_sweep
from burnish.serving.load.trace_file import parse_trace
from burnish.serving.oip.request import decode_request


def _run(stub: Stub, schedule: object, **more: object) -> LoadResult:
    plan = LoadPlan(stub.url, asked_payload(stub.url), schedule, **{"duration_s": 1.0, **more})
    return run_load(plan)


def test_a_closed_loop_counts_what_a_server_of_known_times_can_do() -> None:
    with serving(Stub(lambda _: (0.02, 200))) as stub:
        result = _run(stub, ClosedLoop(), connections=4)
    assert 80 <= result.achieved_per_s <= 205  # 4 connections, 20 ms each
    assert 19 <= result.percentile_ms(50) <= 60
    assert not result.failures


def test_a_stall_is_charged_to_all_who_waited_for_it() -> None:
    """Counted from sending, few requests saw the stall; counted from when due, a third did."""
    with serving(Stub(lambda _: (0.0, 200), stalls=(0.3, 0.6))) as stub:
        result = _run(stub, Constant(200), connections=2)
    assert result.percentile_ms(90) > 100
    assert result.service.percentile_ms(90) < 100
    assert result.percentile_ms(99) > 200


def test_what_is_not_answered_is_counted_by_kind() -> None:
    answers = {0: (0.0, 200), 1: (0.0, 429), 2: (0.0, 503), 3: (0.0, 0), 4: (0.0, -2)}
    with serving(Stub(lambda number: answers[number % 5])) as stub:
        result = _run(stub, Constant(100), slo=Slo("p99", 50.0))
    assert {"429", "503"} <= set(result.failures)
    assert result.rejected == result.failures["429"] + result.failures["503"]
    assert result.requests == 100
    assert not result.keeps()


def test_requests_that_are_never_answered_are_given_up() -> None:
    with serving(Stub(lambda number: (0.0, -1 if number % 2 else 200))) as stub:
        result = _run(stub, Constant(20), timeout_s=0.3)
    assert result.failures["timeout"] >= 8


def test_two_processes_add_up() -> None:
    with serving(Stub(lambda _: (0.001, 200))) as stub:
        result = _run(stub, Poisson(100), processes=2, connections=8)
    assert result.processes == 2
    assert result.ok == result.requests
    assert 60 <= result.ok <= 150


def test_a_sweep_finds_about_where_a_server_gives_up() -> None:
    """One request at a time, 10 ms each: 100 a second and no more."""
    with serving(Stub(lambda _: (0.01, 200))) as stub:
        plan = LoadPlan(
            stub.url,
            asked_payload(stub.url),
            Constant(1.0),
            duration_s=0.6,
            connections=1,
            slo=Slo("p99", 80.0),
        )
        found = run_sweep(plan, Search(20.0, most_steps=7))
    assert found.bracketed
    assert found.best is not None
    assert 25 <= found.best.per_s <= 130


def test_where_nobody_listens_it_says_so() -> None:
    with pytest.raises(Misuse, match="is the server running"):
        asked_payload("http://127.0.0.1:9")


def test_the_only_model_is_found_and_several_are_asked_about() -> None:
    with serving(Stub()) as stub:
        assert only_model(stub.url) == "m"
    with serving(Stub(models=["a", "b"])) as stub, pytest.raises(BurnishError, match="a, b"):
        only_model(stub.url)


def test_a_payload_fits_the_metadata() -> None:
    inputs = [
        {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        {"name": "half", "datatype": "BF16", "shape": [-1, 2]},
    ]
    document = {"name": "m", "inputs": inputs}
    payload = random_payload(document, Sizes(rows=3, axes={("ids", None): 7}), seed=1)
    body = b"".join(payload.encoded.buffers)
    read = decode_request(body, payload.encoded.header_length)
    assert [one.shape for one in read.inputs] == [(3, 7), (3,), (3, 2)]
    assert payload.rows == 3
    again = random_payload(document, Sizes(rows=3, axes={("ids", None): 7}), seed=1)
    assert b"".join(again.encoded.buffers) == body
    with pytest.raises(Misuse, match="--axis ids:1=128"):
        random_payload(document)


@given(st.sampled_from([Poisson(500.0), Constant(500.0), Bursts(500.0, 5)]), st.integers(0, 99))
def test_schedules_have_the_rate_that_was_asked_for_and_are_in_order(
    schedule: object, seed: int
) -> None:
    times = timetable(schedule, 4.0, seed).times_s
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] < 4.0
    assert 1500 <= len(times) <= 2500


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=300), st.integers(1, 299))
def test_histograms_add_up_and_travel_as_text(seconds: list[float], cut: int) -> None:
    whole = Histogram(seconds)
    parts = [Histogram(seconds[:cut]), Histogram(seconds[cut:])]
    merged = Histogram.merged(Histogram.from_text(one.to_text()) for one in parts)
    assert merged.n == len(seconds)
    for percentile in (0.0, 50.0, 99.0, 100.0):
        assert merged.percentile_ms(percentile) == whole.percentile_ms(percentile)
    expected = 1e3 * float(np.percentile(seconds, 50, method="inverted_cdf"))
    assert whole.percentile_ms(50) == pytest.approx(expected, rel=2e-3, abs=2e-3)


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e3))
def test_the_search_ends_near_the_rate_that_holds(limit: float, start: float) -> None:
    search, tried = Search(start, most_steps=60), []
    while (rate := search.next_rate(tried)) is not None:
        tried.append((rate, rate <= limit))
    found = knee(tried)
    assert found is not None
    assert limit / 1.06 <= found <= limit


def test_a_trace_is_read_sorted_and_what_is_no_time_is_named() -> None:
    assert parse_trace(["3", "1", "2"], "t", True).at_ms == (1.0, 2.0, 3.0)
    with pytest.raises(Misuse, match="t"):
        parse_trace(["at_ms", "x"], "t", False)


def test_the_command_measures_and_its_exit_code_says_whether_the_slo_is_kept(
    tmp_path: Path,
) -> None:
    from typer.testing import CliRunner

    from burnish.cli.app import app

    with serving(Stub(lambda _: (0.02, 200))) as stub:
        common = ["load", stub.url, "--duration", "500ms", "--rate", "20", "--quiet"]
        kept = CliRunner().invoke(app, [*common, "--slo", "p50=400ms", "--json"])
        missed = CliRunner().invoke(app, [*common, "--slo", "p50=1ms"])
        wrong = CliRunner().invoke(app, [*common, "--slo", "p77=1ms"])
    assert kept.exit_code == 0, kept.output
    assert '"slo_kept": true' in kept.output
    assert missed.exit_code == 3
    assert "NOT kept" in missed.output
    assert wrong.exit_code == 2
