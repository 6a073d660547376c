# SPDX-License-Identifier: Apache-2.0
"""Takes the output that is judged, and its labels, and checks that they fit each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.core.task import Arrays


def chosen_output(outputs: Arrays, name: str | None, n: int) -> NDArray[np.float64]:
    """Returns the output `name`, or the first, in float64: (n, …)."""
    if not outputs:
        raise Misuse("the model gave no output to judge")
    if name is not None and name not in outputs:
        raise unknown("output", name, outputs)
    name = next(iter(outputs)) if name is None else name
    array = np.asarray(outputs[name])
    if array.ndim == 0 or len(array) != n:
        raise Misuse(f"the output {name!r} has shape {array.shape} for {n} labels")
    return array.astype(np.float64)


def class_labels(
    labels: NDArray[Any], n_classes: int, ignore: int | None = None
) -> NDArray[np.int64]:
    """Returns labels as int64 in 0..n_classes - 1, or `ignore`. Raises `Misuse` for others."""
    whole = np.asarray(labels)
    if whole.dtype.kind not in "biu" and not (
        whole.dtype.kind == "f" and np.isfinite(whole).all() and (whole == np.floor(whole)).all()
    ):
        raise Misuse(f"labels must be class numbers, got {whole.dtype} {whole.ravel()[:4]}")
    whole = whole.astype(np.int64)
    wrong = (whole < 0) | (whole >= n_classes)
    if ignore is not None:
        wrong &= whole != ignore
    if wrong.any():
        sample = int(np.argwhere(wrong)[0][0])
        raise Misuse(
            f"the label {whole[wrong][0]} (sample {sample} of the batch) must be a class from 0 "
            f"to {n_classes - 1}, as the output has {n_classes} classes"
        )
    return whole


def class_scores(scores: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the labels of scores (n, classes), checked: (n,)."""
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise Misuse(
            f"the output must be (batch, classes) with 2 classes or more, got {scores.shape}"
        )
    if labels.shape not in {(len(scores),), (len(scores), 1)}:
        raise Misuse(f"labels must be one class number a sample, got shape {labels.shape}")
    return class_labels(labels.reshape(len(scores)), scores.shape[1])


def alike(output: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Returns labels in float64 and the output's shape; one axis of length 1 may differ."""
    values = np.asarray(labels)
    if values.size != output.size or (
        [side for side in values.shape[1:] if side != 1]
        != [side for side in output.shape[1:] if side != 1]
    ):
        raise Misuse(f"output and labels must be alike, got {output.shape} and {values.shape}")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise Misuse(f"labels must be finite numbers, got {values.dtype} {values.ravel()[:4]}")
    return values.astype(np.float64).reshape(output.shape)
