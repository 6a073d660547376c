# SPDX-License-Identifier: Apache-2.0
"""Lifts a model, trains it and lowers it again: what all techniques that train share.

With a store, a finished step is read back, and one that was killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.core.model import Model, write_whole
from burnish.core.program import program
from burnish.core.task import Samples, Task
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.train.training import Training
from burnish.techniques.train.untie import untied

if TYPE_CHECKING:
    from collections.abc import Callable

    from burnish.core.task import Metric
    from burnish.graph.lift.module import LiftedModule
    from burnish.techniques.train.compute import Teacher
    from burnish.techniques.train.task_losses import Objective


CHECKPOINT_S = 60.0
"""The most seconds of training that a kill costs, when there is a store."""


@dataclass(frozen=True)
class Lesson:
    """What a module is trained with, besides the settings."""

    objective: Objective
    teacher: Teacher | None = None
    keep: tuple[str, ...] = ()
    evaluate: Metric | None = None
    applied: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class TrainingTechnique(Training, Technique):
    """A technique whose fields are those of `Training` and its own."""

    def with_batch(self, batch_size: int) -> Training:
        """Returns the settings with another batch size."""
        return replace(self, batch_size=batch_size)


def need_torch(technique: str) -> None:
    """Raises `Missing` when PyTorch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise Missing(technique, "torch", "train") from error


def training_samples(task: Task) -> tuple[Samples, tuple[Skipped, ...]]:
    """Returns the training data, or the calibration data where a task has none."""
    if task.training is not None:
        return task.training, ()
    if task.calibration is None:
        raise Misuse(
            f"the task {task.name!r} has neither training nor calibration data: add a "
            "[training] table to it (labels are not needed to distil)"
        )
    note = Skipped("training data", "the task has none: trained on its calibration data")
    return task.calibration, (note,)


def trained(
    technique: TrainingTechnique,
    model: Model,
    context: Context,
    samples: Samples,
    others: Sequence[str],
    prepare: Callable[[LiftedModule], Lesson],
) -> Outcome:
    """Returns the model trained as `prepare(module)` says.

    `others`: digests of what the result depends on besides the technique, the model, the
    samples and the seed, such as the teachers.
    """
    need_torch(technique.name)

    def train(checkpoint: Path | None) -> Outcome:
        return _train(technique, model, context, samples, prepare, checkpoint)

    return kept(technique, model, context, samples, others, train)


def kept(
    technique: Technique,
    model: Model,
    context: Context,
    samples: Samples,
    others: Sequence[str],
    train: Callable[[Path | None], Outcome],
) -> Outcome:
    """Returns what `train(checkpoint)` gives; with a store, it is read back when it is there.

    `others` is as in `trained`. The checkpoint is None without a store.
    """
    if context.store is None:
        return train(None)
    parts = [
        program(),
        version("torch"),
        technique.to_dict(),
        model.digest,
        model.lineage.to_json(),
        samples.fingerprint(),
        context.seed,
        *others,
    ]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    # Beside the entry, not in it: the entry is only there when the step is finished.
    unfinished = context.store.root / "training" / key

    def make(folder: Path) -> None:
        checkpoint = unfinished / "checkpoint.pt"
        outcome = train(checkpoint)
        outcome.model.save(folder / "model.onnx")
        words = {
            "applied": outcome.applied,
            "skipped": [(one.place, one.reason) for one in outcome.skipped],
        }
        write_whole(folder / "outcome.json", json.dumps(words).encode())

    folder = context.store.folder("trained", key, make)
    shutil.rmtree(unfinished, ignore_errors=True)
    words = json.loads((folder / "outcome.json").read_bytes())
    return Outcome(
        Model.load(folder / "model.onnx"),
        tuple(words["applied"]),
        tuple(Skipped(place, reason) for place, reason in words["skipped"]),
    )


def _train(
    technique: TrainingTechnique,
    model: Model,
    context: Context,
    samples: Samples,
    prepare: Callable[[LiftedModule], Lesson],
    checkpoint: Path | None,
) -> Outcome:
    from burnish.graph.lift.lower import lower
    from burnish.graph.lift.module import lift
    from burnish.techniques.train.loop import fit

    apart = untied(model)
    module = lift(apart)
    skipped = [*_integer_weights(model)]
    learned = [(name, one) for name, one in module.named_initializers() if _is_learned(one)]
    half = [name for name, one in learned if one.element_size() < 4]
    if half:
        raise Unsupported(
            f"{technique.name} cannot train weights in half precision ({half[0]} and "
            f"{len(half) - 1} more): train the float32 model, then convert it"
        )
    if not learned:
        skipped.append(Skipped("training", "the model has no float weights to train"))
        return Outcome(model.derive(model.edit(), technique), (), tuple(skipped))
    settings: Training = technique
    fixed = fixed_batch(model.signature)
    if fixed is not None and fixed != technique.batch_size:
        settings = technique.with_batch(fixed)
        skipped.append(
            Skipped(
                f"batch_size {technique.batch_size}", f"the model takes batches of {fixed} only"
            )
        )
    lesson = prepare(module)
    history = fit(
        module,
        samples,
        lesson.objective,
        settings,
        context,
        teacher=lesson.teacher,
        keep=lesson.keep,
        evaluate=lesson.evaluate,
        checkpoint=checkpoint,
        checkpoint_s=CHECKPOINT_S,
    )
    graph = lower(module, apart)
    return Outcome(
        model.derive(graph, technique),
        (*lesson.applied, *history.words()),
        (*skipped, *lesson.skipped, *history.notes),
    )


def _is_learned(tensor: Any) -> bool:
    return bool(tensor.requires_grad)


def _integer_weights(model: Model) -> list[Skipped]:
    """Returns a note when weights are held as integers, which have no gradients."""
    held = [
        node.name
        for node in model.edit().graph
        if node.op_type == "DequantizeLinear"
        and node.inputs[0] is not None
        and node.inputs[0].const_value is not None
        and node.inputs[0].const_value.size > 1
    ]
    if not held:
        return []
    return [
        Skipped(
            f"{len(held)} quantized weights ({held[0]} …)",
            "they are stored as integers and stay as they are: only what is float is trained",
        )
    ]
