# SPDX-License-Identifier: Apache-2.0
"""How far a student's answers are from its teacher's: scalars with gradients.

Logits are rows, (n, classes); z is the student's, t the teacher's, p(x; T) =
softmax(x / T). Each loss is a mean over the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-8


def soft_cross_entropy(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Returns T² KL(p(t; T) ‖ p(z; T)).

    Source: Hinton, Vinyals and Dean 2015 (arXiv:1503.02531), section 2; T² keeps the
    gradient's size whatever T is. The cross-entropy there differs by a constant.
    """
    return temperature**2 * functional.kl_div(
        functional.log_softmax(z / temperature, dim=1),
        functional.log_softmax(t / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def standardized(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Returns Hinton's loss of logits brought to mean 0 and deviation 1 in each row.

    The student need not match the teacher's range, only its shape. Source: Sun et al. 2024
    (arXiv:2403.01427), equations 12 and 13, with the deviation over all classes as written
    there, where the authors' program divides by one class less.
    """
    return soft_cross_entropy(_standard(z), _standard(t), temperature)


def _standard(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    deviation = logits.std(dim=1, keepdim=True, correction=0)
    return centred / (deviation + _TINY)


def decoupled(
    z: Tensor,
    t: Tensor,
    classes: Tensor,
    temperature: float,
    target_weight: float,
    others_weight: float,
) -> Tensor:
    """Returns T² (α KL of target against the rest + β KL among the others).

    `classes`: each row's target, (n,). Source: Zhao et al. 2022, "Decoupled Knowledge
    Distillation" (arXiv:2203.08679), equation 7.
    """
    target = functional.one_hot(classes, z.shape[1]).bool()
    rows = [functional.log_softmax(x / temperature, dim=1) for x in (z, t)]
    pairs = [
        torch.stack(
            [row[target], torch.logsumexp(row.masked_fill(target, -torch.inf), dim=1)], dim=1
        )
        for row in rows
    ]
    others = [
        functional.log_softmax(x[~target].view(len(x), -1) / temperature, dim=1) for x in (z, t)
    ]
    both = [
        functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        for student, teacher in (pairs, others)
    ]
    return temperature**2 * (target_weight * both[0] + others_weight * both[1])


def correlation(z: Tensor, t: Tensor, temperature: float) -> Tensor:
    """Returns T² (1 − mean correlation of rows + 1 − mean correlation of columns).

    The student matches the order of classes for each sample, and of samples for each
    class. Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher"
    (DIST, arXiv:2205.10536), equations 7 to 10 with β = γ = 1.
    """
    student, teacher = (torch.softmax(x / temperature, dim=1) for x in (z, t))
    between = 1 - _pearson(student, teacher).mean()
    within = 1 - _pearson(student.T, teacher.T).mean()
    return temperature**2 * (between + within)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    return functional.cosine_similarity(a, b, dim=1, eps=_TINY)


def squared(z: Tensor, t: Tensor) -> Tensor:
    """Returns the mean squared difference over all elements, of any shape.

    Source: Ba and Caruana 2014 (arXiv:1312.6184), equation 1, for logits.
    """
    return functional.mse_loss(z, t)


def hint(kind: str, student: Tensor, teacher: Tensor) -> Tensor:
    """Returns the distance of two tensors of one shape, (n, …).

    "mse": Romero et al. 2015 (FitNets, arXiv:1412.6550), equation 3; "l1": the mean
    absolute difference; "cosine": 1 − the cosine of each sample's values as one vector.
    """
    if kind == "mse":
        return functional.mse_loss(student, teacher)
    if kind == "l1":
        return functional.l1_loss(student, teacher)
    similar = functional.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1)
    return 1 - similar.mean()


def rows_of(logits: Tensor) -> Tensor:
    """Returns logits (batch, classes, …) as rows (n, classes), one for each position."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).reshape(-1, logits.shape[1])


def ensemble(logits: Sequence[Tensor]) -> Tensor:
    """Returns the logarithm of the mean of the models' probabilities: (batch, classes, …).

    A softmax of it gives that mean back. Source: Hinton, Vinyals and Dean 2015, section 2,
    the arithmetic mean.
    """
    if len(logits) == 1:
        return logits[0]
    logs = torch.stack([functional.log_softmax(one, dim=1) for one in logits])
    return torch.logsumexp(logs, dim=0) - torch.log(torch.tensor(float(len(logits))))
