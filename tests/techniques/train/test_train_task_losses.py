# SPDX-License-Identifier: Apache-2.0
"""Each loss that trains is the formula in `data.losses`, with gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.core.task import Task
from burnish.data.losses import FORMULAS, FunctionLoss, loss
from burnish.data.metrics import metric
from burnish.data.task_file import load_task
from burnish.techniques.train.task_losses import cross_entropy, loss_key, loss_of, task_objective


def _case(name: str, seed: int, n: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (n, 4, positions) if positions else (n, 4)
    logits = rng.normal(0, 3, shape).astype(np.float32)
    if name == "cross_entropy":
        return logits, rng.integers(0, 4, (n, positions) if positions else n)
    if name == "binary_cross_entropy":
        return logits, rng.random(shape)
    return logits, rng.normal(0, 3, shape)


@given(
    st.sampled_from(sorted(FORMULAS)), st.integers(0, 2**32), st.integers(1, 9), st.integers(0, 3)
)
def test_a_loss_by_name_equals_the_numpy_formula(
    name: str, seed: int, n: int, positions: int
) -> None:
    logits, labels = _case(name, seed, n, positions)
    given_loss = loss(name)
    output = torch.from_numpy(logits).requires_grad_()
    got = task_objective(given_loss)({"y": output}, {}, torch.from_numpy(labels))
    assert got.item() == pytest.approx(given_loss({"y": logits}, labels).mean(), rel=1e-4)
    got.backward()
    assert torch.isfinite(output.grad).all()


@given(st.integers(0, 2**32), st.floats(0, 0.9))
def test_label_smoothing_spreads_the_label(seed: int, smoothing: float) -> None:
    logits, labels = _case("cross_entropy", seed, 5, 0)
    wanted = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    logs = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    expected = -(wanted * logs).sum(axis=1).mean()
    got = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), smoothing)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_the_named_output_is_taken() -> None:
    outputs = {"a": torch.zeros(2, 3), "b": torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])}
    objective = task_objective(loss("cross_entropy", "b"))
    assert objective(outputs, {}, torch.tensor([0, 1])).item() < 0.01
    with pytest.raises(Misuse, match="unknown output 'c'"):
        task_objective(loss("cross_entropy", "c"))(outputs, {}, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("name", "output", "labels", "words"),
    [
        ("cross_entropy", torch.zeros(2, 3), torch.tensor([0, 3]), "class from 0 to 2"),
        ("cross_entropy", torch.zeros(2, 1), torch.tensor([0, 0]), r"\(batch, classes"),
        ("cross_entropy", torch.zeros(2, 3), torch.zeros(2, 2), "needs labels"),
        ("binary_cross_entropy", torch.zeros(2, 1), torch.tensor([0, 2]), "from 0 to 1"),
        ("mse", torch.zeros(2, 3), torch.zeros(3, 2), "alike"),
        ("mae", torch.zeros(2, 3), None, "has none"),
    ],
)
def test_what_does_not_fit_is_refused(name, output, labels, words) -> None:
    with pytest.raises(Misuse, match=words):
        task_objective(loss(name))({"y": output}, {}, labels)


def test_a_function_is_given_tensors(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def huber(outputs, labels):\n"
        "    off = (outputs['y'] - labels).abs()\n"
        "    return off.clamp(max=1.0).mean(dim=1)\n"
    )
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2), np.float32), y=np.zeros((4, 2)))
    (tmp_path / "task.toml").write_text(
        'loss = "mine:huber"\n[training]\nsource = "npz"\npath = "d.npz"\n'
        'inputs = { x = "x" }\nlabels = "y"\n'
    )
    given_loss = loss_of(load_task(tmp_path / "task.toml"))
    output = torch.tensor([[0.5, 3.0]], requires_grad=True)
    got = task_objective(given_loss)({"y": output}, {}, torch.zeros(1, 2))
    assert got.item() == pytest.approx(0.75)
    got.backward()
    assert output.grad.tolist() == [[0.5, 0.0]]


def test_a_function_without_gradients_is_refused() -> None:
    given_loss = FunctionLoss("mine", lambda outputs, labels: outputs["y"].detach().mean(dim=1))
    output = torch.zeros(1, 2, requires_grad=True)
    with pytest.raises(Misuse, match="torch tensors"):
        task_objective(given_loss)({"y": output}, {}, torch.zeros(1, 2))


def test_a_changed_function_has_another_key() -> None:
    keys = {
        loss_key(FunctionLoss("mine", lambda outputs, labels: outputs["y"])),
        loss_key(FunctionLoss("mine", lambda outputs, labels: -outputs["y"])),
        loss_key(loss("mse")),
        loss_key(loss("mse", "y")),
    }
    assert len(keys) == 4


def test_a_metric_stands_for_its_loss() -> None:
    assert loss_of(Task("t", metric=metric("top5"))).name == "cross_entropy"
    assert loss_of(Task("t", metric=metric("mae"))).name == "mae"
    assert loss_of(Task("t", metric=metric("top1"), loss=loss("mse"))).name == "mse"
    with pytest.raises(Misuse, match="add loss ="):
        loss_of(Task("t", metric=metric("auc")))
