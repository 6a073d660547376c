# SPDX-License-Identifier: Apache-2.0
"""How the loss would change without a channel, to first order, from a few batches' gradients.

To cut a channel is to zero the weights that read it (`graph.channels.zero`). So the change
is, to first order, −Σ g w over these weights: what Molchanov et al. 2019 (arXiv:1906.10771,
equation 9) get from a gate on the channel. Its square, averaged over batches, is the score.

Without labels the gradients are those of the distance to the original's answers. They
vanish where the model *is* the original, so targets are drawn from its answers: classes
from its probabilities, and a random sign for any other number. The squares' mean is then
the second-order change of the divergence, or of half the squared error (the diagonal of the
Gauss-Newton matrix along the channel's gate). Source: Martens 2020 (arXiv:1412.1193),
sections 8 and 9; Bekas et al. 2007 for the signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context
from burnish.graph.channels import ChannelGroup, channel_groups
from burnish.graph.lift.module import LiftedModule, lift
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.prune.importance import Scores, distinct, summed
from burnish.techniques.train.answers import classifying, logits_of, probabilities
from burnish.techniques.train.task_losses import Objective, loss_of, task_objective
from burnish.techniques.train.trained import training_samples
from burnish.techniques.train.untie import untied

_BATCH = 32
_BATCH_NUMBERS = 1 << 20  # among the inputs: larger images come in smaller batches


def taylor(model: Model, groups: Sequence[ChannelGroup], context: Context, samples: int) -> Scores:
    """Returns the mean squared first-order change of the loss, over batches of 32.

    Large images come in smaller batches. The loss is the task's where its samples have
    labels. A group none of whose weights is read with a gradient is scored by all that it
    has, or left out.
    """
    task = context.need_task("importance by taylor")
    data, _ = training_samples(task)
    # Constants that are shared because they were equal have gradients of their own.
    apart = untied(model)
    module = lift(apart)
    alike = {group.name: group for group in channel_groups(apart)}
    groups = [alike[group.name] for group in groups]
    fixed = fixed_batch(model.signature)
    first = next(iter(data.batches(1, 1))).inputs
    numbers = max(1, sum(array.size for array in first.values()))
    size = fixed or max(1, min(_BATCH, _BATCH_NUMBERS // numbers))
    parts = {group.name: _parts(group, module) for group in groups}
    parts = {name: own for name, own in parts.items() if own}
    sums = {name: np.zeros(len(own[0].positions)) for name, own in parts.items()}
    names = sorted({one.initializer for own in parts.values() for one in own})
    weights = [module.initializer(name) for name in names]
    objective: Objective | None = None
    draw = _Drawn(model, context)
    n_batches, limit = 0, min(samples, len(data))
    for number, batch in enumerate(data.batches(size, limit)):
        if fixed and len(batch) < size:
            continue
        inputs = {name: _tensor(array) for name, array in batch.inputs.items()}
        outputs = module(inputs)
        if batch.labels is None:
            loss = draw.loss(outputs, inputs)
        else:
            if objective is None:
                objective = task_objective(loss_of(task), 0.0, logits_of(probabilities(model)))
            loss = objective(outputs, inputs, _tensor(batch.labels))
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        change = {
            name: (gradient * weight).detach().double().numpy()
            for name, gradient, weight in zip(names, found, weights, strict=True)
            if gradient is not None
        }
        for name, own in parts.items():
            each = [
                summed(one, change[one.initializer]) for one in own if one.initializer in change
            ]
            sums[name] += np.sum(each, axis=0) ** 2 if each else 0.0
        n_batches += 1
        context.progress("gradients", min((number + 1) * size, limit), limit)
    if not n_batches:
        raise Misuse(f"{limit} samples make no batch of {size}: give more")
    scores = {name: one / n_batches for name, one in sums.items()}
    if not all(np.isfinite(one).all() for one in scores.values()):
        raise Misuse("the gradients are not finite: the model's outputs or labels are not sound")
    return scores


def _parts(group: ChannelGroup, module: LiftedModule) -> list[Any]:
    """Returns the slices that read the channels and have gradients, or all that have some."""
    learned = [
        one for one in distinct(group.slices) if module.initializer(one.initializer).requires_grad
    ]
    return [one for one in learned if one.role == "consumer"] or learned


class _Drawn:
    """A loss whose targets are drawn from the original's answers."""

    def __init__(self, model: Model, context: Context) -> None:
        original = context.original or model
        self._same = original.digest == model.digest
        self._original = None if self._same else lift(original)
        self._classes = classifying(model, context.task)
        self._mine = logits_of(probabilities(model))
        self._theirs = logits_of(probabilities(original))
        self._random = torch.Generator().manual_seed(context.seed % 2**63)

    def loss(self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the batch's loss, a mean over samples."""
        said = outputs if self._original is None else self._answers(inputs)
        total: Any = 0.0
        for name, output in outputs.items():
            if not output.is_floating_point():
                continue
            if name in self._classes:
                total = total + self._likelihood(name, output, said[name].detach())
            else:
                total = total + self._signed(output, said[name].detach())
        if not isinstance(total, Tensor):
            raise Misuse("importance by taylor needs an output of real numbers")
        return total

    def _answers(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._original is not None
        with torch.no_grad():
            said: dict[str, Tensor] = self._original(inputs)
        return said

    def _likelihood(self, name: str, output: Tensor, said: Tensor) -> Tensor:
        z, t = self._mine(name, output).movedim(1, -1), self._theirs(name, said).movedim(1, -1)
        rows = torch.softmax(t, -1).reshape(-1, t.shape[-1])
        classes = torch.multinomial(rows, 1, generator=self._random)[:, 0]
        value: Tensor = torch.nn.functional.cross_entropy(z.reshape(len(rows), -1), classes)
        return value

    def _signed(self, output: Tensor, said: Tensor) -> Tensor:
        """Returns ½ Σ (y − t)² + Σ s y: at y = t its gradient is that of the signs alone."""
        signs = torch.randint(0, 2, output.shape, generator=self._random) * 2.0 - 1.0
        error = 0.5 * (output - said).square().sum() + (signs * output).sum()
        return error / len(output)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
