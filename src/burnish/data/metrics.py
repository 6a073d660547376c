# SPDX-License-Identifier: Apache-2.0
"""How outputs are judged: a row of numbers for each sample, and the value of many rows.

Percentages are in points, 0 to 100. A prediction with a NaN in it is a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.core.task import Arrays
from burnish.data.outputs import alike, chosen_output, class_labels, class_scores

Rows = NDArray[np.float64]


class TopK:
    """The percentage of samples whose label is among the k highest scores.

    Of equal scores the one of the lower class number counts as higher, as in argmax.

    >>> metric = TopK(1)
    >>> metric.rows({"logits": np.array([[0.1, 0.9], [0.8, 0.2]])}, np.array([1, 1])).tolist()
    [[1.0], [0.0]]
    """

    unit: str = "%"
    better: Literal["lower", "higher"] = "higher"
    binary: bool = True

    def __init__(self, k: int, output: str | None = None) -> None:
        if k < 1:
            raise Misuse(f"top-k needs k of at least 1, got {k}")
        self.name = _named(f"top{k}", output)
        self.k, self.output = k, output

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns 1 for each sample that is right, else 0: (batch, 1)."""
        scores = chosen_output(outputs, self.output, len(labels))
        right = class_scores(scores, labels)[:, None]
        score = np.take_along_axis(scores, right, axis=1)
        lower = np.arange(scores.shape[1]) < right
        rank = ((scores > score) | ((scores == score) & lower)).sum(axis=1)
        hit = (rank < self.k) & ~np.isnan(scores).any(axis=1)
        return np.asarray(hit, np.float64)[:, None]

    def value(self, rows: Rows) -> float:
        """Returns the percentage that is right."""
        return 100.0 * float(rows[:, 0].mean())


class F1:
    """F1 in points: the mean over classes, or, with `binary_class`, that of class 1.

    Classes that are in neither labels nor predictions do not count; a class without a hit
    has 0. An output of one column needs `threshold`, above which it means class 1.
    """

    unit: str = "%"
    better: Literal["lower", "higher"] = "higher"
    binary: bool = False

    def __init__(
        self,
        binary_class: bool = False,
        output: str | None = None,
        threshold: float | None = None,
    ) -> None:
        at = "" if threshold is None else f" at {threshold:g}"
        self.name = _named("f1_binary" if binary_class else "f1", output) + at
        self.binary_class, self.output, self.threshold = binary_class, output, threshold

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns label and prediction (-1: none): (batch, 2)."""
        scores = chosen_output(outputs, self.output, len(labels))
        if scores.size == len(labels):
            if self.threshold is None:
                raise Misuse(
                    "F1 of an output with one column needs a threshold: 0.0 for logits, 0.5 for "
                    'probabilities, as metric = { name = "f1_binary", threshold = 0.5 }'
                )
            column = scores.reshape(len(labels))
            right = class_labels(labels.reshape(len(labels)), 2)
            predicted = np.where(np.isnan(column), -1, column > self.threshold)
        else:
            right = class_scores(scores, labels)
            predicted = np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
            if self.binary_class and scores.shape[1] != 2:
                raise Misuse(f"f1_binary needs 2 classes, got {scores.shape[1]}: use f1")
        return np.stack([right, predicted], axis=1).astype(np.float64)

    def value(self, rows: Rows) -> float:
        """Returns 2 × hits / (labels + predictions), in points."""
        right, predicted = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
        size = int(max(right.max(), predicted.max())) + 1
        labelled = np.bincount(right, minlength=size)
        claimed = np.bincount(predicted[predicted >= 0], minlength=size)
        hits = np.bincount(right[right == predicted], minlength=size)
        if self.binary_class:
            labelled, claimed, hits = labelled[1:2], claimed[1:2], hits[1:2]
        seen = labelled + claimed > 0
        if not seen.any():
            return 0.0
        return 100.0 * float((2 * hits[seen] / (labelled + claimed)[seen]).mean())


class Auc:
    """The area under the ROC curve in points, of two classes; ties count half.

    With two columns the score is the second minus the first. Rows of one class alone, or
    with a NaN, have no area: NaN.
    """

    unit: str = "%"
    better: Literal["lower", "higher"] = "higher"
    binary: bool = False

    def __init__(self, output: str | None = None) -> None:
        self.name, self.output = _named("auc", output), output

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns label and score: (batch, 2)."""
        scores = chosen_output(outputs, self.output, len(labels)).reshape(len(labels), -1)
        if scores.shape[1] > 2:
            raise Misuse(f"auc needs an output of 1 or 2 columns, got {scores.shape[1]}")
        score = scores[:, -1] - scores[:, 0] if scores.shape[1] == 2 else scores[:, 0]
        right = class_labels(labels.reshape(len(labels)), 2)
        return np.stack([right.astype(np.float64), score], axis=1)

    def value(self, rows: Rows) -> float:
        """Returns the share of (1, 0) pairs in which the 1 has the higher score, in points.

        Source: Hanley and McNeil 1982, the Wilcoxon statistic.
        """
        positive = rows[:, 0] == 1
        n_pairs = int(positive.sum()) * int((~positive).sum())
        if not n_pairs or np.isnan(rows[:, 1]).any():
            return float("nan")
        _, group, counts = np.unique(rows[:, 1], return_inverse=True, return_counts=True)
        rank = (np.cumsum(counts) - (counts - 1) / 2)[group]
        n_positive = int(positive.sum())
        above = rank[positive].sum() - n_positive * (n_positive + 1) / 2
        return 100.0 * float(above) / n_pairs


class MeanError:
    """The mean of squared ("mse") or absolute ("mae") differences, in the labels' units."""

    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    binary: bool = False

    def __init__(self, name: Literal["mse", "mae"], output: str | None = None) -> None:
        self.name, self.squared, self.output = _named(name, output), name == "mse", output

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns each sample's mean over its elements: (batch, 1)."""
        output = chosen_output(outputs, self.output, len(labels))
        return per_sample_error(output, labels, self.squared)[:, None]

    def value(self, rows: Rows) -> float:
        """Returns the mean."""
        return float(rows[:, 0].mean())


class MeanIou:
    """Mean intersection over union of the classes, in points; pixels labelled `ignore` are not
    counted, nor classes that are in neither labels nor predictions.
    """

    unit: str = "%"
    better: Literal["lower", "higher"] = "higher"
    binary: bool = False

    def __init__(self, output: str | None = None, ignore: int | None = None) -> None:
        self.name, self.output, self.ignore = _named("mean_iou", output), output, ignore
        if ignore is not None:
            self.name += f" without {ignore}"

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns each class's intersection, then its union, in pixels: (batch, 2 × classes).

        The output is (batch, classes, …) scores, labels (batch, …) class numbers.
        """
        scores = chosen_output(outputs, self.output, len(labels))
        if scores.ndim < 3 or scores.shape[1] < 2 or scores.shape[2:] != labels.shape[1:]:
            raise Misuse(
                "mean_iou needs an output (batch, classes, …) and labels (batch, …), got "
                f"{scores.shape} and {labels.shape}"
            )
        n, size = len(labels), scores.shape[1]
        right = class_labels(labels, size, self.ignore).reshape(n, -1)
        predicted = np.where(np.isnan(scores).any(axis=1), size, scores.argmax(axis=1))
        predicted = predicted.reshape(n, -1)
        kept = np.ones_like(right, bool) if self.ignore is None else right != self.ignore
        sample = np.broadcast_to(np.arange(n)[:, None], right.shape)

        def count(mask: NDArray[np.bool_], classes: NDArray[Any]) -> NDArray[np.int64]:
            at = sample[mask] * (size + 1) + classes[mask]
            return np.bincount(at, minlength=n * (size + 1)).reshape(n, size + 1)[:, :size]

        hits = count(kept & (right == predicted), right)
        union = count(kept, right) + count(kept, predicted) - hits
        return np.concatenate([hits, union], axis=1).astype(np.float64)

    def value(self, rows: Rows) -> float:
        """Returns the mean over classes of summed intersection over summed union."""
        hits, union = np.split(rows.sum(axis=0), 2)
        seen = union > 0
        return 100.0 * float((hits[seen] / union[seen]).mean()) if seen.any() else float("nan")


class FunctionMetric:
    """The mean of what a function gives for each sample: function(outputs, labels) -> (batch,)."""

    binary: bool = False

    def __init__(
        self,
        function: Callable[[Arrays, NDArray[Any]], Any],
        name: str,
        better: Literal["lower", "higher"] = "higher",
        unit: str = "",
    ) -> None:
        self.function, self.name, self.better, self.unit = function, name, better, unit

    def rows(self, outputs: Arrays, labels: NDArray[Any]) -> Rows:
        """Returns the function's numbers: (batch, 1)."""
        return one_each(self.function(outputs, labels), len(labels), self.name)[:, None]

    def value(self, rows: Rows) -> float:
        """Returns the mean."""
        return float(rows[:, 0].mean())


BuiltIn = TopK | F1 | Auc | MeanError | MeanIou
OPTIONS: dict[str, tuple[str, ...]] = {
    "top1": ("output",),
    "top5": ("output",),
    "f1": ("output", "threshold"),
    "f1_binary": ("output", "threshold"),
    "auc": ("output",),
    "mse": ("output",),
    "mae": ("output",),
    "mean_iou": ("output", "ignore"),
}
"""The metrics by name (any "topK" is one) and the options of each."""


def metric(name: str, **options: Any) -> BuiltIn:
    """Returns a metric by name: top1, top5 (any k), f1, f1_binary, auc, mse, mae or mean_iou.

    `options` are those in `OPTIONS`. Raises `Misuse` for an unknown name or option.
    """
    top = re.fullmatch(r"top(\d{1,6})", name)
    known = OPTIONS["top1"] if top else OPTIONS.get(name)
    if known is None:
        raise unknown("metric", name, OPTIONS)
    for option in options:
        if option not in known:
            raise unknown(f"option of the metric {name}", option, known)
    if top:
        return TopK(int(top[1]), **options)
    return _MAKERS[name](**options)


_MAKERS: dict[str, Callable[..., BuiltIn]] = {
    "f1": F1,
    "f1_binary": lambda **options: F1(binary_class=True, **options),
    "auc": Auc,
    "mse": lambda **options: MeanError("mse", **options),
    "mae": lambda **options: MeanError("mae", **options),
    "mean_iou": MeanIou,
}


def per_sample_error(
    output: NDArray[np.float64], labels: NDArray[Any], squared: bool
) -> NDArray[np.float64]:
    """Returns each sample's mean squared or absolute difference: (batch,)."""
    difference = (output - alike(output, labels)).reshape(len(output), -1)
    each = difference**2 if squared else np.abs(difference)
    return np.asarray(each.mean(axis=1), np.float64)


def one_each(values: Any, n: int, name: str) -> NDArray[np.float64]:
    """Returns what a user's function gave as (n,) float64, or raises `Misuse`."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.shape not in {(n,), (n, 1)}:
        raise Misuse(
            f"{name} must return one number for each of {n} samples, got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array.reshape(n).astype(np.float64)


def _named(name: str, output: str | None) -> str:
    return name if output is None else f"{name} of {output}"
