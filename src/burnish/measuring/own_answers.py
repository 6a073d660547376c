# SPDX-License-Identifier: Apache-2.0
"""Judging without labels: how often a model gives the answer that the original gives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnish.core.progress import Progress, silent
from burnish.core.task import Batch, Metric, Samples
from burnish.data.metrics import TopK
from burnish.data.outputs import chosen_output
from burnish.engines.engine import Session
from burnish.measuring.accuracy import fixed_batch, run_batch


@dataclass(frozen=True)
class AnsweredSamples:
    """Samples whose labels are a model's own answers, one class number for each."""

    samples: Samples
    answers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.answers)

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields batches of the samples, with the answers as labels."""
        done = 0
        for batch in self.samples.batches(batch_size, limit):
            yield Batch(batch.inputs, self.answers[done : done + len(batch)])
            done += len(batch)

    def fingerprint(self) -> str:
        """Returns a digest of the samples and the answers."""
        digest = hashlib.sha256(self.samples.fingerprint().encode())
        digest.update(self.answers.tobytes())
        return digest.hexdigest()[:32]


def needs_answers(samples: Samples, metric: Metric) -> bool:
    """Returns whether the samples have no labels, and the metric can do with a model's answers."""
    if not isinstance(metric, TopK):
        return False
    first = next(iter(samples.batches(1, 1)), None)
    return first is not None and first.labels is None


def answered(
    session: Session, samples: Samples, metric: Metric, progress: Progress = silent
) -> AnsweredSamples:
    """Returns the samples with the session's highest-scored classes as labels.

    Judged by `metric` the session's own model then has 100 %, and another model's drop is
    the share of samples that it answers otherwise, in points.
    """
    size, total = fixed_batch(session.signature) or 32, len(samples)
    answers: list[NDArray[np.int64]] = []
    done = 0
    for batch in samples.batches(size):
        outputs = run_batch(session, batch.inputs)
        answers.append(
            chosen_output(outputs, getattr(metric, "output", None), len(batch)).argmax(axis=1)
        )
        done += len(batch)
        progress("asking the original", done, total)
    return AnsweredSamples(samples, np.concatenate(answers))
