# SPDX-License-Identifier: Apache-2.0
"""Trains a model to give the answers of its teacher, without labels or with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model
from burnish.core.task import Samples, Task
from burnish.core.technique import Context, Outcome, Skipped
from burnish.graph.canonical import infer_types
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.quantize.observe import with_outputs
from burnish.techniques.train.answers import classifying, logits_of, probabilities
from burnish.techniques.train.trained import (
    Lesson,
    TrainingTechnique,
    need_torch,
    trained,
    training_samples,
)
from burnish.techniques.train.training import number

if TYPE_CHECKING:
    from torch import Tensor

    from burnish.core.task import Loss
    from burnish.graph.lift.module import LiftedModule

Kind = Literal["auto", "kd", "standardized", "dkd", "dist", "mse"]
HintKind = Literal["l1", "mse", "cosine"]


@dataclass(frozen=True)
class Distill(TrainingTechnique):
    """Trains the weights until the model answers as its teacher does.

    The teacher is the model that the recipe began with, or the ONNX files in `teachers`,
    whose probabilities (other outputs: values) are averaged. No labels are needed: by
    default the loss is the distance to the teacher alone. With `soft_weight` below 1 the
    rest of the weight is the task's own loss, so that `temperature=3, soft_weight=0.9` is
    0.9 soft and 0.1 hard at T = 3. Without training data it takes the calibration data.

    `loss`, of outputs that score classes: "kd" (Hinton et al. 2015), "standardized" (Sun et
    al. 2024), "dkd" (Zhao et al. 2022, with the weights `target_weight` and
    `others_weight`), "dist" (Huang et al. 2022) or "mse" of the logits; "auto" is "kd".
    Other float outputs take the mean squared difference. `outputs`: those to match, all
    float ones when empty.
    `hints`: pairs [student's, teacher's] of names of intermediate values to match as well,
    at `hint_weight`, by `hint_loss` "l1", "mse" or "cosine"; where widths differ a linear
    map is learned and thrown away.
    `teacher_engine`: what runs the teacher, an engine's name, "lifted" (PyTorch), or
    "fastest" by a short timing; "" is lifted on a GPU and ONNX Runtime else, so that the
    result does not hang on a timing. Its answers are kept in memory when samples do not
    change from epoch to epoch. All other fields are those of `fine_tune`.
    """

    teachers: tuple[str, ...] = ()
    loss: Kind = "auto"
    temperature: float = 3.0
    soft_weight: float = 1.0
    target_weight: float = 1.0
    others_weight: float = 8.0
    outputs: tuple[str, ...] = ()
    hints: tuple[tuple[str, str], ...] = ()
    hint_weight: float = 1.0
    hint_loss: HintKind = "l1"
    teacher_engine: str = ""
    name: ClassVar[str] = "distill"

    def faults(self) -> list[str]:
        """Returns what is wrong with each field."""
        faults = super().faults()
        for name, kind in (("loss", Kind), ("hint_loss", HintKind)):
            if getattr(self, name) not in get_args(kind):
                faults.append(str(unknown(name, str(getattr(self, name)), get_args(kind))))
        for name in ("target_weight", "others_weight", "hint_weight"):
            if not number(getattr(self, name), 0, math.inf):
                faults.append(f"{name} must be a finite number from 0, got {getattr(self, name)!r}")
        if not number(self.temperature, 1e-3, math.inf):
            faults.append(f"temperature must be a number above 0, got {self.temperature!r}")
        if not number(self.soft_weight, 0, 1) and self.soft_weight != 1:
            faults.append(f"soft_weight must be a number from 0 to 1, got {self.soft_weight!r}")
        for name in ("teachers", "outputs"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
                faults.append(f"{name} must be a list of texts, got {value!r}")
        if not isinstance(self.hints, tuple) or not all(
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
            for pair in self.hints
        ):
            faults.append(f"hints must be pairs of names, got {self.hints!r}")
        if not isinstance(self.teacher_engine, str):
            faults.append(f"teacher_engine must be a name, got {self.teacher_engine!r}")
        return faults

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` without data or a teacher, or for an output that there is not."""
        training_samples(context.need_task(self.name))
        need_torch(self.name)
        known = {spec.name for spec in model.signature.outputs}
        for name in self.outputs:
            if name not in known:
                raise unknown("output", name, known)
        if not self._matched(model):
            raise Misuse(f"{self.name} needs an output of floats, got {model.signature}")
        if not self.teachers and context.original is None:
            raise Misuse(
                f"{self.name} has no teacher: name ONNX files in teachers, or use it in a recipe, "
                "whose first model teaches"
            )

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the trained model, what taught it, and its loss before and after."""
        from burnish.techniques.train.task_losses import loss_key, loss_of

        task = context.need_task(self.name)
        samples, notes = training_samples(task)
        teachers = self._teachers(context)
        hard: Loss | None = None
        if self.soft_weight < 1:
            if next(iter(samples.batches(1, 1))).labels is None:
                reason = "the training data has none: the teacher's answers have all the weight"
                notes = (*notes, Skipped("labels", reason))
            else:
                hard = loss_of(task)
        itself = all(teacher.digest == model.digest for teacher in teachers)
        if itself and hard is None:
            reason = "the teacher is the model itself: there is nothing to learn"
            return Outcome(
                model.derive(model.edit(), self), (), (*notes, Skipped("training", reason))
            )
        metric = task.metric.name if task.metric is not None else ""
        others = [*(teacher.digest for teacher in teachers), loss_key(hard) if hard else "", metric]
        # Which outputs score classes is the task's to say.
        others.append(" ".join(sorted(classifying(model, task))))

        def prepare(module: LiftedModule) -> Lesson:
            lesson = self._lesson(module, model, teachers, hard, samples, task, context)
            return replace(lesson, skipped=notes)

        return trained(self, model, context, samples, others, prepare)

    def _matched(self, model: Model) -> list[str]:
        """Returns the outputs that are matched."""
        return [
            spec.name
            for spec in model.signature.outputs
            if (not self.outputs or spec.name in self.outputs) and np.dtype(spec.dtype).kind == "f"
        ]

    def _teachers(self, context: Context) -> list[Model]:
        if self.teachers:
            models = [Model.load(path) for path in self.teachers]
        else:
            assert context.original is not None  # `requires` has seen to it
            models = [context.original]
        if not self.hints:
            return models
        return [_saying(model, [theirs for _, theirs in self.hints]) for model in models]

    def _lesson(
        self,
        module: LiftedModule,
        model: Model,
        teachers: Sequence[Model],
        hard: Loss | None,
        samples: Samples,
        task: Task,
        context: Context,
    ) -> Lesson:
        import torch

        from burnish.techniques.distill.hints import Hints
        from burnish.techniques.distill.objective import Distance, join
        from burnish.techniques.distill.teacher import teaching
        from burnish.techniques.train.compute import device_of
        from burnish.techniques.train.task_losses import task_objective

        device = device_of(self)
        matched, classes = self._matched(model), classifying(model, task)
        size = fixed_batch(model.signature) or self.batch_size
        example = dict(next(iter(samples.batches(size, size))).inputs)
        given = {
            name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
            for name, array in example.items()
        }
        soft = [probabilities(teacher) for teacher in teachers]
        teacher, engine = teaching(
            teachers,
            model.signature,
            self.teacher_engine,
            device,
            join(classes, soft),
            example,
            context,
        )
        said: Mapping[str, Tensor] = teacher({name: one.to(device) for name, one in given.items()})
        for name in matched:
            if name not in said:
                raise unknown("output of the teacher", name, said)
        hints = None
        keep = tuple(dict.fromkeys(ours for ours, _ in self.hints))
        if self.hints:
            with torch.no_grad():
                mine = module(given, keep)
            hints = Hints(self.hints, self.hint_loss, mine, said, context.seed)
        read = logits_of(probabilities(model))
        objective = Distance(
            self,
            {name: name in classes for name in matched},
            read,
            task_objective(hard, self.label_smoothing, read) if hard is not None else None,
            hints,
        )
        kind = "kd" if self.loss == "auto" else self.loss
        ways = [f"{name} by {kind if name in classes else 'mse'}" for name in matched]
        applied = [
            f"distilled {', '.join(ways)}"
            + (f" at T = {self.temperature:g}" if classes & set(matched) else "")
            + f" from {_names(self.teachers)} on {engine}",
            f"{objective.soft_weight:g} soft"
            + (f" and {1 - self.soft_weight:g} hard ({hard.name})" if hard else ", without labels"),
        ]
        if self.hints:
            applied.append(f"{len(self.hints)} hints by {self.hint_loss}")
        return Lesson(objective, teacher, keep, task.metric, tuple(applied))


def _saying(teacher: Model, wanted: Sequence[str]) -> Model:
    """Returns the teacher with these intermediate values as outputs too."""
    graph = teacher.edit()
    known = {str(value.name) for node in graph.graph for value in node.outputs}
    for name in wanted:
        if name not in known:
            raise unknown("value of the teacher, in hints", name, known)
    infer_types(graph, "the teacher")
    names = [*(spec.name for spec in teacher.signature.outputs), *wanted]
    return with_outputs(Model(graph), list(dict.fromkeys(names)))


def _names(teachers: Sequence[str]) -> str:
    return ", ".join(teachers) if teachers else "the original model"
