# SPDX-License-Identifier: Apache-2.0
"""Estimates the running statistics of BatchNormalization anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.train.trained import need_torch, training_samples
from burnish.techniques.train.training import whole
from burnish.techniques.train.untie import untied


@dataclass
class _Sums:
    """What was seen of one layer's input, for each channel (axis 1)."""

    n: int = 0
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, values: NDArray[Any]) -> None:
        """Adds (batch, channels, …), joining means and squared deviations without cancellation.

        Source: Chan, Golub and LeVeque 1983, equations 2.1.
        """
        rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
        n, mean = rows.shape[1], rows.mean(axis=1)
        squares = ((rows - mean[:, None]) ** 2).sum(axis=1)
        if not self.n:
            self.n, self.mean, self.squares = n, mean, squares
            return
        total, step = self.n + n, mean - self.mean
        self.mean = self.mean + step * (n / total)
        self.squares = self.squares + squares + step**2 * (self.n * n / total)
        self.n = total


@dataclass(frozen=True)
class Recalibrate(Technique):
    """Replaces the means and variances of every BatchNormalization by those of the data.

    Weights that were changed (pruned, averaged, quantized) move what the layers after them
    see. The data goes through the model in batches of `batch_size`, each layer normalizing
    with the batch's own statistics as in training, and what arrives at each layer is
    averaged exactly over `samples` training samples (0 for all), or calibration samples
    where a task has no training data. Source: Wu and Johnson 2021 (arXiv:2105.07576),
    section 3.2, with the variance over all samples at once.
    """

    batch_size: int = 128
    samples: int = 2048
    name: ClassVar[str] = "recalibrate"

    def __post_init__(self) -> None:
        if not whole(self.batch_size, 2) or not whole(self.samples, 0):
            raise Misuse(
                "batch_size must be a whole number from 2 and samples one from 0, got "
                f"{self.batch_size!r} and {self.samples!r}"
            )

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` without data, `Missing` without PyTorch."""
        training_samples(context.need_task(self.name))
        need_torch(self.name)

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the model with the data's statistics, and by how much they moved."""
        apart = untied(model)
        graph = apart.edit()
        layers = [node for node in graph.graph if node.op_type == "BatchNormalization"]
        if not layers:
            note = Skipped(
                "model", "it holds no BatchNormalization (folded into the weights, or never there)"
            )
            return Outcome(model.derive(graph, self), (), (note,))
        samples, notes = training_samples(context.need_task(self.name))
        limit = min(self.samples or len(samples), len(samples))
        seen = self._seen(apart, [_name(node, 0) for node in layers], samples, limit, context)
        moved = [_replace(node, seen[_name(node, 0)]) for node in layers]
        applied = (
            f"statistics of {len(layers)} BatchNormalization layers from {limit} samples; means "
            f"moved by {np.median(moved):.3g} standard deviations (median), at most "
            f"{max(moved):.3g} in {layers[int(np.argmax(moved))].name}",
        )
        return Outcome(model.derive(graph, self), applied, notes)

    def _seen(
        self, model: Model, names: list[str], samples: Any, limit: int, context: Context
    ) -> dict[str, _Sums]:
        import torch

        from burnish.graph.lift.module import lift

        module = lift(model)
        module.train()
        seen = {name: _Sums() for name in names}
        fixed = fixed_batch(model.signature)
        size = fixed or min(self.batch_size, limit)
        done = 0
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed % 2**63)  # for dropout, which is live
            for batch in samples.batches(size, limit):
                context.progress("batch statistics", done, limit)
                done += len(batch)
                # One sample has no statistics where its positions are one.
                if len(batch) < size and (fixed or len(batch) < 2):
                    continue
                inputs = {
                    name: torch.from_numpy(np.require(array, requirements=["C", "W"]))
                    for name, array in batch.inputs.items()
                }
                kept = module(inputs, names)
                for name, sums in seen.items():
                    sums.add(kept[name].numpy())
        if any(sums.n == 0 for sums in seen.values()):
            raise Misuse(f"{limit} samples make no batch of {size}: give more")
        return seen


def _name(node: ir.Node, position: int) -> str:
    value = node.inputs[position]
    if value is None or value.name is None:
        raise Misuse(f"BatchNormalization {node.name} lacks its input {position}")
    return value.name


def _replace(node: ir.Node, sums: _Sums) -> float:
    """Writes a layer's statistics; returns how far its means moved, in standard deviations."""
    variance = sums.squares / max(sums.n - 1, 1)
    old = node.inputs[3]
    before = sums.mean
    if old is not None and old.const_value is not None:
        before = old.const_value.numpy().astype(np.float64)
    moved = np.abs(sums.mean - before) / np.sqrt(np.maximum(variance, 1e-12))
    for position, numbers in ((3, sums.mean), (4, variance)):
        value = node.inputs[position]
        if value is None or value.const_value is None:
            raise Misuse(f"BatchNormalization {node.name}: its statistics are no constants")
        array = numbers.astype(value.const_value.numpy().dtype)
        value.const_value = ir.tensor(array, name=value.name)
    return float(moved.max(initial=0.0))
