# SPDX-License-Identifier: Apache-2.0
"""What training minimizes, as one number for each sample; computed in float64.

>>> loss("cross_entropy")({"logits": np.array([[0.0, 0.0]])}, np.array([1])).round(4).tolist()
[0.6931]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.core.task import Arrays
from burnish.data.metrics import one_each, per_sample_error
from burnish.data.outputs import alike, chosen_output, class_labels

Losses = NDArray[np.float64]


@dataclass
class OutputLoss:
    """A loss of one output, the first unless `output` names another.

    `formula` takes the output in float64 and the labels: (batch, …) -> (batch,).
    """

    name: str
    formula: Callable[[NDArray[np.float64], NDArray[Any]], Losses]
    output: str | None = None

    def __call__(self, outputs: Arrays, labels: NDArray[Any]) -> Losses:
        """Returns each sample's loss: (batch,)."""
        return self.formula(chosen_output(outputs, self.output, len(labels)), labels)


@dataclass
class FunctionLoss:
    """What a function gives for each sample: function(outputs, labels) -> (batch,)."""

    name: str
    function: Callable[[Arrays, NDArray[Any]], Any]

    def __call__(self, outputs: Arrays, labels: NDArray[Any]) -> Losses:
        """Returns each sample's loss: (batch,)."""
        return one_each(self.function(outputs, labels), len(labels), self.name)


def cross_entropy(logits: NDArray[np.float64], labels: NDArray[Any]) -> Losses:
    """Returns −log softmax(logits)[label]: (batch,); the mean over any further axes.

    `logits`: (batch, classes, …); `labels`: (batch, …) class numbers.
    """
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise Misuse(f"cross_entropy needs an output (batch, classes, …), got {logits.shape}")
    if logits.ndim == 2:
        labels = labels.reshape(len(labels)) if labels.shape == (len(labels), 1) else labels
    if labels.shape != (len(logits), *logits.shape[2:]):
        raise Misuse(
            f"cross_entropy needs labels {(len(logits), *logits.shape[2:])}, got {labels.shape}"
        )
    right = class_labels(labels, logits.shape[1])[:, None]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    each = log_sum - np.take_along_axis(shifted, right, axis=1)
    return np.asarray(each.reshape(len(logits), -1).mean(axis=1), np.float64)


def binary_cross_entropy(logits: NDArray[np.float64], labels: NDArray[Any]) -> Losses:
    """Returns the mean over elements of −y log σ(x) − (1 − y) log σ(−x): (batch,).

    The output is logits, not probabilities; labels lie in 0 to 1.
    """
    targets = alike(logits, labels)
    if targets.min() < 0 or targets.max() > 1:
        raise Misuse(
            f"binary_cross_entropy needs labels from 0 to 1, got {targets.min()}..{targets.max()}"
        )
    each = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return np.asarray(each.reshape(len(logits), -1).mean(axis=1), np.float64)


def squared_error(output: NDArray[np.float64], labels: NDArray[Any]) -> Losses:
    """Returns the mean squared difference over each sample's elements: (batch,)."""
    return per_sample_error(output, labels, squared=True)


def absolute_error(output: NDArray[np.float64], labels: NDArray[Any]) -> Losses:
    """Returns the mean absolute difference over each sample's elements: (batch,)."""
    return per_sample_error(output, labels, squared=False)


FORMULAS: dict[str, Callable[[NDArray[np.float64], NDArray[Any]], Losses]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "mse": squared_error,
    "mae": absolute_error,
}
"""The losses by name."""


def loss(name: str, output: str | None = None) -> OutputLoss:
    """Returns a loss by name. Raises `Misuse`, with the nearest name, for an unknown one."""
    if name not in FORMULAS:
        raise unknown("loss", name, FORMULAS)
    return OutputLoss(name, FORMULAS[name], output)
