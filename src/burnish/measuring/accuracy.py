# SPDX-License-Identifier: Apache-2.0
"""How well a model does its task, and whether another does it as well, on the same samples."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.measurement import Measurement
from burnish.core.model import Signature
from burnish.core.progress import Progress, silent
from burnish.core.task import Metric, Split, Task
from burnish.engines.engine import Session
from burnish.measuring.machine import machine
from burnish.measuring.statistics import bootstrap, mcnemar, paired_binary, wilson

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Judged:
    """A model judged on n samples.

    `rows` is what the metric keeps of each sample, (n, k). `answers` is the class given to
    each, (n,), or None where the model is no classifier. `value` is the metric with its
    interval (Wilson's for right-or-wrong metrics, else a bootstrap over samples).
    """

    rows: NDArray[np.float64]
    answers: NDArray[np.int64] | None
    value: Measurement
    n: int

    def save(self, path: str | Path) -> None:
        """Writes the judgement as .npz, without pickle."""
        arrays: dict[str, Any] = {
            "rows": self.rows,
            "value": np.array(json.dumps(self.value.to_dict())),
        }
        if self.answers is not None:
            arrays["answers"] = self.answers
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @staticmethod
    def load(path: str | Path) -> Judged:
        """Returns what `save` wrote. Raises `Misuse` when the file is damaged."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                rows = data["rows"].astype(np.float64)
                value = Measurement.from_dict(json.loads(str(data["value"])))
                answers = data["answers"].astype(np.int64) if "answers" in data else None
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            MemoryError,
            zipfile.BadZipFile,
        ) as error:
            raise Misuse(f"{path} holds no judgement: {error}") from error
        return Judged(rows, answers, value, len(rows))


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline on the same samples.

    `drop` is positive when the candidate is worse, in the metric's unit. `agreement` is the
    share of samples, in %, that both give the same class; `mcnemar_p` the probability of
    so uneven a split of the disagreements if both err equally often.
    """

    drop: Measurement
    agreement: Measurement | None
    mcnemar_p: float | None


def evaluate(
    session: Session,
    task: Task,
    split: Split = "validation",
    batch_size: int = 32,
    limit: int | None = None,
    progress: Progress = silent,
) -> Judged:
    """Returns the session's model judged on the first `limit` samples of a split.

    A model of fixed batch size is given that, the last batch filled up. Raises `Misuse`
    when the split has no labels or no samples.
    """
    metric, samples = task.judge(), task.split(split)
    fixed = fixed_batch(session.signature)
    total = len(samples) if limit is None else min(limit, len(samples))
    rows: list[NDArray[np.float64]] = []
    answers: list[NDArray[np.int64]] = []
    done = 0
    for batch in samples.batches(fixed or batch_size, limit):
        if batch.labels is None:
            raise Misuse(f"the {split} data of the task {task.name!r} has no labels to judge by")
        outputs = run_batch(session, batch.inputs)
        rows.append(np.asarray(metric.rows(outputs, batch.labels), np.float64))
        given = _answers(outputs, getattr(metric, "output", None))
        if given is not None and batch.labels.dtype.kind in "iu":
            answers.append(given)
        done += len(batch)
        progress("judging", done, total)
    if not rows:
        raise Misuse(f"the {split} data of the task {task.name!r} has no samples")
    whole = np.concatenate(rows)
    whole = whole.reshape(len(whole), -1)
    value = _value(whole, metric, session.engine)
    classifies = len(answers) == len(rows)
    return Judged(whole, np.concatenate(answers) if classifies else None, value, len(whole))


def compare(
    base: Judged, candidate: Judged, metric: Metric, seed: int = 0, level: float = 0.95
) -> Comparison:
    """Returns how the candidate differs from the baseline, both judged on the same samples.

    The drop's interval is Tango's for right-or-wrong metrics, else a bootstrap over samples
    drawn for both at once. Raises `Misuse` when the samples cannot be the same.
    """
    if base.rows.shape != candidate.rows.shape:
        raise Misuse(
            "the two were not judged on the same samples: their rows have shapes "
            f"{base.rows.shape} and {candidate.rows.shape}"
        )
    n, p_value = base.n, None
    if metric.binary:
        right, right_now = base.rows[:, 0] > 0.5, candidate.rows[:, 0] > 0.5
        value, low, high = paired_binary(right, right_now, level)
        p_value = mcnemar(int((right & ~right_now).sum()), int((~right & right_now).sum()))
        if metric.better == "lower":
            value, low, high = -value, -high, -low
    else:
        sign = 1.0 if metric.better == "higher" else -1.0

        def drop_of(both: NDArray[np.float64]) -> float:
            return sign * (metric.value(both[:, 0]) - metric.value(both[:, 1]))

        both = np.stack([base.rows, candidate.rows], axis=1)
        value = drop_of(both)
        low, high = bootstrap(both, drop_of, seed, level)
    drop = Measurement(
        "drop",
        value,
        metric.unit,
        "lower",
        min(low, value),
        max(high, value),
        n,
        machine().fingerprint,
        candidate.value.engine,
    )
    same = None
    if base.answers is not None and candidate.answers is not None:
        same = _agreement(int((base.answers == candidate.answers).sum()), n, candidate.value.engine)
    return Comparison(drop, same, p_value)


def agreement(first: Session, second: Session, inputs: Iterable[Arrays]) -> Measurement | None:
    """Returns the share of samples, in %, that both give the same class; needs no labels.

    `inputs` yields batches. None when the models are no classifiers. Raises `Misuse` when
    there are no samples.
    """
    equal = n = 0
    for batch in inputs:
        size = len(next(iter(batch.values())))
        one, other = (_answers(run_batch(session, batch), None) for session in (first, second))
        if one is None or other is None:
            return None
        equal += int((one == other).sum())
        n += size
    if n == 0:
        raise Misuse("there are no samples to compare the models on")
    return _agreement(equal, n, second.engine)


def _agreement(equal: int, n: int, engine: str) -> Measurement:
    low, high = wilson(equal, n)
    where = machine().fingerprint
    return Measurement(
        "agreement", 100 * equal / n, "%", "higher", 100 * low, 100 * high, n, where, engine
    )


def _value(rows: NDArray[np.float64], metric: Metric, engine: str) -> Measurement:
    value = float(metric.value(rows))
    if metric.binary:
        low, high = (100 * end for end in wilson(int((rows[:, 0] > 0.5).sum()), len(rows)))
    else:
        low, high = bootstrap(rows, metric.value)
    return Measurement(
        "metric",
        value,
        metric.unit,
        metric.better,
        min(low, value),
        max(high, value),
        len(rows),
        machine().fingerprint,
        engine,
        {"metric": metric.name},
    )


def _answers(outputs: Arrays, name: str | None) -> NDArray[np.int64] | None:
    """Returns the class given to each sample when the judged output holds class scores."""
    scores = next(iter(outputs.values())) if name is None else outputs[name]
    if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind != "f":
        return None
    chosen: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
    return chosen


def fixed_batch(signature: Signature) -> int | None:
    """Returns the batch size that the model insists on, or None."""
    firsts = (spec.shape[0] for spec in signature.inputs if spec.shape)
    return next((first for first in firsts if isinstance(first, int)), None)


def run_batch(session: Session, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Returns the outputs for any number of samples: in parts where the batch size is fixed."""
    n, fixed = len(next(iter(inputs.values()))), fixed_batch(session.signature)
    if fixed is None or n == fixed:
        return session.run(inputs)
    parts = []
    for start in range(0, n, fixed):
        # The last sample again and again, where there are too few.
        chosen = np.minimum(np.arange(start, start + fixed), n - 1)
        part = session.run({name: array[chosen] for name, array in inputs.items()})
        parts.append({name: array[: n - start] for name, array in part.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
