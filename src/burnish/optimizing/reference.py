# SPDX-License-Identifier: Apache-2.0
"""Statistics of a task's inputs and a model's outputs: what drift is later measured against.

The data are the validation samples, which the model was not calibrated on, through the
engine that will serve them; each statistic is a histogram in constant memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Candidate
from burnish.core.model import Model, TensorSpec
from burnish.core.task import Task
from burnish.engines.engine import by_name
from burnish.measuring.accuracy import run_batch
from burnish.techniques.quantize.histogram import Histogram

_SAMPLES = 2000
_CHANNELS = 64  # an input or output with more channels is described as a whole


def reference(model: Model, candidate: Candidate, task: Task) -> dict[str, Any] | None:
    """Returns the statistics as plain data, or None when the task has no data to take them from.

    For each input and output, by channel (axis 1) where there are at most 64: histogram,
    minimum, maximum. For classifiers: how often each class was answered, and a histogram of
    the largest softmax probability.
    """
    data = task.validation or task.calibration
    if data is None:
        return None
    inputs: dict[str, list[Histogram]] = {}
    outputs: dict[str, list[Histogram]] = {}
    answers: dict[str, NDArray[np.int64]] = {}
    confidence: dict[str, Histogram] = {}
    n = 0
    with by_name(candidate.engine.split()[0]).open(model, candidate.setting) as session:
        for batch in data.batches(16, _SAMPLES):
            got = run_batch(session, batch.inputs)
            n += len(batch)
            _add(inputs, batch.inputs, model.signature.inputs)
            _add(outputs, got, model.signature.outputs)
            for name, array in got.items():
                if (
                    array.ndim != 2
                    or array.shape[1] < 2
                    or not np.issubdtype(array.dtype, np.floating)
                ):
                    continue
                counts = np.bincount(array.argmax(1), minlength=array.shape[1])
                answers[name] = answers.get(name, np.zeros(array.shape[1], np.int64)) + counts
                confidence.setdefault(name, Histogram()).add(_largest_probability(array))
    return {
        "split": "validation" if task.validation is not None else "calibration",
        "n": n,
        "inputs": {name: [_plain(one) for one in all_] for name, all_ in inputs.items()},
        "outputs": {name: [_plain(one) for one in all_] for name, all_ in outputs.items()},
        "answers": {name: counts.tolist() for name, counts in answers.items()},
        "confidence": {name: _plain(one) for name, one in confidence.items()},
    }


def _add(
    kept: dict[str, list[Histogram]],
    arrays: Mapping[str, NDArray[Any]],
    specs: Sequence[TensorSpec],
) -> None:
    for spec in specs:
        values = arrays[spec.name].astype(np.float32, copy=False)
        # An axis that varies, as a text's length does, is no axis of channels.
        fixed = len(spec.shape) >= 2 and isinstance(spec.shape[1], int)
        channels = values.shape[1] if fixed and values.shape[1] <= _CHANNELS else 1
        name = spec.name
        if name not in kept:
            kept[name] = [Histogram() for _ in range(channels)]
        for channel, histogram in enumerate(kept[name]):
            histogram.add(values[:, channel] if len(kept[name]) > 1 else values)


def _largest_probability(scores: NDArray[Any]) -> NDArray[np.float64]:
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    largest: NDArray[np.float64] = 1.0 / np.exp(shifted).sum(axis=1)
    return largest


def _plain(histogram: Histogram) -> dict[str, Any]:
    """Returns 32 bins of equal width over the range seen; zeros are in their own bin."""
    if not np.isfinite(histogram.low):
        return {"n": 0}
    edges = np.linspace(histogram.low, histogram.high, 33)
    centres = histogram.centres()
    bins = np.clip(np.searchsorted(edges, centres, side="right") - 1, 0, 31)
    counts = np.bincount(bins, histogram.counts, minlength=32)
    return {
        "n": histogram.n,
        "low": histogram.low,
        "high": histogram.high,
        "zeros": histogram.zeros,
        "counts": [int(count) for count in counts],
    }
