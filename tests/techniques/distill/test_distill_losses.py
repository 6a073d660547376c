# SPDX-License-Identifier: Apache-2.0
"""Each loss equals its paper's formula, written again in NumPy, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy, pearsonr

from burnish.techniques.distill import losses

CASES = st.tuples(
    st.integers(0, 2**32),
    st.integers(2, 7),
    st.integers(3, 8),
    st.floats(0.5, 8),
    st.floats(0.3, 4),
)


def _logits(seed: int, n: int, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (n, classes)), rng.normal(0, spread, (n, classes))


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array).requires_grad_() for array in arrays]


def _kl_each(z: np.ndarray, t: np.ndarray, temperature: float) -> float:
    pairs = zip(z, t, strict=True)
    each = [entropy(softmax(b / temperature), softmax(a / temperature)) for a, b in pairs]
    return temperature**2 * float(np.mean(each))


@given(CASES)
def test_hinton(case) -> None:
    seed, n, classes, temperature, spread = case
    z, t = _logits(seed, n, classes, spread)
    got = losses.soft_cross_entropy(*_tensors(z, t), temperature)
    assert got.item() == pytest.approx(_kl_each(z, t, temperature), rel=1e-6, abs=1e-12)


@given(CASES)
def test_hintons_gradient_does_not_shrink_with_the_temperature(case) -> None:
    """At high T the gradient is (z − t) / N of centred logits (Hinton et al., equation 4)."""
    seed, n, classes, _, _ = case
    z, t = _logits(seed, n, classes, 0.1)
    student, teacher = _tensors(z, t)
    losses.soft_cross_entropy(student, teacher, 200.0).backward()
    centred = (z - z.mean(axis=1, keepdims=True)) - (t - t.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(student.grad.numpy(), centred / classes / n, atol=2e-4)


@given(CASES)
def test_standardized(case) -> None:
    seed, n, classes, temperature, spread = case
    z, t = _logits(seed, n, classes, spread)
    scores = [(x - x.mean(axis=1)[:, None]) / x.std(axis=1)[:, None] for x in (z, t)]
    got = losses.standardized(*_tensors(z, t), temperature)
    assert got.item() == pytest.approx(_kl_each(*scores, temperature), rel=1e-5, abs=1e-9)


@given(CASES, st.floats(0.5, 9), st.floats(-5, 5))
def test_standardized_ignores_scale_and_shift(case, scale: float, shift: float) -> None:
    seed, n, classes, temperature, spread = case
    _, t = _logits(seed, n, classes, spread)
    got = losses.standardized(*_tensors(t * scale + shift, t), temperature)
    assert got.item() == pytest.approx(0, abs=1e-6)


@given(CASES, st.floats(0, 3), st.floats(0, 9))
def test_decoupled(case, target_weight: float, others_weight: float) -> None:
    seed, n, classes, temperature, spread = case
    z, t = _logits(seed, n, classes, spread)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    target = others = 0.0
    for a, b, label in zip(z, t, labels, strict=True):
        p, q = softmax(b / temperature), softmax(a / temperature)
        target += entropy([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = np.arange(classes) != label
        others += entropy(p[rest] / p[rest].sum(), q[rest] / q[rest].sum())
    expected = temperature**2 * (target_weight * target + others_weight * others) / n
    got = losses.decoupled(
        *_tensors(z, t), torch.from_numpy(labels), temperature, target_weight, others_weight
    )
    assert got.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(CASES)
def test_decoupled_put_together_again_is_hintons(case) -> None:
    """KL = TCKD + (1 − p_target of the teacher) NCKD, sample by sample (equation 6)."""
    seed, _, classes, temperature, spread = case
    z, t = _logits(seed, 1, classes, spread)
    label = torch.tensor([0])
    rest = 1 - softmax(t[0] / temperature)[0]
    whole = losses.decoupled(*_tensors(z, t), label, temperature, 1.0, rest)
    expected = losses.soft_cross_entropy(*_tensors(z, t), temperature)
    assert whole.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-9)


@given(CASES)
def test_dist(case) -> None:
    seed, n, classes, temperature, spread = case
    z, t = _logits(seed, n + 1, classes, spread)
    q, p = softmax(z / temperature, axis=1), softmax(t / temperature, axis=1)
    between = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(q, p, strict=True)])
    within = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)])
    got = losses.correlation(*_tensors(z, t), temperature)
    assert got.item() == pytest.approx(temperature**2 * (between + within), rel=1e-3, abs=1e-6)


@given(CASES)
def test_squared(case) -> None:
    seed, n, classes, _, spread = case
    z, t = _logits(seed, n, classes, spread)
    assert losses.squared(*_tensors(z, t)).item() == pytest.approx(((z - t) ** 2).mean())


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("mse", lambda a, b: ((a - b) ** 2).mean()),
        ("l1", lambda a, b: np.abs(a - b).mean()),
        (
            "cosine",
            lambda a, b: np.mean(
                [
                    1 - np.vdot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)
                    for x, y in zip(a, b, strict=True)
                ]
            ),
        ),
    ],
)
def test_hints(kind: str, formula) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3, 5, 5)), rng.normal(size=(4, 3, 5, 5))
    assert losses.hint(kind, *_tensors(a, b)).item() == pytest.approx(formula(a, b))


@given(CASES)
def test_an_equal_student_has_no_loss_and_every_loss_has_finite_gradients(case) -> None:
    seed, n, classes, temperature, spread = case
    z, t = _logits(seed, n, classes, spread)
    labels = torch.zeros(n, dtype=torch.long)
    for loss in (
        lambda a, b: losses.soft_cross_entropy(a, b, temperature),
        lambda a, b: losses.standardized(a, b, temperature),
        lambda a, b: losses.decoupled(a, b, labels, temperature, 1.0, 8.0),
        lambda a, b: losses.correlation(a, b, temperature),
        losses.squared,
    ):
        assert loss(*_tensors(t, t)).item() == pytest.approx(0, abs=1e-5)
        student, teacher = _tensors(z, t)
        loss(student, teacher).backward()
        assert torch.isfinite(student.grad).all()
        # A step against the gradient lessens the loss.
        nearer = student.detach() - 1e-5 * student.grad
        assert loss(nearer, teacher) <= loss(student, teacher) + 1e-12


@given(CASES)
def test_an_ensembles_answer_is_the_mean_of_the_probabilities(case) -> None:
    seed, n, classes, _, spread = case
    one, other = _logits(seed, n, classes, spread)
    joined = losses.ensemble([torch.from_numpy(one), torch.from_numpy(other)])
    expected = (softmax(one, axis=1) + softmax(other, axis=1)) / 2
    np.testing.assert_allclose(torch.softmax(joined, dim=1).numpy(), expected, atol=1e-7)


def test_every_position_of_a_map_is_a_row() -> None:
    logits = torch.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    rows = losses.rows_of(logits)
    assert rows.shape == (8, 3)
    assert rows[5].tolist() == logits[1, :, 0, 1].tolist()
