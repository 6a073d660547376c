# SPDX-License-Identifier: Apache-2.0
"""Without labels a model is judged by how often it answers as the original does."""

from __future__ import annotations

import numpy as np
import small_models

from burnish.core.candidate import Setting
from burnish.core.task import Task
from burnish.data.metrics import TopK, metric
from burnish.data.samples import ArraySamples
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.accuracy import evaluate
from burnish.measuring.own_answers import answered, needs_answers

MODEL = small_models.convolutional()
(SPEC,) = MODEL.signature.inputs
RNG = np.random.default_rng(0)


def unlabelled(n):
    shape = [side if isinstance(side, int) else 8 for side in SPEC.shape[1:]]
    apart = RNG.normal(0, 20, (n, shape[0], 1, 1))  # so that their classes differ
    return ArraySamples({SPEC.name: (RNG.normal(size=(n, *shape)) + apart).astype(np.float32)})


def test_the_model_itself_has_every_answer_right():
    samples = unlabelled(70)
    with OnnxRuntime().open(MODEL, Setting()) as session:
        known = answered(session, samples, TopK(1))
        task = Task("own", validation=known, metric=TopK(1))
        assert evaluate(session, task).value.value == 100
    assert len(known) == 70
    labels = np.concatenate([batch.labels for batch in known.batches(9)])
    np.testing.assert_array_equal(labels, known.answers)
    assert len(set(known.answers)) > 1
    assert [len(batch) for batch in known.batches(32, 40)] == [32, 8]


def test_other_answers_are_other_labels():
    samples = unlabelled(8)
    with OnnxRuntime().open(MODEL, Setting()) as session:
        known = answered(session, samples, TopK(1))
    other = type(known)(samples, (known.answers + 1) % 2)
    assert known.fingerprint() != other.fingerprint()
    assert known.fingerprint() == type(known)(samples, known.answers).fingerprint()


def test_only_a_classifier_without_labels_needs_them():
    without = unlabelled(4)
    given = ArraySamples(without.inputs, np.zeros(4, np.int64))
    assert needs_answers(without, TopK(1))
    assert not needs_answers(given, TopK(1))
    assert not needs_answers(without, metric("mse"))
