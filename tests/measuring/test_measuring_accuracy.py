# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from scipy import stats
from small_models import convolutional, make, random_inputs

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.task import Batch, Task
from burnish.data.metrics import metric
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.engines.openvino import OpenVino
from burnish.measuring.accuracy import Judged, agreement, compare, evaluate
from burnish.measuring.statistics import wilson


class Arrays:
    """Samples that are in memory."""

    def __init__(self, inputs: dict, labels: np.ndarray | None) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        n = len(self) if limit is None else min(limit, len(self))
        for start in range(0, n, batch_size):
            part = slice(start, min(start + batch_size, n))
            labels = None if self.labels is None else self.labels[part]
            yield Batch({name: array[part] for name, array in self.inputs.items()}, labels)

    def fingerprint(self) -> str:
        return "arrays"


def task(name: str = "top1", n: int = 70, seed: int = 3) -> tuple[Task, np.ndarray]:
    """Returns a task of n images whose labels are right for about two in three."""
    inputs = random_inputs(convolutional(), n, seed=seed)
    with OnnxRuntime().open(convolutional(), Setting()) as session:
        logits = session.run(inputs)["logits"]
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(n) < 0.67, logits.argmax(1), rng.integers(0, 10, n))
    return Task("toy", validation=Arrays(inputs, labels), metric=metric(name)), logits


def test_top1_with_wilsons_interval() -> None:
    toy, logits = task()
    labels = toy.split("validation").labels  # type: ignore[attr-defined]
    seen = []
    with OnnxRuntime().open(convolutional(), Setting()) as session:
        judged = evaluate(
            session, toy, batch_size=16, progress=lambda work, done, total: seen.append(done)
        )
        some = evaluate(session, toy, limit=20)
    right = int((logits.argmax(1) == labels).sum())
    assert judged.value.value == pytest.approx(100 * right / 70)
    assert (judged.value.low, judged.value.high) == pytest.approx(
        [100 * end for end in wilson(right, 70)]
    )
    assert judged.rows.shape == (70, 1)
    assert judged.answers is not None
    np.testing.assert_array_equal(judged.answers, logits.argmax(1))
    assert judged.value.engine == OnnxRuntime().identity
    assert (judged.n, some.n, some.value.n) == (70, 20, 20)
    assert seen[-1] == 70


@pytest.mark.parametrize("name", ["f1", "top3"])
def test_judgements_are_kept_without_pickle(tmp_path: Path, name: str) -> None:
    toy, _ = task(name)
    with OnnxRuntime().open(convolutional(), Setting()) as session:
        judged = evaluate(session, toy)
    judged.save(tmp_path / "judged.npz")
    again = Judged.load(tmp_path / "judged.npz")
    np.testing.assert_array_equal(again.rows, judged.rows)
    np.testing.assert_array_equal(again.answers, judged.answers)
    assert again.value == judged.value
    assert again.n == 70
    assert judged.value.low <= judged.value.value <= judged.value.high
    whole = (tmp_path / "judged.npz").read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(Misuse, match="no judgement"):
            Judged.load(tmp_path / "cut.npz")


def test_a_regression_has_no_answers() -> None:
    model = make(
        [helper.make_node("Identity", ["x"], ["y"], "same")],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("y", TensorProto.FLOAT, ["n", 1])],
    )
    x = np.arange(40, dtype=np.float32)[:, None]
    toy = Task("line", validation=Arrays({"x": x}, x + 2), metric=metric("mse"))
    with OnnxRuntime().open(model, Setting()) as session:
        judged = evaluate(session, toy)
        assert agreement(session, session, [{"x": x}]) is None
    assert judged.answers is None
    assert judged.value.value == pytest.approx(4)
    comparison = compare(judged, judged, metric("mse"))
    assert comparison.drop.value == 0
    assert comparison.agreement is None
    assert comparison.mcnemar_p is None


def judged_of(rows: np.ndarray, answers: np.ndarray | None = None) -> Judged:
    from burnish.core.measurement import Measurement

    value = Measurement("metric", 0, "%", "higher", 0, 0, len(rows), "", "e")
    return Judged(rows[:, None].astype(float), answers, value, len(rows))


def test_compare_is_paired() -> None:
    base = np.array([1] * 90 + [0] * 10)
    candidate = base.copy()
    candidate[:4] = 0
    candidate[-1] = 1
    answers = np.where(base, 5, 6)
    comparison = compare(
        judged_of(base, answers), judged_of(candidate, np.where(candidate, 5, 6)), metric("top1")
    )
    assert comparison.drop.value == pytest.approx(3)
    assert comparison.drop.low < 0 < comparison.drop.high
    assert comparison.drop.high < 9  # unpaired, it would be about 12
    assert comparison.drop.unit == "%"
    assert comparison.mcnemar_p == pytest.approx(stats.binomtest(1, 5).pvalue)
    assert comparison.agreement is not None
    assert comparison.agreement.value == 95
    with pytest.raises(Misuse, match="same samples"):
        compare(judged_of(base), judged_of(base[:50]), metric("top1"))


def test_a_drop_is_positive_when_an_error_grows() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(1, 400)
    worse = errors + rng.normal(0.2, 0.1, 400)
    drop = compare(judged_of(errors), judged_of(worse), metric("mse")).drop
    assert drop.value == pytest.approx(0.2, abs=0.02)
    assert 0.15 < drop.low < drop.value < drop.high < 0.25


def test_two_engines_agree() -> None:
    batches = [random_inputs(convolutional(), 20, seed=seed) for seed in range(3)]
    with (
        OnnxRuntime().open(convolutional(), Setting()) as one,
        OpenVino().open(convolutional(), Setting()) as other,
    ):
        same = agreement(one, other, batches)
        assert same is not None
        assert (same.value, same.n) == (100, 60)
        assert same.low < 100
        with pytest.raises(Misuse, match="no samples"):
            agreement(one, other, [])


def test_a_fixed_batch_size_is_filled_up() -> None:
    model = make(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        [("x", TensorProto.FLOAT, [4, 3])],
        [("y", TensorProto.FLOAT, [4, 3])],
        {"w": np.eye(3, dtype=np.float32)},
    )
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    toy = Task("fixed", validation=Arrays({"x": x}, x.argmax(1)), metric=metric("top1"))
    with OnnxRuntime().open(model, Setting()) as session:
        judged = evaluate(session, toy)
        same = agreement(session, session, [{"x": x}])
    assert judged.value.value == 100
    assert judged.n == 10
    assert same is not None
    assert same.n == 10


def test_misuse_is_said() -> None:
    unlabelled = Task(
        "bare", validation=Arrays(random_inputs(convolutional(), 3), None), metric=metric("top1")
    )
    empty = Task(
        "empty",
        validation=Arrays(random_inputs(convolutional(), 0), np.zeros(0, int)),
        metric=metric("top1"),
    )
    with OnnxRuntime().open(convolutional(), Setting()) as session:
        with pytest.raises(Misuse, match="no labels"):
            evaluate(session, unlabelled)
        with pytest.raises(Misuse, match="no samples"):
            evaluate(session, empty)
        with pytest.raises(Misuse, match="no metric"):
            evaluate(session, Task("none", validation=empty.validation))
        with pytest.raises(Misuse, match="no training data"):
            evaluate(session, unlabelled, "training")
