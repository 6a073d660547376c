# SPDX-License-Identifier: Apache-2.0
"""How fast training goes, told from few and disturbed batches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from burnish.data.samples import ArraySamples
from burnish.optimizing import pace


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    now_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Lesson:
    """Takes half a second to begin, `batch_s` for a batch, and at times a pause."""

    clock: Clock
    batch_s: float
    pauses: list[float]
    batch_size: int = 8
    epochs: int = 1
    ran: list[int] = field(default_factory=list)

    def apply(self, model, context):
        batches = self.epochs * len(context.task.training) // self.batch_size
        self.ran.append(self.epochs)
        self.clock.now_s += 0.5 + batches * self.batch_s + self.pauses.pop(0)


@pytest.mark.parametrize("batch_s", [1e-5, 1e-3, 0.02, 2.0])
@pytest.mark.parametrize("pauses", [[0, 0, 0.05], [0, 0.05, 0], [3, 0, 0]])
def test_a_pause_does_not_tell_the_pace(monkeypatch, batch_s, pauses):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(pace, "replace", lambda one, **new: _replaced(one, new))
    monkeypatch.setattr(pace, "training_samples", lambda task: (task.training, False))
    task = SimpleNamespace(training=ArraySamples({"x": np.zeros((32, 1), np.float32)}))
    bench = SimpleNamespace(
        context=SimpleNamespace(need_task=lambda what: task), seed=0, original=None
    )
    lesson = Lesson(clock, batch_s, [*pauses, *[0.0] * 9])
    found = pace._batch_s(bench, None, lesson)
    assert found == pytest.approx(batch_s, rel=0.15, abs=5e-5)
    assert lesson.ran[:2] == [1, 1]
    assert clock.now_s < 12 + 30 * batch_s  # a few seconds, whatever the network


def _replaced(one, new):
    if isinstance(one, SimpleNamespace):
        return SimpleNamespace(**{**vars(one), **new})
    return replace(one, **new)
