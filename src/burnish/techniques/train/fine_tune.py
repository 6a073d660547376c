# SPDX-License-Identifier: Apache-2.0
"""Trains a model further with its task's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context, Outcome, Skipped
from burnish.techniques.train.answers import logits_of, probabilities
from burnish.techniques.train.trained import Lesson, TrainingTechnique, need_torch, trained

if TYPE_CHECKING:
    from burnish.graph.lift.module import LiftedModule


@dataclass(frozen=True)
class FineTune(TrainingTechnique):
    """Trains the weights with the task's loss on its training data, which needs labels.

    The loss is the task's, or the one its metric stands for: cross-entropy for top-k, the
    error itself for `mse` and `mae`. An output that a Softmax gives is read as
    probabilities. The fields are those of all techniques that train:

    `epochs`, `batch_size`, `samples` (the most in an epoch, 0 for all).
    `optimizer`: "adamw" or "sgd" (Nesterov's); biases and norms have no `weight_decay`;
    `momentum` is AdamW's first beta. `schedule`: "one_cycle", "cosine" or "constant", rising
    to `learning_rate` in the first `warmup_ratio` of the steps. `clip_norm`: the gradient's, 0
    for any. `mixup`: its Beta parameter. `augment`: of images, "flip" and "crop" (shifted by
    up to `crop_padding` pixels). `label_smoothing`: of cross-entropy. `ema_decay`: of
    averaged weights. `precision`: "float32", "bfloat16", or "auto", which is bfloat16 on a
    GPU. `device`: "cpu", "cuda" or "auto". `channels_last`: the order of images in memory,
    for convolutions. `compiled`: PyTorch compiles the network first, which takes up to a
    minute and a C++ compiler and makes long training faster. `memory_bytes`: for decoded
    samples; more are read anew in each epoch. `hold_out_ratio` of the training data is
    judged after each epoch and never trained on: the best weights are kept, and training
    ends after `patience` epochs without a better (0: never) or once the metric reaches
    `stop_at`. `hold_zeros`: weights that are zero stay zero. What is 0 is off.
    """

    name: ClassVar[str] = "fine_tune"

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` without training data with labels."""
        task = context.need_task(self.name)
        first = next(iter(task.split("training").batches(1, 1)))
        if first.labels is None:
            raise Misuse(
                f"{self.name} needs labels, and the training data of the task {task.name!r} has "
                "none: distill needs none"
            )
        need_torch(self.name)

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the trained model, and its loss before and after."""
        from burnish.techniques.train.task_losses import loss_key, loss_of, task_objective

        task = context.need_task(self.name)
        loss = loss_of(task)

        def prepare(module: LiftedModule) -> Lesson:
            soft = probabilities(model)
            notes = []
            if loss.name != "cross_entropy" and self.label_smoothing:
                notes.append(Skipped("label_smoothing", f"it has no meaning for {loss.name}"))
            return Lesson(
                task_objective(loss, self.label_smoothing, logits_of(soft)),
                evaluate=task.metric,
                applied=(f"fine-tuned with {loss.name}",),
                skipped=tuple(notes),
            )

        others = [loss_key(loss), task.metric.name if task.metric is not None else ""]
        return trained(self, model, context, task.split("training"), others, prepare)
