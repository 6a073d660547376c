# SPDX-License-Identifier: Apache-2.0
"""How fast training goes on this machine, and how much of it a budget affords."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from burnish.core.model import Model
from burnish.core.task import Samples
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.measuring.machine import machine
from burnish.optimizing.bench import Bench
from burnish.techniques.distill.distill import Distill
from burnish.techniques.quantize.aware import QuantizeAware
from burnish.techniques.train.trained import training_samples
from burnish.techniques.train.training import Precision

Lesson = Distill | QuantizeAware
"""A technique that trains, whose length is still open."""

_BF16 = frozenset({"avx512_bf16", "amx_bf16", "neon_bf16"})
_LEAST_BATCHES = 30  # fewer teach nothing
_MOST_EPOCHS = 300
_SIDE = 16
_TIMED_BATCHES = 4
_TIMED_S = 0.5  # what more epochs must take more, or a hiccup would tell the pace
_LONGER = 4  # times the epochs, as long as they do not


@dataclass(frozen=True)
class Pace:
    """A lesson in the precision that is fastest here, and the seconds that a batch takes."""

    lesson: Lesson
    batch_s: float

    def afford(self, seconds: float, samples: Samples) -> Lesson | None:
        """Returns the lesson made as long as the seconds allow; None when that is too short."""
        batches = int(seconds / self.batch_s)
        size = self.lesson.batch_size
        steps = math.ceil(len(samples) / size)
        if batches >= steps:
            return replace(self.lesson, epochs=min(batches // steps, _MOST_EPOCHS))
        if batches >= _LEAST_BATCHES:
            return replace(self.lesson, epochs=1, samples=batches * size)
        return None

    @property
    def least_s(self) -> float:
        """The seconds of the shortest lesson."""
        return _LEAST_BATCHES * self.batch_s


def distillation(model: Model) -> Distill:
    """Returns how to recover what pruning lost in this model, without labels.

    Networks with BatchNormalization learn by momentum, as their makers mostly taught them;
    others by AdamW, whose steps do not grow with the gradient. Images are mirrored and
    shifted: the teacher answers the image that the model sees, so that nothing is mislabelled.
    """
    augment = ("flip", "crop") if _takes_images(model) else ()
    if any(node.op_type == "BatchNormalization" for node in model.edit().graph):
        return Distill(optimizer="sgd", learning_rate=0.05, weight_decay=5e-4, augment=augment)
    return Distill(learning_rate=5e-4, augment=augment)


def pace(bench: Bench, model: Model, lesson: Lesson) -> Pace:
    """Returns the pace at which the model learns the lesson, timed once and then remembered.

    Where the processor multiplies bfloat16, distillation is timed in that as well, and the
    faster is taken.
    """
    precisions: list[Precision] = [lesson.precision]
    if isinstance(lesson, Distill) and _BF16 & set(machine().instruction_sets):
        precisions.append("bfloat16")
    paces = []
    for precision in precisions:
        one = replace(lesson, precision=precision)

        def measure(one: Lesson = one) -> float:
            bench.progress(f"timing how fast {one.name} goes", 0, 0)
            return _batch_s(bench, model, one)

        question = ["seconds for a batch", model.digest, one.to_dict()]
        paces.append(Pace(one, float(bench.remember(question, measure))))
    return min(paces, key=lambda one: one.batch_s)


def _batch_s(bench: Bench, model: Model, lesson: Lesson) -> float:
    """Returns the seconds of one batch: what more epochs take more, over their batches.

    So many more that it shows: an epoch of a small network is shorter than many a pause.
    """
    task = bench.context.need_task("training")
    samples, _ = training_samples(task)
    size = lesson.batch_size
    rows = [batch.inputs for batch in samples.batches(size, _TIMED_BATCHES * size)]
    few = ArraySamples({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
    fewer = replace(task, training=few, calibration=few)
    context = Context(fewer, None, bench.seed, original=bench.original)

    def spent(epochs: int) -> float:
        began = time.monotonic()
        replace(lesson, epochs=epochs).apply(model, context)
        return time.monotonic() - began

    spent(1)  # the first loads PyTorch
    once = spent(1)
    epochs, more = 1, 0.0
    while more < _TIMED_S and epochs < _MOST_EPOCHS:
        epochs *= _LONGER
        more = spent(epochs) - once
    return max(more / (math.ceil(len(few) / size) * (epochs - 1)), 1e-6)


def _takes_images(model: Model) -> bool:
    """Returns whether the one input is images (batch, channels, height, width) worth shifting."""
    if len(model.signature.inputs) != 1:
        return False
    shape = model.signature.inputs[0].shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        return False
    return all(isinstance(side, int) and side >= _SIDE for side in shape[2:])
