# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are: logits, probabilities, or other numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from burnish.core.model import Model
from burnish.core.task import Task

_CLASS_METRICS = re.compile(r"top\d+|f1|f1_binary|auc|mean_iou")


def probabilities(model: Model) -> frozenset[str]:
    """Returns the outputs that are a Softmax's, over the classes (axis 1, or the last of 2)."""
    found = set()
    for value in model.edit().graph.outputs:
        node = value.producer()
        if node is None or node.op_type != "Softmax" or value.shape is None:
            continue
        axis = node.attributes.get_int("axis", -1)
        if axis % len(value.shape) == 1:
            found.add(str(value.name))
    return frozenset(found)


def classifying(model: Model, task: Task | None) -> frozenset[str]:
    """Returns the outputs that score classes, (batch, classes, …), as far as one can tell.

    That is what a Softmax gives, and what a task's classifying loss or metric judges.
    """
    found = set(probabilities(model))
    if task is not None:
        loss, metric = task.loss, task.metric
        by_loss = loss is not None and loss.name == "cross_entropy"
        by_metric = metric is not None and _CLASS_METRICS.fullmatch(metric.name) is not None
        if by_loss or (loss is None and (by_metric or (metric is None and task.classes))):
            judge = loss if by_loss else metric
            found.add(getattr(judge, "output", None) or model.signature.outputs[0].name)
    shapes = {spec.name: spec.shape for spec in model.signature.outputs}
    return frozenset(
        name for name in found if name in shapes and len(shapes[name]) > 1 and shapes[name][1] != 1
    )


def logits_of(outputs: Collection[str]) -> Callable[[str, Any], Any]:
    """Returns read(name, tensor): the logarithm of the named outputs, which are probabilities."""

    def read(name: str, tensor: Any) -> Any:
        return tensor.clamp_min(1e-30).log() if name in outputs else tensor

    return read
