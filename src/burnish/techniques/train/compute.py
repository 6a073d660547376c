# SPDX-License-Identifier: Apache-2.0
"""Runs a module, its objective and its teacher on batches of a feed, on one device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from burnish.core.errors import Unsupported
from burnish.core.progress import Progress
from burnish.core.settings import settings
from burnish.core.task import Metric
from burnish.techniques.train.feed import Feed, TrainingBatch
from burnish.techniques.train.task_losses import Objective
from burnish.techniques.train.training import Training

Teacher = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""teacher(inputs) -> its outputs by name, without gradients."""

TEACHER = "teacher/"
"""What the name of a teacher's output begins with, among an objective's `inputs`."""


class Compute:
    """The loss of a batch, with gradients, and of the probe, without."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        training: Training,
        teacher: Teacher | None,
        keep: tuple[str, ...],
        feed: Feed,
    ) -> None:
        self.device = device_of(training)
        self._module, self._objective, self._training = module, objective, training
        # Judging, in evaluation mode and batches of other sizes, is not worth a second one.
        self._forward = torch.compile(module, dynamic=False) if training.compiled else module
        self._teacher, self._keep, self._feed = teacher, keep, feed
        self._half = training.precision == "bfloat16" or (
            training.precision == "auto"
            and self.device == "cuda"
            and torch.cuda.is_bf16_supported()
        )
        self._said_of_probe: list[dict[str, Tensor]] = []

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Returns the batch's mean loss, a scalar with gradients."""
        inputs, labels, taught = self._tensors(batch)
        with torch.autocast(self.device, torch.bfloat16, enabled=self._half):
            outputs = self._run(inputs)
        outputs = {name: _wide(one) for name, one in outputs.items()}
        if self._teacher is not None and not taught:
            taught = self._ask(inputs)
        given = {**inputs, **taught}
        loss = self._objective(outputs, given, labels)
        if batch.partner is not None and labels is not None:
            partner = torch.from_numpy(batch.partner).to(labels.device)
            other = self._objective(outputs, given, labels[partner])
            loss = batch.share * loss + (1 - batch.share) * other
        return loss

    def _run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            outputs: dict[str, Tensor] = self._forward(inputs, self._keep)
        except Exception as error:
            if self._training.compiled and type(error).__module__.startswith("torch._"):
                raise Unsupported(
                    f"PyTorch cannot compile the network here ({str(error).splitlines()[0]}): "
                    "install a C++ compiler, or train with compiled = false"
                ) from error
            raise
        return outputs

    def _tensors(
        self, batch: TrainingBatch
    ) -> tuple[dict[str, Tensor], Tensor | None, dict[str, Tensor]]:
        """Returns inputs, labels, and what the teacher said of them, when that was kept."""
        tensors = {name: self._tensor(array) for name, array in batch.inputs.items()}
        labels = None if batch.labels is None else self._tensor(batch.labels)
        taught = {name: one for name, one in tensors.items() if name.startswith(TEACHER)}
        return {name: tensors[name] for name in tensors if name not in taught}, labels, taught

    def _tensor(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)
        if self._training.channels_last and tensor.ndim == 4 and tensor.is_floating_point():
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _ask(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self._teacher is not None
        with torch.no_grad():
            said = self._teacher(inputs)
        return {TEACHER + name: one.to(self.device) for name, one in said.items()}

    def teach(self, progress: Progress) -> None:
        """Asks the teacher once about every sample, when samples stay as they are and fit."""
        feed, training = self._feed, self._training
        if self._teacher is None:
            return
        size = feed.batch_size
        for batch in feed.probe(size):
            inputs, _, _ = self._tensors(batch)
            self._said_of_probe.append(self._ask(inputs))
        said = sum(one.numel() * one.element_size() for one in self._said_of_probe[0].values())
        whole = said / len(next(iter(self._said_of_probe[0].values()))) * feed.n_cached
        changing = training.mixup or training.augment
        if not feed.cached or changing or whole > training.memory_bytes / 4:
            return
        if training.epochs * feed.n < feed.n_cached:  # fewer are asked about on the way
            return
        parts: dict[str, list[Any]] = {}
        for number, batch in enumerate(feed.in_order(size)):
            progress("asking the teacher", number * size, feed.n_cached)
            inputs, _, _ = self._tensors(batch)
            for name, one in self._ask(inputs).items():
                parts.setdefault(name, []).append(one.cpu().numpy())
        feed.add({name: np.concatenate(arrays) for name, arrays in parts.items()})

    def judge(self, metric: Metric | None) -> tuple[float, float]:
        """Returns the loss on the probe, and the metric on it (the loss without a metric)."""
        self._module.eval()
        total, rows, n = 0.0, [], 0
        with torch.no_grad():
            for number, batch in enumerate(self._feed.probe(self._feed.batch_size)):
                inputs, labels, taught = self._tensors(batch)
                if self._said_of_probe:
                    taught = self._said_of_probe[number]
                outputs = self._module(inputs, self._keep)
                outputs = {name: _wide(one) for name, one in outputs.items()}
                total += float(self._objective(outputs, {**inputs, **taught}, labels)) * len(batch)
                n += len(batch)
                if metric is not None and batch.labels is not None:
                    arrays = {name: one.cpu().numpy() for name, one in outputs.items()}
                    rows.append(metric.rows(arrays, batch.labels))
        loss = total / n
        if metric is None:
            return loss, loss
        return loss, float(metric.value(np.concatenate(rows)))


def device_of(training: Training) -> str:
    """Returns where training runs: "cpu" or "cuda"."""
    usable = training.device != "cpu" and torch.cuda.is_available()
    return "cuda" if usable else "cpu"


def _wide(output: Tensor) -> Tensor:
    """Returns a half-precision output in float32, in which losses are computed."""
    return output.float() if output.is_floating_point() else output


def step_seed(seed: int, step: int) -> int:
    """Returns the seed of one step's dropout."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Seeds apart from the program's own generators, and the same threads and kernels."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    limit = settings().threads
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            if limit is not None:
                torch.set_num_threads(limit)
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
            torch.set_num_threads(threads)
