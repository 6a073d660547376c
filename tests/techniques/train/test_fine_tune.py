# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning keeps the contract of techniques, learns real digits, and repairs damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from small_models import convolutional, make
from technique_contract import TechniqueContract
from training_nets import accuracy, damaged, digits, task, untrained

from burnish.core.errors import Misuse, Unsupported
from burnish.core.model import Model
from burnish.core.store import Store
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.losses import loss
from burnish.data.metrics import metric
from burnish.data.samples import ArraySamples
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic
from burnish.techniques.train import trained
from burnish.techniques.train.fine_tune import FineTune

GOOD = FineTune(epochs=6, batch_size=64, learning_rate=1e-2)


def _noise(shape: tuple[int, ...], n: int = 40, seed: int = 0) -> ArraySamples:
    rng = np.random.default_rng(seed)
    return ArraySamples(
        {"image": rng.normal(size=(n, *shape)).astype(np.float32)}, rng.integers(0, 10, n)
    )


class TestFineTuneContract(TechniqueContract):
    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional,)

    @pytest.fixture
    def technique(self) -> FineTune:
        return FineTune(epochs=2, batch_size=8, augment=("flip",), hold_out_ratio=0.2)

    @pytest.fixture
    def context(self) -> Context:
        return Context(Task("noise", training=_noise((3, 16, 16)), loss=loss("cross_entropy")))


@pytest.fixture(scope="module")
def good() -> Model:
    return GOOD.apply(untrained(), Context(task())).model


def test_it_learns_the_digits(good: Model) -> None:
    assert accuracy(untrained()) < 30
    assert accuracy(good) > 92


def test_it_repairs_a_damaged_model(good: Model) -> None:
    bad = damaged(good, 0.3)
    assert accuracy(bad) < accuracy(good) - 5
    outcome = replace(GOOD, epochs=4, hold_zeros=True).apply(bad, Context(task()))
    assert accuracy(outcome.model) > accuracy(good) - 2
    for name in ("w1", "w2"):
        before = bad.edit().graph.initializers[name].const_value.numpy()
        after = outcome.model.edit().graph.initializers[name].const_value.numpy()
        assert (before == 0).sum() > 0
        np.testing.assert_array_equal(after == 0, before == 0)


def test_folded_normalization_is_no_hindrance(good: Model) -> None:
    folded = Fuse().apply(damaged(good, 0.3)).model
    assert not [node for node in folded.edit().graph if node.op_type == "BatchNormalization"]
    outcome = replace(GOOD, epochs=4, learning_rate=3e-3).apply(folded, Context(task()))
    assert accuracy(outcome.model) > accuracy(good) - 3


def test_only_the_floats_of_a_quantized_graph_are_trained(good: Model) -> None:
    int8 = Fuse().apply(good).model
    int8 = QuantizeStatic(activations="u8", weight_bits=8).apply(int8, Context(task())).model
    outcome = replace(GOOD, epochs=1, learning_rate=1e-4).apply(int8, Context(task()))
    assert "stored as integers" in outcome.skipped[0].reason
    before, after = int8.edit().graph.initializers, outcome.model.edit().graph.initializers
    changed = {
        name
        for name in before
        if before[name].const_value.tobytes() != after[name].const_value.tobytes()
    }
    assert all(before[name].dtype == ir.DataType.FLOAT for name in changed)
    assert accuracy(outcome.model) > accuracy(good) - 2


def test_a_model_without_weights_is_left_and_that_is_said() -> None:
    nodes = [helper.make_node("Flatten", ["image"], ["logits"], "flatten")]
    model = make(
        nodes,
        [("image", TensorProto.FLOAT, ["batch", 1, 2, 5])],
        [("logits", TensorProto.FLOAT, ["batch", 10])],
    )
    context = Context(Task("t", training=_noise((1, 2, 5)), loss=loss("cross_entropy")))
    outcome = FineTune().apply(model, context)
    assert outcome.model.digest == model.digest
    assert "no float weights" in outcome.skipped[0].reason


def test_a_fixed_batch_is_taken_as_it_is() -> None:
    outcome = FineTune(epochs=2, batch_size=64, hold_out_ratio=0.1).apply(
        untrained(batch=50), Context(task())
    )
    assert any("batches of 50 only" in one.reason for one in outcome.skipped)
    assert "steps of 50" in outcome.applied[1]
    assert "on 100 held-out samples" in outcome.applied[1]
    few = replace(task(), training=ArraySamples({"image": digits()[0][:49]}, digits()[1][:49]))
    with pytest.raises(Misuse, match=r"49 training samples .* batches of 50"):
        FineTune().apply(untrained(batch=50), Context(few))


def test_equal_constants_go_their_own_ways() -> None:
    """A bias of zeros and running means of zeros are one tensor in some exported graphs."""
    graph = untrained().edit()
    zero = graph.graph.initializers["n1.mean"]
    for node in graph.graph:
        if node.name == "n1":
            node.replace_input_with(2, zero)
    shared = Model(graph)
    outcome = FineTune(epochs=1, batch_size=64).apply(shared, Context(task()))
    (norm,) = [node for node in outcome.model.edit().graph if node.name == "n1"]
    bias, mean = norm.inputs[2].const_value.numpy(), norm.inputs[3].const_value.numpy()
    assert np.abs(bias - mean).max() > 1e-3


def test_probabilities_are_read_as_such(good: Model) -> None:
    graph = good.edit()
    (head,) = [node for node in graph.graph if node.name == "head"]
    logits = head.outputs[0]
    logits.name = "scores"
    soft = ir.Node("", "Softmax", [logits], name="soft")
    soft.outputs[0].name, soft.outputs[0].type = "logits", ir.TensorType(ir.DataType.FLOAT)
    soft.outputs[0].shape = logits.shape
    graph.graph.append(soft)
    graph.graph.outputs[0] = soft.outputs[0]
    by_softmax = replace(GOOD, epochs=1).apply(Model(graph), Context(task()))
    by_logits = replace(GOOD, epochs=1).apply(good, Context(task()))
    assert by_softmax.applied == by_logits.applied


def test_half_precision_is_refused() -> None:
    model = make(
        [helper.make_node("Gemm", ["x", "w"], ["logits"], "head")],
        [("x", TensorProto.FLOAT16, ["batch", 4])],
        [("logits", TensorProto.FLOAT16, ["batch", 10])],
        {"w": np.ones((4, 10), np.float16)},
    )
    samples = ArraySamples({"x": np.ones((9, 4), np.float16)}, np.zeros(9, np.int64))
    with pytest.raises(Unsupported, match="half precision"):
        FineTune().apply(model, Context(Task("t", training=samples, loss=loss("cross_entropy"))))


def test_it_needs_labels_and_a_loss() -> None:
    with pytest.raises(Misuse, match="distill needs none"):
        FineTune().apply(untrained(), Context(task(labels=False)))
    with pytest.raises(Misuse, match="no training data"):
        FineTune().apply(untrained(), Context(task(training=False)))
    with pytest.raises(Misuse, match="add loss ="):
        FineTune().apply(untrained(), Context(replace(task(), loss=None, metric=metric("auc"))))


def test_a_finished_step_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    technique = FineTune(epochs=1, batch_size=64)
    first = technique.apply(untrained(), Context(task(), store))
    plain = technique.apply(untrained(), Context(task()))
    monkeypatch.setattr(trained, "_train", None)  # not called again
    again = technique.apply(untrained(), Context(task(), store))
    assert again.model.to_bytes() == first.model.to_bytes() == plain.model.to_bytes()
    assert (again.applied, again.skipped) == (plain.applied, plain.skipped)
    assert not list((tmp_path / "training").glob("*"))
    with pytest.raises(TypeError):  # another seed is another step
        technique.apply(untrained(), Context(task(), store, seed=1))


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from training_nets import task, untrained
from burnish.core.store import Store
from burnish.core.technique import Context
from burnish.techniques.train import trained
from burnish.techniques.train.fine_tune import FineTune
trained.CHECKPOINT_S = 0
context = Context(task(), Store(Path(sys.argv[1])))
FineTune(epochs=60, batch_size=64, ema_decay=0.99).apply(untrained(), context)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, which nothing can catch; the same bits as a run that nobody disturbed."""
    folder = Path(__file__).parents[2] / "contracts"
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(path=[str(folder)]))
    store = tmp_path / "store"
    started = subprocess.Popen([sys.executable, script, store])
    deadline = time.monotonic() + 120
    while not list(store.glob("training/*/checkpoint.pt")):
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not list(store.glob("trained/*/model.onnx"))
    technique = FineTune(epochs=60, batch_size=64, ema_decay=0.99)
    said: list[tuple[str, int]] = []
    context = Context(
        task(), Store(store), progress=lambda work, done, total: said.append((work, done))
    )
    resumed = technique.apply(untrained(), context)
    steps = [done for work, done in said if work.startswith("epoch")]
    assert steps == sorted(steps)
    assert steps[0] > 20  # where the killed run was, and not the beginning
    undisturbed = technique.apply(untrained(), Context(task()))
    assert resumed.model.to_bytes() == undisturbed.model.to_bytes()


def test_images_of_a_task_file_are_decoded_and_trained_on(tmp_path: Path) -> None:
    images, classes = digits()
    pixels = (images[:600, 0, :, :, None] * 255).astype(np.uint8)
    np.savez(tmp_path / "train.npz", image=pixels, digit=classes[:600])
    (tmp_path / "task.toml").write_text(
        'metric = "top1"\n'
        '[preprocess]\ninput = "image"\nkind = "image"\nchannels = "gray"\nscale = "1/255"\n'
        '[training]\nsource = "npz"\npath = "train.npz"\ninputs = "image"\nlabels = "digit"\n'
    )
    from_file = replace(GOOD, epochs=2).apply(
        untrained(), Context(Task.load(tmp_path / "task.toml"))
    )
    inputs = {"image": (pixels.astype(np.float32) * np.float32(1 / 255)).transpose(0, 3, 1, 2)}
    in_memory = Task("t", training=ArraySamples(inputs, classes[:600]), metric=metric("top1"))
    from_arrays = replace(GOOD, epochs=2).apply(untrained(), Context(in_memory))
    assert from_file.applied == from_arrays.applied
    assert accuracy(from_file.model) > accuracy(untrained()) + 30


@pytest.mark.gpu
def test_it_trains_on_a_gpu_and_gives_the_same_kind_of_model() -> None:
    outcome = replace(GOOD, device="cuda").apply(untrained(), Context(task()))
    assert outcome.skipped == ()
    assert accuracy(outcome.model) > 92
