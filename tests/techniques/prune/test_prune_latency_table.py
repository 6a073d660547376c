# SPDX-License-Identifier: Apache-2.0
"""The table of latencies: its arithmetic, and that the store spares measuring it again."""

from __future__ import annotations

import pytest
from training_nets import task, untrained

from burnish.core.model import Model
from burnish.core.store import Store
from burnish.core.technique import Context
from burnish.graph.channels.groups import channel_groups
from burnish.techniques.prune import latency_budget, latency_table
from burnish.techniques.prune.allocate import Choice
from burnish.techniques.prune.latency_table import (
    Bench,
    LatencyTable,
    Served,
    measured_table,
    monotone,
)

TABLE = LatencyTable(10.0, {"a": ((8, 2.0), (16, 1.0), (32, 0.0)), "b": ((8, 1.0), (16, 0.0))})


def test_between_measured_widths_it_is_linear() -> None:
    assert TABLE.saved_ms("a", 24) == pytest.approx(0.5)
    assert TABLE.saved_ms("a", 4) == pytest.approx(2.0)  # no more than was measured
    assert TABLE.predicted_ms({"a": 16, "b": 8, "unknown": 4}) == pytest.approx(8.0)


def test_a_measurement_of_the_whole_scales_it() -> None:
    widths = {"a": 8, "b": 8}
    assert TABLE.predicted_ms(widths) == pytest.approx(7.0)
    scaled = TABLE.rescaled(widths, measured_ratio=0.85)
    assert scaled.predicted_ms(widths) == pytest.approx(8.5)
    assert scaled.saved_ms("a", 16) == pytest.approx(0.5)
    assert TABLE.rescaled(widths, measured_ratio=1.2).scale == 0.25
    assert TABLE.rescaled({}, measured_ratio=0.5) == TABLE


def test_noise_is_made_monotone() -> None:
    assert monotone([(8, -1.0), (16, 0.5), (24, 0.2), (32, 0.0)]) == (
        (8, 0.5),
        (16, 0.5),
        (24, 0.2),
        (32, 0.0),
    )


def test_the_quantized_network_is_cut_itself() -> None:
    model, context = untrained(), Context(task())
    served = Served(model, context)
    cut = served.at({"conv1": 8, "conv2": 16})
    sizes = {group.name: group.size for group in channel_groups(cut)}
    assert (sizes["conv1"], sizes["conv2"]) == (8, 16)
    assert any(node.op_type == "QuantizeLinear" for node in cut.edit().graph)
    assert served.at({}).signature == model.signature


def test_the_store_keeps_the_table(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks, measured in two heats."""
    monkeypatch.setattr(latency_table, "_MOST_AT_ONCE", 2)
    context = Context(task(), store=Store(tmp_path))
    model = untrained()
    served = Served(model, context)
    bench = Bench("onnxruntime", threads=1, seconds=0.5)
    widths = {"conv1": (8, 16), "conv2": (8, 16, 24, 32)}
    first = measured_table(served, model, widths, bench, context)
    assert first.base_ms > 0
    assert [width for width, _ in first.points["conv2"]] == [8, 16, 32]
    assert first.points["conv1"][-1] == (16, 0)
    assert measured_table(served, model, widths, bench, context) == first  # to the last bit


class _Pretended(Served):
    """Networks whose latency is a formula, so that the search can be judged exactly."""

    def __init__(self, model: Model, context: Context) -> None:
        pass


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("how", ["knapsack", "greedy", "uniform"])
def test_the_search_reaches_the_target_though_savings_do_not_add_up(
    how: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table's sum is off by `factor`; widths are fine enough to come near."""
    widths = tuple(range(1, 65))
    choices = [
        Choice(name, widths, tuple(weight * (64 - w) ** 2 / 64 for w in widths))
        for name, weight in (("a", 1.0), ("b", 2.0), ("c", 4.0))
    ]
    table = LatencyTable(10.0, {one.name: ((1, 2.5), (64, 0.0)) for one in choices})

    def ratio(served, model, chosen, bench, context) -> float:
        return 1 - factor * (10.0 - table.predicted_ms(chosen)) / 10.0

    monkeypatch.setattr(latency_budget, "Served", _Pretended)
    monkeypatch.setattr(latency_budget, "measured_table", lambda *_: table)
    monkeypatch.setattr(latency_budget, "_measured_ratio", ratio)
    bench = Bench("onnxruntime", 1, 1.0)
    chosen, (words,), notes = latency_budget.within_latency(
        how, untrained(), choices, 0.65, bench, Context()
    )
    reached = ratio(None, None, chosen, None, None)
    # One step of all three groups together is worth 0.02.
    assert reached == pytest.approx(0.65, abs=0.021 if how == "uniform" else 0.011)
    assert reached <= 0.66
    assert notes == ()
    assert "0.65 wanted" in words
    if factor < 1:
        _, _, (note,) = latency_budget.within_latency(
            how, untrained(), choices, 0.3, bench, Context()
        )
        assert "not reached: 0.55" in note.reason  # all that the narrowest widths give
