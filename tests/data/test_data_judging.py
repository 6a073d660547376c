# SPDX-License-Identifier: Apache-2.0
"""Metrics against scikit-learn, losses against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.core.errors import Misuse
from burnish.data.losses import loss
from burnish.data.metrics import metric

rng = np.random.default_rng(0)


def judged(name: str, output: np.ndarray, labels: np.ndarray, **options: object) -> float:
    one = metric(name, **options)
    halves = [slice(0, len(labels) // 2), slice(len(labels) // 2, None)]
    parts = [one.rows({"out": output[half]}, labels[half]) for half in halves]
    return one.value(np.concatenate(parts))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn(seed: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(60, 7)).astype(np.float32)
    labels = rng.integers(0, 6, 60)  # class 6 is only ever predicted
    guess = scores.argmax(axis=1)
    names = list(range(7))
    assert judged("top1", scores, labels) == pytest.approx(100 * sk.accuracy_score(labels, guess))
    top3 = 100 * sk.top_k_accuracy_score(labels, scores, k=3, labels=names)
    assert judged("top3", scores, labels) == pytest.approx(top3)
    f1 = 100 * sk.f1_score(labels, guess, average="macro", zero_division=0)
    assert judged("f1", scores, labels) == pytest.approx(f1)
    column, two = scores[:, :1].round(1), labels % 2
    assert judged("auc", column, two) == pytest.approx(100 * sk.roc_auc_score(two, column[:, 0]))
    f1 = 100 * sk.f1_score(two, column[:, 0] > 0)
    assert judged("f1_binary", column, two, threshold=0.0) == pytest.approx(f1)
    auc = 100 * sk.roc_auc_score(two, scores[:, 1] - scores[:, 0])
    assert judged("auc", scores[:, :2], two) == pytest.approx(auc, rel=1e-3)
    target = rng.normal(size=(60, 7))
    assert judged("mse", scores, target) == pytest.approx(sk.mean_squared_error(target, scores))
    assert judged("mae", scores, target) == pytest.approx(sk.mean_absolute_error(target, scores))


@pytest.mark.parametrize("ignore", [None, 255])
def test_mean_iou_equals_scikit_learn(ignore: int | None) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    scores, labels = rng.normal(size=(8, 4, 5, 6)), rng.integers(0, 4, (8, 5, 6))
    kept = np.ones(labels.shape, bool)
    if ignore is not None:
        labels[:, 0] = ignore
        kept = labels != ignore
    expected = 100 * sk.jaccard_score(labels[kept], scores.argmax(1)[kept], average="macro")
    options = {} if ignore is None else {"ignore": ignore}
    assert judged("mean_iou", scores, labels, **options) == pytest.approx(expected)


def test_a_nan_is_never_right() -> None:
    scores = np.array([[np.nan, 0.0], [0.0, np.nan], [1.0, 0.0]])
    labels = np.array([0, 0, 0])
    assert metric("top1").rows({"o": scores}, labels).ravel().tolist() == [0, 0, 1]
    assert metric("f1").rows({"o": scores}, labels)[:, 1].tolist() == [-1, -1, 0]


def test_top1_is_argmax_where_scores_are_equal() -> None:
    scores = rng.integers(0, 3, (200, 5)).astype(float)
    labels = rng.integers(0, 5, 200)
    expected = scores.argmax(axis=1) == labels
    np.testing.assert_array_equal(metric("top1").rows({"o": scores}, labels)[:, 0], expected)


def test_output_by_name() -> None:
    outputs = {"aux": np.array([[1.0, 0.0]]), "logits": np.array([[0.0, 1.0]])}
    assert metric("top1").rows(outputs, np.array([0])).item() == 1
    assert metric("top1", output="logits").rows(outputs, np.array([0])).item() == 0
    with pytest.raises(Misuse, match="did you mean 'logits'"):
        metric("top1", output="logit").rows(outputs, np.array([0]))


@pytest.mark.parametrize(
    ("name", "output", "labels", "says"),
    [
        ("top1", np.zeros((2, 3)), np.array([0, 3]), "label 3 .sample 1 of the batch."),
        ("top1", np.zeros((2, 3)), np.array([0, np.nan]), "class numbers"),
        ("top1", np.zeros((2, 1)), np.array([0, 1]), "2 classes or more"),
        ("f1", np.zeros((2, 1)), np.array([0, 1]), "needs a threshold"),
        ("auc", np.zeros((2, 3)), np.array([0, 1]), "1 or 2 columns"),
        ("mse", np.zeros((2, 3)), np.zeros((2, 2)), "alike"),
        ("mae", np.zeros(2), np.array([0, np.nan]), "finite"),
        ("mean_iou", np.zeros((2, 3, 4)), np.zeros((2, 5), int), "mean_iou needs"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, output: np.ndarray, labels: np.ndarray, says: str
) -> None:
    with pytest.raises(Misuse, match=says):
        metric(name).rows({"o": output}, labels)


def test_unknown_names() -> None:
    with pytest.raises(Misuse, match="did you mean 'top1'"):
        metric("top_1")
    with pytest.raises(Misuse, match="did you mean 'cross_entropy'"):
        loss("crossentropy")
    with pytest.raises(Misuse, match="option of the metric top1"):
        metric("top1", threshold=1)


def test_losses_equal_torch() -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def same(name: str, output: np.ndarray, labels: np.ndarray, expected: object) -> None:
        got = loss(name)({"o": output}, labels)
        per_sample = expected.numpy().reshape(len(output), -1).mean(axis=1)  # type: ignore
        np.testing.assert_allclose(got, per_sample, rtol=1e-12)

    logits, labels = rng.normal(size=(6, 4)) * 50, rng.integers(0, 4, 6)
    given, right = torch.from_numpy(logits), torch.from_numpy(labels)
    same("cross_entropy", logits, labels,
         functional.cross_entropy(given, right, reduction="none"))  # fmt: skip
    targets = rng.random((6, 4))
    wanted = torch.from_numpy(targets)
    for name, function in (
        ("binary_cross_entropy", functional.binary_cross_entropy_with_logits),
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
    ):
        same(name, logits, targets, function(given, wanted, reduction="none"))
    maps, pixels = rng.normal(size=(3, 4, 5, 5)), rng.integers(0, 4, (3, 5, 5))
    expected = functional.cross_entropy(
        torch.from_numpy(maps), torch.from_numpy(pixels), reduction="none"
    )
    same("cross_entropy", maps, pixels, expected)
