# SPDX-License-Identifier: Apache-2.0
"""Models measured as they are, alone and side by side."""

from __future__ import annotations

import digits_net
import numpy as np
import pytest
import small_models

from burnish.core.errors import Misuse, Unsupported
from burnish.core.store import Store
from burnish.core.technique import Context
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.optimizing.compare import compare, measure
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic


class Breaking(OnnxRuntime):
    """Runs the network, and breaks down over whatever was quantized."""

    def open(self, model, setting):
        session = super().open(model, setting)
        if any(node.op_type == "QuantizeLinear" for node in model.edit().graph):

            def fail(inputs):
                raise Unsupported("a bad kernel")

            session.execute = fail
        return session


@pytest.fixture(scope="module")
def int8():
    context = Context(digits_net.task())
    fused = Fuse().apply(digits_net.network(), context).model
    return QuantizeStatic(weight_bits=8).apply(fused, context).model


@pytest.mark.slow
def test_side_by_side_the_first_is_the_baseline(int8):
    net = digits_net.network()
    models = {"net": net, "again": net, "int8": int8}
    rows = compare(models, digits_net.task(), budget=2, engines=[OnnxRuntime()])
    first, again, small = rows
    assert [one.name for one in rows] == ["net", "again", "int8"]
    assert "speedup" not in first.measured
    assert first.measured["drop"].value == 0
    # One model under two names is measured once, and equals itself.
    assert again.measured["latency"] == first.measured["latency"]
    assert again.measured["agreement"].value == 100
    ratio = small.measured["speedup"]
    medians = first.detail["round_medians_ms"], small.detail["round_medians_ms"]
    assert len(medians[0]) == len(medians[1]) == ratio.n
    pairs = np.array(medians[0]) / np.array(medians[1])
    assert pairs.min() <= ratio.value <= pairs.max()
    assert small.measured["size"].value < 0.5 * first.measured["size"].value
    assert small.measured["agreement"].n == 400


def test_models_with_other_inputs_cannot_be_compared():
    models = {"one": small_models.convolutional(), "two": small_models.two_inputs()}
    with pytest.raises(Misuse, match="two takes"):
        compare(models, budget=1)
    with pytest.raises(Misuse, match="nothing to measure"):
        compare({}, budget=1)


@pytest.mark.slow
def test_what_a_varying_size_is_called_does_not_matter():
    rows = compare(
        {"n": digits_net.network("n"), "batch": digits_net.network()},
        budget=0.5,
        engines=[OnnxRuntime()],
    )
    assert [one.name for one in rows] == ["n", "batch"]


def test_a_model_that_breaks_down_is_said_and_not_left_out(int8):
    with pytest.raises(Unsupported, match="int8 on onnxruntime: a bad kernel"):
        compare({"net": digits_net.network(), "int8": int8}, budget=1, engines=[Breaking()])
    with pytest.raises(Unsupported, match="no engine runs odd"):
        compare({"odd": small_models.unknown_operator()}, budget=1)


def test_one_model_that_is_quantized(int8, tmp_path):
    store = Store(tmp_path)
    (one,) = measure(int8, budget=0.5, engines=[OnnxRuntime()], store=store)
    assert set(one.measured) == {"latency", "size", "load", "memory", "throughput"}
    assert one.model == int8.digest
    (same,) = measure(int8, budget=0.5, engines=[OnnxRuntime()], store=store)
    assert same == one


@pytest.mark.slow
def test_each_engine_is_measured_the_fastest_first():
    rows = measure(digits_net.network(), digits_net.task(), budget=4)
    assert len({one.engine for one in rows}) == len(rows)
    for one in rows:
        assert "metric" in one.measured
    assert abs(rows[0].measured["metric"].value - rows[-1].measured["metric"].value) < 0.5


@pytest.mark.parametrize("threads", [0, -1, 10_000])
def test_threads_that_the_machine_does_not_have(threads):
    with pytest.raises(Misuse, match=r"between 1 and this machine's \d+ cores, got"):
        measure(digits_net.network(), budget=1, engines=[OnnxRuntime()], threads=threads)


def test_threads_asked_for_are_those_of_every_row():
    found = measure(digits_net.network(), budget=1, engines=[OnnxRuntime()], threads=1)
    assert [one.setting.threads for one in found] == [1]
    assert found[0].measured["latency"].conditions["threads"] == 1
