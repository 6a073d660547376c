# SPDX-License-Identifier: Apache-2.0
"""Calibration reads each sample once, remembers what it saw, and takes no more memory for more."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from quantizable_models import build, context, convolutional_classifier, op, run, task, weights

from burnish.core.errors import Misuse
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.techniques.quantize import observe as module
from burnish.techniques.quantize.histogram import Histogram
from burnish.techniques.quantize.observe import Observed, observe
from burnish.techniques.quantize.ranges import METHODS, choose_range
from burnish.techniques.quantize.static import QuantizeStatic

TENSORS = ["x", "r1", "g", "y"]


def test_sees_what_the_model_computes() -> None:
    model = convolutional_classifier()
    ready = context(model, 70)  # three batches, the last smaller
    seen = observe(model, TENSORS, 0, ready, "test")
    probe = module.with_outputs(model, TENSORS)
    inputs = ready.task.calibration.inputs
    values = run(probe, inputs) | inputs
    for name in TENSORS:
        histogram = seen[name].histogram
        assert histogram.n == values[name].size
        assert histogram.low == pytest.approx(values[name].min(), rel=1e-5)
        assert histogram.high == pytest.approx(values[name].max(), rel=1e-5)
        axes = tuple(a for a in range(values[name].ndim) if a != 1)
        np.testing.assert_allclose(
            seen[name].channel_mean, values[name].mean(axis=axes, dtype=np.float64), atol=1e-5
        )


def test_takes_the_first_samples_only() -> None:
    model = convolutional_classifier()
    seen = observe(model, ["x"], 3, context(model, 40), "test")
    assert seen["x"].histogram.n == 3 * 3 * 12 * 12


def test_gathered_once_it_serves_every_method_and_rounding(tmp_path, monkeypatch) -> None:
    model = convolutional_classifier()
    ready = Context(task(model), Store(tmp_path), seed=1)
    times = []
    gather = module._gather
    monkeypatch.setattr(module, "_gather", lambda *a: times.append(1) or gather(*a))
    models = {}
    for ranges in METHODS:
        for kind in ("u8", "s8"):
            step = QuantizeStatic(ranges=ranges, activations=kind, weight_bits=8)
            models[ranges, kind] = step.apply(model, ready).model
    assert len(times) == 1
    assert len({one.digest for one in models.values()}) > 4
    fresh = QuantizeStatic(ranges="mse", weight_bits=8).apply(model, context(model)).model
    assert fresh.digest == models["mse", "u8"].digest
    times.clear()
    QuantizeStatic(samples=4).apply(model, ready)
    assert len(times) == 1


def test_other_data_is_gathered_anew(tmp_path) -> None:
    model = convolutional_classifier()
    store = Store(tmp_path)
    lows = [
        observe(model, ["x"], 0, Context(task(model, seed=seed), store), "test")["x"].histogram.low
        for seed in (0, 1)
    ]
    assert lows[0] != lows[1]


@pytest.mark.parametrize("shape", [(196, 768), (64, 112, 112), (3072, 500), (7, 100_003)])
def test_a_sample_of_the_values_reaches_every_channel(shape: tuple[int, ...]) -> None:
    every = module._every(np.broadcast_to(np.float32(0), (2, *shape)))
    size = math.prod(shape)
    assert size // every <= module._PER_SAMPLE + 1 or every == 1
    assert size // every >= module._PER_SAMPLE / 2 or size < module._PER_SAMPLE
    for axis_size in shape:
        assert math.gcd(every, axis_size) == 1


def test_a_loud_channel_counts_among_many() -> None:
    values = np.random.default_rng(0).standard_normal((2, 1024, 3072)).astype(np.float32)
    values[..., 1001] *= 30
    seen = Observed(Histogram(), np.zeros(0))
    seen.add(values)
    share = seen.histogram.counts[np.abs(seen.histogram.centres()) > 6].sum() / seen.histogram.n
    assert share == pytest.approx((np.abs(values) > 6).mean(), rel=0.3)


def test_scalars_vectors_and_nothing() -> None:
    for values in (np.float32(2.5), np.float32([1, 2]), np.zeros((0, 3), np.float32)):
        seen = Observed(Histogram(), np.zeros(0))
        seen.add(np.asarray(values))
        assert seen.histogram.n == np.size(values)


def test_a_model_that_gives_a_scalar() -> None:
    nodes = [
        op("ReduceMax", "x", "top", keepdims=0),
        op("Div", "x top", "d"),
        op("MatMul", "d w", "y"),
    ]
    model = build(nodes, ["batch", 4], "y", weights(w=(4, 2)))
    seen = observe(model, ["top", "d"], 0, context(model), "test")
    assert seen["top"].histogram.n == 1
    assert seen["d"].histogram.high == 1


def test_says_what_does_not_fit() -> None:
    model = convolutional_classifier()
    data = ArraySamples({"x": np.zeros((2, 3, 9, 9), np.float32)})
    with pytest.raises(Misuse, match="x must have shape"):
        observe(model, ["r1"], 0, Context(Task("t", data)), "test")


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_memory_is_flat(rounding: str) -> None:
    model = convolutional_classifier(16)
    step = QuantizeStatic(weight_bits=8, rounding=rounding)
    peaks = []
    data = np.random.default_rng(0).standard_normal((500, 3, 12, 12)).astype(np.float32)
    step.apply(model, context(model, x=data[:50]))
    for n in (50, 500):
        ready = context(model, x=data[:n])
        tracemalloc.start()
        step.apply(model, ready)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 500_000


def test_ranges_come_from_the_stored_histogram(tmp_path) -> None:
    model = convolutional_classifier()
    ready = Context(task(model), Store(tmp_path))
    first, second = (observe(model, TENSORS, 0, ready, "test") for _ in range(2))
    for name in TENSORS:
        for method in METHODS:
            ranges = [choose_range(one[name].histogram, method, "u8") for one in (first, second)]
            assert ranges[0] == ranges[1]
        np.testing.assert_array_equal(first[name].channel_mean, second[name].channel_mean)
