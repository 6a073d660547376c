# SPDX-License-Identifier: Apache-2.0
"""The distance of a student's outputs from its teacher's, as one objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from burnish.core.errors import Misuse
from burnish.techniques.distill import losses
from burnish.techniques.train.answers import logits_of
from burnish.techniques.train.compute import TEACHER

if TYPE_CHECKING:
    from burnish.techniques.distill.distill import Distill
    from burnish.techniques.distill.hints import Hints
    from burnish.techniques.train.task_losses import Objective


class Distance(nn.Module):  # type: ignore[misc]
    """objective(outputs, inputs, labels): soft, hard and hints, weighted; a scalar.

    `matched`: the outputs to match, and whether each scores classes. `read(name, output)`
    gives the student's logits. Without `hard` the soft part has all the weight.
    """

    def __init__(
        self,
        settings: Distill,
        matched: Mapping[str, bool],
        read: Callable[[str, Tensor], Tensor],
        hard: Objective | None,
        hints: Hints | None,
    ) -> None:
        super().__init__()
        self._settings, self._matched, self._read, self._hard = settings, matched, read, hard
        self.hints = hints
        self.soft_weight = 1.0 if hard is None else settings.soft_weight

    def forward(
        self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Returns the batch's loss."""
        soft = sum(
            self._soft(self._read(name, outputs[name]), inputs[TEACHER + name], labels)
            if scores
            else losses.squared(outputs[name], _alike(name, outputs[name], inputs[TEACHER + name]))
            for name, scores in self._matched.items()
        )
        total: Tensor = self.soft_weight * soft
        if self._hard is not None:
            total = total + (1 - self.soft_weight) * self._hard(outputs, inputs, labels)
        if self.hints is not None:
            total = total + self._settings.hint_weight * self.hints(outputs, inputs)
        return total

    def _soft(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        s = self._settings
        _alike("logits", student, teacher)
        z, t = losses.rows_of(student), losses.rows_of(teacher)
        if s.loss == "standardized":
            return losses.standardized(z, t, s.temperature)
        if s.loss == "dist":
            return losses.correlation(z, t, s.temperature)
        if s.loss == "mse":
            return losses.squared(z, t)
        if s.loss == "dkd":
            # Without labels, the target is the class that the teacher would choose.
            usable = labels is not None and labels.numel() == len(t) and self._hard is not None
            classes = labels.reshape(-1).long() if usable and labels is not None else t.argmax(1)
            return losses.decoupled(z, t, classes, s.temperature, s.target_weight, s.others_weight)
        return losses.soft_cross_entropy(z, t, s.temperature)


def join(
    classes: frozenset[str], soft: Sequence[frozenset[str]]
) -> Callable[[str, Sequence[Tensor]], Tensor]:
    """Returns join(name, tensors): the teachers' answers as one, logits where classes are scored.

    `soft`: for each teacher, its outputs that are probabilities.
    """

    def joined(name: str, said: Sequence[Tensor]) -> Tensor:
        shapes = {tuple(one.shape) for one in said}
        if len(shapes) > 1:
            raise Misuse(
                f"several teachers' {name} are averaged, and differ in shape: {sorted(shapes)}; "
                "an output or a hint takes teachers that agree"
            )
        if name in classes:
            return losses.ensemble(
                [logits_of(own)(name, one) for own, one in zip(soft, said, strict=True)]
            )
        return said[0] if len(said) == 1 else torch.stack(list(said)).mean(dim=0)

    return joined


def _alike(name: str, student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape:
        raise Misuse(
            f"the student's {name} is {list(student.shape)} and its teacher's "
            f"{list(teacher.shape)}: they must be alike"
        )
    return teacher
