# SPDX-License-Identifier: Apache-2.0
"""The loop does what a loop written by hand does, and goes on exactly where it was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from training_nets import digits, net

from burnish.core.errors import Misuse
from burnish.core.technique import Context
from burnish.data.losses import loss
from burnish.data.metrics import metric
from burnish.data.samples import ArraySamples
from burnish.techniques.train.feed import Feed
from burnish.techniques.train.history import History
from burnish.techniques.train.loop import fit
from burnish.techniques.train.schedule import factor
from burnish.techniques.train.task_losses import task_objective
from burnish.techniques.train.training import Training
from burnish.techniques.train.weights import Average, is_vector, optimizer_of

CROSS_ENTROPY = task_objective(loss("cross_entropy"))


class Linear(nn.Module):
    """A linear model without dropout or statistics, to compare steps by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(10, 64)), nn.Parameter(torch.zeros(10))

    def forward(self, inputs, keep=()):
        return {"logits": inputs["image"].flatten(1) @ self.weight.T + self.bias}


def _samples(n: int = 320) -> ArraySamples:
    images, classes = digits()
    return ArraySamples({"image": images[:n]}, classes[:n])


def _train(module: nn.Module, training: Training, **options) -> History:
    context = options.pop("context", Context(seed=5))
    samples = options.pop("samples", _samples())
    objective = options.pop("objective", CROSS_ENTROPY)
    return fit(module, samples, objective, training, context, **options)


def _state(module: nn.Module) -> dict[str, bytes]:
    return {name: one.numpy().tobytes() for name, one in module.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_takes_the_steps_of_a_loop_written_by_hand(optimizer: str) -> None:
    training = Training(
        epochs=3,
        batch_size=32,
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.05,
        weight_decay=0.1,
        clip_norm=0.5,
        schedule="cosine",
        warmup_ratio=0.2,
    )
    ours = Linear()
    history = _train(ours, training)
    hand = Linear()
    groups = [
        {"params": [hand.weight], "weight_decay": 0.1},
        {"params": [hand.bias], "weight_decay": 0.0},
    ]
    made = (
        torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
        if optimizer == "sgd"
        else torch.optim.AdamW(groups, lr=1.0)
    )
    feed, step = Feed(_samples(), training, 5), 0
    for epoch in range(3):
        for batch in feed.epoch(epoch):
            for group in made.param_groups:
                group["lr"] = 0.05 * factor("cosine", step, 30, 0.2)
            made.zero_grad()
            outputs = hand({"image": torch.from_numpy(batch.inputs["image"])})
            functional.cross_entropy(outputs["logits"], torch.from_numpy(batch.labels)).backward()
            nn.utils.clip_grad_norm_(hand.parameters(), 0.5)
            made.step()
            step += 1
    assert history.steps == step == 30
    torch.testing.assert_close(ours.weight, hand.weight)
    torch.testing.assert_close(ours.bias, hand.bias)


def test_it_learns_and_says_so() -> None:
    module = net()
    history = _train(
        module, Training(epochs=8, batch_size=32, learning_rate=1e-2), samples=_samples(1200)
    )
    images, classes = digits()
    with torch.no_grad():
        got = module({"image": torch.from_numpy(images[1200:])})["logits"].argmax(1).numpy()
    assert (got == classes[1200:]).mean() > 0.9
    assert history.loss_after < 0.2 < 2 < history.loss_before
    assert list(history.losses) == sorted(history.losses, reverse=True) or history.losses[-1] < 0.2
    assert not module.training
    assert "8 epochs of 1200 samples, 296 steps of 32" in history.words()[0]
    assert history.feed_ratio < 0.5


ALL = Training(
    epochs=3,
    batch_size=32,
    learning_rate=5e-3,
    mixup=0.2,
    augment=("flip", "crop"),
    crop_padding=1,
    ema_decay=0.9,
    hold_out_ratio=0.1,
    label_smoothing=0.05,
)


class _Stop(Exception):
    pass


@pytest.mark.parametrize("training", [ALL, Training(epochs=3, batch_size=32, optimizer="sgd")])
@pytest.mark.parametrize(
    "at", [pytest.param(one, marks=pytest.mark.slow) for one in (1, 9, 20)] + [4, 13]
)
def test_a_run_that_was_interrupted_ends_in_the_same_bits(training, at: int, tmp_path) -> None:
    options = {"evaluate": metric("top1"), "checkpoint": tmp_path / "run.pt", "checkpoint_s": 0}
    whole = net()
    undisturbed = _train(whole, training, evaluate=metric("top1"))
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise _Stop

    with pytest.raises(_Stop):
        _train(net(), training, after_step=stop, **options)
    if at == 1:  # before the first checkpoint
        assert not (tmp_path / "run.pt").exists()
    torch.manual_seed(999)  # what the program drew in between does not matter
    resumed = net()
    history = _train(resumed, training, **options)
    assert _state(resumed) == _state(whole)
    assert history == undisturbed


def test_a_finished_run_is_not_run_again(tmp_path) -> None:
    training = Training(epochs=2, batch_size=32)
    options = {"checkpoint": tmp_path / "run.pt", "checkpoint_s": 0}
    first, second = net(), net()
    history = _train(first, training, **options)
    steps = []
    assert _train(second, training, after_step=lambda: steps.append(1), **options) == history
    assert not steps
    assert _state(first) == _state(second)


def test_the_checkpoint_of_another_run_is_refused(tmp_path) -> None:
    options = {"checkpoint": tmp_path / "run.pt", "checkpoint_s": 0}
    _train(net(), Training(epochs=1, batch_size=32), **options)
    for changed in ({"context": Context(seed=6)}, {"samples": _samples(319)}):
        with pytest.raises(Misuse, match="another training run"):
            _train(net(), Training(epochs=1, batch_size=32), **options, **changed)
    with pytest.raises(Misuse, match="another training run"):
        _train(net(1), Training(epochs=1, batch_size=32), **options)
    (tmp_path / "run.pt").write_bytes((tmp_path / "run.pt").read_bytes()[:-100])
    with pytest.raises(Misuse, match="damaged"):
        _train(net(), Training(epochs=1, batch_size=32), **options)


def test_a_checkpoint_holds_nothing_that_runs(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return exec, ("raise SystemExit",)

    torch.save({"format": 1, "mark": "", "state": Evil()}, tmp_path / "run.pt")
    with pytest.raises(Misuse, match="damaged"):
        _train(net(), Training(epochs=1), checkpoint=tmp_path / "run.pt")


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, again, other = net(), net(), net()
    training = Training(epochs=1, batch_size=32)
    _train(first, training)
    torch.manual_seed(12345)
    _train(again, training)
    _train(other, training, context=Context(seed=6))
    assert _state(first) == _state(again) != _state(other)


def test_the_programs_own_randomness_and_threads_are_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    _train(net(), Training(epochs=1, batch_size=64))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_zeros_are_held_exactly_and_biases_are_free() -> None:
    module = net()
    with torch.no_grad():
        module.conv2.weight[::2] = 0
        module.head.bias[:] = 0
    training = Training(epochs=1, batch_size=32, hold_zeros=True, ema_decay=0.5)
    history = _train(module, training)
    assert history.n_held_zeros == 8 * 8 * 9
    assert (module.conv2.weight[::2] == 0).all()
    assert (module.conv2.weight[1::2] != 0).all()
    assert (module.head.bias != 0).all()
    assert "576 weights held at zero" in history.words()


def test_held_zeros_train_as_the_network_without_them_would() -> None:
    """Pixels whose weights are held at zero are as good as absent, clipping included."""

    class Small(nn.Module):
        def __init__(self, pixels: slice) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10, 64)[:, pixels] * 0.01)
            self.pixels = pixels

        def forward(self, inputs, keep=()):
            return {"logits": inputs["image"].flatten(1)[:, self.pixels] @ self.weight.T}

    masked, small = Small(slice(0, 64)), Small(slice(0, 32))
    with torch.no_grad():
        masked.weight[:, 32:] = 0
    training = Training(epochs=2, batch_size=32, clip_norm=0.1, hold_zeros=True)
    _train(masked, training)
    _train(small, training)
    torch.testing.assert_close(masked.weight[:, :32], small.weight)
    assert (masked.weight[:, 32:] == 0).all()


def test_the_average_is_that_of_the_formula() -> None:
    module = Linear()
    average, expected = Average(module, 0.9), np.zeros((10, 64))
    for step in range(1, 40):
        with torch.no_grad():
            module.weight.copy_(torch.full((10, 64), float(step)))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    np.testing.assert_allclose(average.tensors["weight"].numpy(), expected, rtol=1e-5)


def test_weight_decay_spares_biases_norms_and_scales() -> None:
    vectors = [(), (8,), (1, 8, 1, 1), (8, 1, 1)]
    weights = [(8, 4), (8, 1, 3, 3), (1, 8), (8, 4, 1, 1)]
    assert all(is_vector(torch.zeros(shape)) for shape in vectors)
    assert not any(is_vector(torch.zeros(shape)) for shape in weights)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in vectors + weights]
    heavy, light = optimizer_of(parameters, Training(weight_decay=0.3)).param_groups
    assert (heavy["weight_decay"], light["weight_decay"]) == (0.3, 0.0)
    assert [len(heavy["params"]), len(light["params"])] == [4, 4]


def test_a_loss_that_is_no_number_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(Misuse, match=r"lower learning_rate \(1e\+30\), or set clip_norm"):
        _train(
            Linear(),
            Training(epochs=3, optimizer="sgd", learning_rate=1e30, clip_norm=0),
            objective=lambda outputs, inputs, labels: (
                (outputs["logits"] ** 4).mean() + CROSS_ENTROPY(outputs, inputs, labels)
            ),
        )


def test_training_ends_when_the_held_out_samples_say_so_and_the_best_weights_stay() -> None:
    training = Training(
        epochs=60, batch_size=32, learning_rate=0.1, hold_out_ratio=0.2, patience=2, clip_norm=0
    )
    module = net()
    history = _train(module, training, evaluate=metric("top1"))
    assert len(history.losses) < 60
    assert history.stopped == "no better held-out top1 for 2 epochs"
    assert history.best_epoch == len(history.scores) - 2
    assert history.scores[history.best_epoch - 1] == max(history.scores)
    feed = Feed(_samples(), training, 5)
    right, n = 0, 0
    with torch.no_grad():
        for batch in feed.probe(32):
            logits = module({"image": torch.from_numpy(batch.inputs["image"])})["logits"]
            right += int((logits.argmax(1).numpy() == batch.labels).sum())
            n += len(batch)
    assert 100 * right / n == pytest.approx(max(history.scores))


def test_training_ends_once_the_metric_is_reached() -> None:
    training = Training(
        epochs=60, batch_size=32, learning_rate=1e-2, hold_out_ratio=0.2, stop_at=60.0
    )
    history = _train(net(), training, evaluate=metric("top1"))
    assert history.scores[-1] >= 60
    assert all(score < 60 for score in history.scores[:-1])
    assert "reached 60" in history.stopped


def test_held_out_samples_are_part_of_the_training_data() -> None:
    history = _train(net(), Training(epochs=1, hold_out_ratio=0.25), samples=_samples(400))
    assert (history.n, history.n_probe, history.held_out) == (300, 100, True)


def test_progress_says_loss_metric_and_time_left() -> None:
    said: list[tuple[str, int, int]] = []
    context = Context(seed=5, progress=lambda *one: said.append(one))
    _train(
        net(),
        Training(epochs=4, batch_size=32, hold_out_ratio=0.2),
        context=context,
        evaluate=metric("top1"),
        after_step=lambda: time.sleep(0.03),
    )
    last = said[-1]
    assert last[0].startswith("epoch ")
    assert "loss " in last[0]
    assert last[0].endswith(" s left")
    assert len(last[0]) <= 48  # what the bar has room for
    assert 0 < last[1] <= last[2] == 32


def test_ctrl_c_ends_it_and_the_next_run_goes_on(tmp_path) -> None:
    options = {"checkpoint": tmp_path / "run.pt", "checkpoint_s": 0}
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(net(), ALL, after_step=interrupt, **options)
    steps: list[int] = []
    history = _train(net(), ALL, after_step=lambda: steps.append(1), **options)
    assert len(steps) == history.steps - 6


def test_what_ends_the_work_from_its_report_loses_no_step(tmp_path) -> None:
    """So a command's Ctrl-C and an exhausted budget arrive."""
    options = {"checkpoint": tmp_path / "run.pt", "checkpoint_s": 1e9}
    done = 0

    def report(work: str, at: int, total: int) -> None:
        nonlocal done
        if work.startswith("epoch") and at > 3 and at % 9:
            done = at
            raise _Stop

    slow = {"after_step": lambda: time.sleep(0.03)}
    with pytest.raises(_Stop):
        _train(net(), ALL, context=Context(seed=5, progress=report), **options, **slow)
    steps: list[int] = []
    history = _train(net(), ALL, after_step=lambda: steps.append(1), **options)
    assert len(steps) == history.steps - done


def test_an_objective_may_learn_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs, inputs, labels: Tensor) -> Tensor:
            return functional.cross_entropy(outputs["logits"] * self.scale, labels)

    objective = Scaled()
    _train(net(), Training(epochs=1, batch_size=32), objective=objective)
    assert objective.scale.item() != 1.0


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_the_teacher_is_asked_once_about_samples_that_do_not_change(mixup: float) -> None:
    asked = 0

    def teacher(inputs):
        nonlocal asked
        asked += len(inputs["image"])
        return {"sum": inputs["image"].sum(dim=(1, 2, 3))}

    def objective(outputs, inputs, labels):
        torch.testing.assert_close(inputs["teacher/sum"], inputs["image"].sum(dim=(1, 2, 3)))
        return functional.cross_entropy(outputs["logits"], labels)

    training = Training(epochs=5, batch_size=32, mixup=mixup)
    _train(net(), training, teacher=teacher, objective=objective)
    assert asked == 320 + (5 * 320 if mixup else 320)  # the probe, and then all


def test_mixup_mixes_the_losses_of_both_labels() -> None:
    seen = []

    def objective(outputs, inputs, labels):
        seen.append(labels.clone())
        return functional.cross_entropy(outputs["logits"], labels)

    _train(Linear(), Training(epochs=1, batch_size=320, mixup=1.0), objective=objective)
    own, other = seen[1:3]  # the first judged the probe
    assert sorted(own.tolist()) == sorted(other.tolist())
    assert not torch.equal(own, other)


def test_bfloat16_trains_too() -> None:
    history = _train(
        net(), Training(epochs=4, batch_size=32, learning_rate=1e-2, precision="bfloat16")
    )
    assert history.loss_after < 1.0 < history.loss_before
    assert math.isfinite(history.loss_after)
