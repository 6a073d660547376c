# SPDX-License-Identifier: Apache-2.0
"""A quantized model as a module: float weights that are rounded on the way, learned steps.

With v = w / s clipped to [low, high] and rounding whose gradient is taken as 1,

    ŵ = s round(v),   ∂ŵ/∂w = 1 inside and 0 outside,
    ∂ŵ/∂s = round(v) − w/s inside, and the limit outside;

the gradient of s is multiplied by 1 / √(N Q), N the values that s rounds (activations: of
one sample) and Q the largest integer. Source: Esser et al. 2020, Learned Step Size
Quantization (arXiv:1902.08153), equations 3 and 5, section 2.2.

AdamW moves every number by about the learning rate, whatever its size, and folded weights
differ a hundredfold from channel to channel. So weights and steps are held in units of their
own: w is a multiple of the power of 2 nearest to its channel's range, s of that nearest to
its start. Powers of 2 change no bit. With SGD the units are 1, as published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from burnish.core.model import Model
from burnish.graph.lift.lower import lower
from burnish.graph.lift.module import lift
from burnish.graph.lift.quantization import rounded
from burnish.techniques.quantize.aware_graph import FloatForm, put_together

_LEAST = 1 / 16  # of its start: what a step may fall to
_LARGEST_BIAS = 2**29  # of 2 ** 31: sums are added to it


class _Weaken(torch.autograd.Function):  # type: ignore[misc]
    """The identity, with its gradient multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def weakened(x: Tensor, factor: float) -> Tensor:
    """Returns x, whose gradient is multiplied by `factor`."""
    y: Tensor = _Weaken.apply(x, factor)
    return y


def on_grid(w: Tensor, s: Tensor, low: int, high: int) -> Tensor:
    """Returns w on the grid of step s (which broadcasts), with the gradients above."""
    y: Tensor = rounded((w / s).clamp(low, high)) * s
    return y


class QuantizedModule(nn.Module):  # type: ignore[misc]
    """A QDQ model with a lifted module's forward, and parameters that are trained.

    Batch normalization that is left keeps its statistics and Dropout drops nothing, in
    training too. `example`: inputs of any batch size, which say how many values a step rounds.
    """

    def __init__(
        self,
        form: FloatForm,
        example: Mapping[str, Tensor],
        learn_steps: bool = True,
        relative: bool = True,
    ) -> None:
        super().__init__()
        self._form = form
        self.lifted = lift(form.graph)
        self.signature = form.stored.signature
        for name in (*(weight.name for weight in form.weights), *form.frozen):
            self.lifted.train_initializer(name, trained=False)
        own = {id(tensor): name for name, tensor in self.lifted.named_buffers()}
        self._own = {
            name: own[id(tensor)]
            for name, tensor in self.lifted.named_initializers()
            if id(tensor) in own
        }
        self._scales = {name: f"scale_{index}" for index, name in enumerate(form.scales())}
        for name, array in form.scales().items():
            self.register_buffer(self._scales[name], torch.from_numpy(array.copy()))
        steps = form.steps if learn_steps else ()
        self._index = {step.scale: index for index, step in enumerate(steps)}
        self.steps = nn.ParameterList()
        for index, step in enumerate(steps):
            start = getattr(self, self._scales[step.scale])
            unit = _power(start) if relative else torch.ones_like(start)
            self.register_buffer(f"step_unit_{index}", unit)
            self.register_buffer(f"step_floor_{index}", start / unit * _LEAST)
            self.steps.append(nn.Parameter(start / unit))
        self._factors = self._gradient_factors(example)
        self.weights = nn.ParameterList()
        for index, weight in enumerate(form.weights):
            value = torch.from_numpy(weight.start.copy())
            step = self._spread(self._step(weight.scale), index)
            unit = _power(step * weight.high) if relative else torch.ones_like(step)
            self.register_buffer(f"weight_unit_{index}", unit.detach())
            self.weights.append(nn.Parameter(value / unit.detach()))

    def train(self, mode: bool = True) -> QuantizedModule:
        """Sets the mode, which statistics and Dropout do not follow."""
        super().train(mode)
        self.lifted.eval()
        return self

    def forward(
        self, inputs: Mapping[str, Tensor], keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Returns the outputs by name, and the values in `keep`."""
        steps = {scale: self._step(scale, self._factors[scale]) for scale in self._index}
        values = {self._own[scale]: step for scale, step in steps.items() if scale in self._own}
        for index, weight in enumerate(self._form.weights):
            step = steps.get(weight.scale, getattr(self, self._scales[weight.scale]))
            values[self._own[weight.name]] = on_grid(
                self._weight(index), self._spread(step, index), weight.low, weight.high
            )
        outputs: dict[str, Tensor] = functional_call(self.lifted, values, (inputs, keep))
        return outputs

    def after_step(self) -> None:
        """Keeps the steps positive."""
        with torch.no_grad():
            for index, step in enumerate(self.steps):
                step.copy_(torch.maximum(step, getattr(self, f"step_floor_{index}")))

    def settle(self) -> None:
        """Moves what engines would move: no bias too large for int32, each on its own grid.

        An engine rounds a bias to a multiple of the two scales before it. Rounded here, the
        result computes what was trained.
        """
        with torch.no_grad():
            for layer in self._form.layers:
                bias = self.lifted.initializer(layer.bias)
                x, w = self._step(layer.input_scale), self._step(layer.weight_scale)
                if bias.ndim != 1 or x.numel() != 1 or w.numel() not in (1, len(bias)):
                    continue
                least = bias.abs() / (x * _LARGEST_BIAS)
                least = least.max().reshape(w.shape) if w.numel() == 1 else least
                if layer.weight_scale in self._index and bool((w < least).any()):
                    index = self._index[layer.weight_scale]
                    unit = getattr(self, f"step_unit_{index}")
                    self.steps[index].copy_(torch.maximum(w, least) / unit)
                    w = self._step(layer.weight_scale)
                unit = (x * w).expand_as(bias) if w.numel() > 1 else (x * w).reshape(())
                bias.copy_(torch.round(bias / unit) * unit)

    def last_step(self) -> float:
        """Returns the step of the last activation in the graph that is rounded."""
        return 0.0 if self._form.last is None else float(self._step(self._form.last).detach().max())

    def lower(self) -> ir.Model:
        """Returns the stored graph with what was trained: integers, scales, float weights."""
        integers: dict[str, NDArray[np.int8]] = {}
        with torch.no_grad():
            scales = {scale: self._step(scale).numpy() for scale in self._index}
            for index, weight in enumerate(self._form.weights):
                step = self._spread(self._step(weight.scale), index)
                whole = torch.round((self._weight(index) / step).clamp(weight.low, weight.high))
                integers[weight.name] = whole.to(torch.int8).contiguous().numpy()
        trained = lower(self.lifted, Model(self._form.graph.clone()))
        return put_together(self._form, trained, integers, scales)

    def _weight(self, index: int) -> Tensor:
        value: Tensor = self.weights[index] * getattr(self, f"weight_unit_{index}")
        return value

    def _step(self, scale: str, factor: float = 1.0) -> Tensor:
        if scale not in self._index:
            fixed: Tensor = getattr(self, self._scales[scale])
            return fixed
        index = self._index[scale]
        value: Tensor = weakened(self.steps[index], factor) * getattr(self, f"step_unit_{index}")
        return value

    def _spread(self, step: Tensor, index: int) -> Tensor:
        weight = self._form.weights[index]
        shape: list[int] = []
        if weight.axis is not None:
            shape = [1] * weight.start.ndim
            shape[weight.axis] = -1
        return step.reshape(shape)

    def _gradient_factors(self, example: Mapping[str, Tensor]) -> dict[str, float]:
        """Returns 1 / √(N Q) for each learned step."""
        n: dict[str, float] = {}
        for weight in self._form.weights:
            size = weight.start.size / getattr(self, self._scales[weight.scale]).numel()
            n[weight.scale] = n.get(weight.scale, 0) + size
        steps = [step for step in self._form.steps if step.scale in self._index]
        tensors = [name for step in steps for name in step.tensors]
        with torch.no_grad():
            seen = self.lifted(example, tensors)
        batch = len(next(iter(example.values())))
        for step in steps:
            for name in step.tensors:
                n[step.scale] = n.get(step.scale, 0) + seen[name].numel() / batch
        return {step.scale: float((n[step.scale] * step.high) ** -0.5) for step in steps}


def _power(x: Tensor) -> Tensor:
    """Returns the power of 2 nearest to each positive number."""
    return torch.exp2(torch.round(torch.log2(x)))
