# SPDX-License-Identifier: Apache-2.0
"""What happens to the weights in a step: the optimizer, their average, zeros that stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from burnish.techniques.train.training import Training


def optimizer_of(parameters: Iterable[Tensor], training: Training) -> Any:
    """Returns the optimizer; biases, norms and other per-channel numbers have no decay.

    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101) for AdamW; Sutskever et al. 2013
    for SGD with Nesterov's momentum; Goyal et al. 2017 (arXiv:1706.02677), section 5.3,
    for leaving norms without decay.
    """
    parameters = list(parameters)
    groups = [
        {
            "params": [one for one in parameters if not is_vector(one)],
            "weight_decay": training.weight_decay,
        },
        {"params": [one for one in parameters if is_vector(one)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=training.learning_rate,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
        )
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(training.momentum, 0.999))


def is_vector(weight: Tensor) -> bool:
    """Returns whether a weight is a scalar or one number for each channel, as (1, C, 1, 1) too."""
    return bool(weight.ndim <= 1 or (weight.ndim > 2 and weight.numel() == max(weight.shape)))


def state(module: nn.Module) -> dict[str, Tensor]:
    """Returns the module's parameters and buffers by name; they are its own, no copies."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies that training does not touch."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def restore(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors into the module's parameters and buffers."""
    own = state(module)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


class Average:
    """An exponential moving average of a module's weights and running statistics.

    The decay begins low, min(decay, (1 + t) / (10 + t)), so that the first weights are
    forgotten. Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.tensors = copied(_floats(module))

    def update(self, step: int) -> None:
        """Takes in the weights after `step` steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in _floats(self._module).items():
                self.tensors[name].lerp_(tensor, 1 - decay)


def _floats(module: nn.Module) -> dict[str, Tensor]:
    return {name: one for name, one in state(module).items() if one.is_floating_point()}


class Zeros:
    """The places of a module's weights (2-D and more) that are zero now, held at zero."""

    def __init__(self, module: nn.Module) -> None:
        self._held: list[tuple[Tensor, Tensor]] = []
        self.count = 0
        for weight in module.parameters():
            alive = weight.detach() != 0
            if weight.requires_grad and not is_vector(weight) and not bool(alive.all()):
                self._held.append((weight, alive))
                self.count += int((~alive).sum())

    def before_step(self) -> None:
        """Takes the held places out of the gradient, so that they do not count in its norm."""
        for weight, alive in self._held:
            if weight.grad is not None:
                weight.grad.mul_(alive)

    def after_step(self) -> None:
        """Puts the held places back to zero."""
        with torch.no_grad():
            for weight, alive in self._held:
                weight.mul_(alive)
