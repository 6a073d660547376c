# SPDX-License-Identifier: Apache-2.0
"""A Task's loss as tensors with gradients; each named one equals its formula in `data.losses`."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from burnish.core.errors import Misuse, unknown
from burnish.core.task import Loss, Task
from burnish.data.losses import FORMULAS, FunctionLoss, OutputLoss, loss

Objective = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor | None], Tensor]
"""objective(outputs, inputs, labels) -> the batch's mean loss, a scalar."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Returns the mean of −log softmax(logits)[label]: logits (batch, classes, …).

    `smoothing` spreads that share of each label evenly over the classes. Source: Szegedy
    et al. 2016 (arXiv:1512.00567), section 7.
    """
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise Misuse(f"cross_entropy needs an output (batch, classes, …), got {list(logits.shape)}")
    if logits.ndim == 2 and labels.shape == (len(labels), 1):
        labels = labels[:, 0]
    if labels.shape != (len(logits), *logits.shape[2:]):
        raise Misuse(
            f"cross_entropy needs labels {[len(logits), *logits.shape[2:]]}, "
            f"got {list(labels.shape)}"
        )
    classes = labels.long()
    wrong = (classes < 0) | (classes >= logits.shape[1])
    if bool(wrong.any()):
        raise Misuse(
            f"the label {int(classes[wrong][0])} must be a class from 0 to "
            f"{logits.shape[1] - 1}, as the output has {logits.shape[1]} classes"
        )
    return functional.cross_entropy(logits, classes, label_smoothing=smoothing)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of −y log σ(x) − (1 − y) log σ(−x); labels lie in 0 to 1."""
    targets = _alike(logits, labels)
    if bool((targets < 0).any() | (targets > 1).any()):
        raise Misuse("binary_cross_entropy needs labels from 0 to 1")
    return functional.binary_cross_entropy_with_logits(logits, targets)


def squared_error(output: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean squared difference."""
    return functional.mse_loss(output, _alike(output, labels))


def absolute_error(output: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean absolute difference."""
    return functional.l1_loss(output, _alike(output, labels))


def _alike(output: Tensor, labels: Tensor) -> Tensor:
    if labels.numel() != output.numel() or (
        [side for side in labels.shape[1:] if side != 1]
        != [side for side in output.shape[1:] if side != 1]
    ):
        raise Misuse(
            f"output and labels must be alike, got {list(output.shape)} and {list(labels.shape)}"
        )
    return labels.to(output.dtype).reshape(output.shape)


_TENSOR_FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "mse": squared_error,
    "mae": absolute_error,
}


def loss_of(task: Task) -> Loss:
    """Returns the task's loss, or the one that its metric stands for.

    Raises `Misuse` when neither says what to minimize.
    """
    if task.loss is not None:
        return task.loss
    name = task.metric.name if task.metric is not None else ""
    output = getattr(task.metric, "output", None)
    if re.fullmatch(r"top\d+", name):
        return loss("cross_entropy", output)
    if name in ("mse", "mae"):
        return loss(name, output)
    raise Misuse(
        f"the task {task.name!r} has no loss to train with, and its metric {name or 'none'!r} "
        f"names none: add loss = one of {sorted(FORMULAS)}, or a function"
    )


def task_objective(
    given: Loss, smoothing: float = 0.0, read: Callable[[str, Tensor], Tensor] | None = None
) -> Objective:
    """Returns the objective that minimizes a task's loss.

    `read(name, output)` turns an output into logits, where it is not. A function of the
    user's is called as function(outputs, labels) with tensors, and gives one number a
    sample, or one for all, with gradients.
    """
    if isinstance(given, OutputLoss) and given.name in FORMULAS:
        return _named(given, smoothing, read or (lambda name, output: output))
    function = given.function if isinstance(given, FunctionLoss) else given

    def objective(
        outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        value: Any = function(outputs, _need(labels, given.name))
        if not isinstance(value, Tensor) or not (value.requires_grad or not _grad(outputs)):
            raise Misuse(
                f"the loss {given.name!r} must give a tensor with gradients when it trains: its "
                f"arguments are torch tensors then; got {type(value).__name__}"
            )
        return value.float().mean()

    return objective


def _grad(outputs: Mapping[str, Tensor]) -> bool:
    return torch.is_grad_enabled() and any(one.requires_grad for one in outputs.values())


def _named(given: OutputLoss, smoothing: float, read: Callable[[str, Tensor], Tensor]) -> Objective:
    def objective(
        outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        name = given.output or next(iter(outputs))
        if name not in outputs:
            raise unknown("output", name, outputs)
        output, target = outputs[name].float(), _need(labels, given.name)
        if given.name == "cross_entropy":
            return cross_entropy(read(name, output), target, smoothing)
        return _TENSOR_FORMULAS[given.name](output, target)

    return objective


def _need(labels: Tensor | None, name: str) -> Tensor:
    if labels is None:
        raise Misuse(f"the loss {name!r} needs labels, and the training data has none")
    return labels


def loss_key(given: Loss) -> str:
    """Returns what a loss is, for caching: its name, its output and its source."""
    function = given.function if isinstance(given, FunctionLoss) else given
    if isinstance(given, OutputLoss):
        return f"{given.name}:{given.output}"
    try:
        source = inspect.getsource(function if callable(function) else type(function))
    except (OSError, TypeError):
        source = repr(given.name)
    return f"{given.name}:{hashlib.sha256(source.encode()).hexdigest()[:16]}"
