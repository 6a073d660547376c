# SPDX-License-Identifier: Apache-2.0
"""Each importance against its formula, computed another way."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from small_models import convolutional
from training_nets import digits, task, untrained

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.canonical import infer_types
from burnish.graph.channels.groups import ChannelGroup, channel_groups
from burnish.techniques.prune.importance import importance, normalized
from burnish.techniques.quantize.observe import with_outputs


def _free(model: Model) -> tuple[ChannelGroup, ...]:
    return tuple(group for group in channel_groups(model) if group.locked is None)


def _weights(model: Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy() for name, value in model.edit().graph.initializers.items()
    }


def test_norms_are_of_all_that_goes_with_a_channel() -> None:
    model = untrained()
    w = _weights(model)
    scores = importance("l2", model, _free(model), Context(), 1)
    # conv2's channels: its rows, its normalization, and 16 columns of the classifier for each.
    rows = (w["w2"] ** 2).sum(axis=(1, 2, 3)) + w["n2.scale"] ** 2 + w["n2.bias"] ** 2
    columns = (w["w3"].reshape(10, 32, 16) ** 2).sum(axis=(0, 2))
    np.testing.assert_allclose(scores["conv2"], np.sqrt(rows + columns), rtol=1e-6)
    ones = importance("l1", model, _free(model), Context(), 1)
    first = np.abs(w["w1"]).sum(axis=(1, 2, 3)) + 1 + np.abs(w["w2"]).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(ones["conv1"], first, rtol=1e-6)


def test_a_residual_sum_couples_two_layers() -> None:
    model = convolutional()
    (group,) = _free(model)
    w = _weights(model)
    expected = (
        np.abs(w["w1"]).sum(axis=(1, 2, 3))
        + np.abs(w["w2"]).sum(axis=(1, 2, 3))
        + np.abs(w["w2"]).sum(axis=(0, 2, 3))
        + np.abs(w["w3"]).sum(axis=0)
    )
    got = importance("l1", model, [group], Context(), 1)[group.name]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_scales_of_batch_normalization() -> None:
    graph = untrained().edit()
    scale = np.linspace(-2, 2, 16).astype(np.float32)
    graph.graph.initializers["n1.scale"].const_value = ir.tensor(scale, name="n1.scale")
    scores = importance("batch_norm", Model(graph), _free(Model(graph)), Context(), 1)
    np.testing.assert_allclose(scores["conv1"], np.abs(scale), rtol=1e-6)
    assert importance("batch_norm", convolutional(), _free(convolutional()), Context(), 1) == {}


def test_activations_are_what_the_consumers_read() -> None:
    model = untrained()
    images = digits()[0][:40]
    context = Context(Task("digits", calibration=ArraySamples({"image": images})))
    scores = importance("activation", model, _free(model), context, 40)
    graph = model.edit()
    infer_types(graph, "the model")
    with OnnxRuntime().open(with_outputs(Model(graph), ["r1", "f"]), Setting()) as session:
        seen = session.run({"image": images})
    first = np.abs(seen["r1"]).mean(axis=(0, 2, 3))
    second = np.abs(seen["f"]).mean(axis=0).reshape(32, 16).mean(axis=1)
    np.testing.assert_allclose(scores["conv1"], first, rtol=1e-4)
    np.testing.assert_allclose(scores["conv2"], second, rtol=1e-4)


def test_random_is_seeded() -> None:
    model = untrained()
    groups = _free(model)
    one, again, other = (importance("random", model, groups, Context(seed=s), 1) for s in (1, 1, 2))
    assert all((one[name] == again[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


def _gated_loss(model: Model, channel: int, gate: float) -> float:
    """Returns the mean cross-entropy of a batch with the columns of one channel scaled."""
    graph = model.edit()
    value = graph.graph.initializers["w3"]
    weight = value.const_value.numpy().copy()
    weight[:, channel * 16 : (channel + 1) * 16] *= gate
    value.const_value = ir.tensor(weight, name="w3")
    images, labels = digits()
    with OnnxRuntime().open(Model(graph), Setting()) as session:
        z = session.run({"image": images[:32]})["logits"].astype(np.float64)
    logs = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1)[:, None]
    return -float(logs[np.arange(32), labels[:32]].mean())


def test_taylor_is_the_squared_slope_of_the_loss_along_a_gate() -> None:
    model = untrained()
    scores = importance("taylor", model, _free(model), Context(task()), 32)
    # Behind the classifier's columns the loss is smooth; before a Relu it has kinks.
    for channel in (0, 5, 31):
        ends = [_gated_loss(model, channel, 1 + step) for step in (-1e-2, 1e-2)]
        slope = (ends[1] - ends[0]) / 2e-2
        assert scores["conv2"][channel] == pytest.approx(slope**2, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("classes", [True, False])
def test_taylor_without_labels_finds_what_matters(classes: bool) -> None:
    """At the original itself the distance has no slope, and yet its scores rank channels."""
    model = untrained()
    known = task(labels=False)
    images = digits()[0][:256]
    data = ArraySamples({"image": images})
    plain = Task("t", training=data, loss=known.loss if classes else None)
    scores = importance("taylor", model, _free(model), Context(plain, original=model), 256)["conv1"]
    assert (scores > 0).all()

    def change(channel: int) -> float:
        graph = model.edit()
        value = graph.graph.initializers["w2"]
        weight = value.const_value.numpy().copy()
        weight[:, channel] = 0
        value.const_value = ir.tensor(weight, name="w2")
        with OnnxRuntime().open(Model(graph), Setting()) as session:
            got = session.run({"image": images})["logits"].astype(np.float64)
        if not classes:
            return float(((got - expected) ** 2).mean())
        p, q = _softmax(expected), _softmax(got)
        return float((p * np.log(p / q)).sum(axis=1).mean())

    with OnnxRuntime().open(model, Setting()) as session:
        expected = session.run({"image": images})["logits"].astype(np.float64)
    changes = [change(channel) for channel in range(16)]
    pairs = list(itertools.combinations(range(16), 2))
    agree = np.mean([(scores[a] > scores[b]) == (changes[a] > changes[b]) for a, b in pairs])
    assert agree > 0.75


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_normalization_makes_groups_alike() -> None:
    raw = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([10.0, 30.0]), "zero": np.zeros(2)}
    assert normalized(raw, "none")["b"].tolist() == [10.0, 30.0]
    for how, measure in (("mean", np.mean), ("max", np.max), ("sum", np.sum)):
        got = normalized(raw, how)  # type: ignore[arg-type]
        assert measure(got["a"]) == pytest.approx(1)
        assert measure(got["b"]) == pytest.approx(1)
        assert got["zero"].tolist() == [0.0, 0.0]
    with pytest.raises(Misuse, match="median"):
        normalized(raw, "median")  # type: ignore[arg-type]
