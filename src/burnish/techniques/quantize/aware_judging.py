# SPDX-License-Identifier: Apache-2.0
"""What quantization-aware training learns from, and what it is judged by: its teacher's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from burnish.core.candidate import Setting
from burnish.core.errors import Broken
from burnish.core.model import Model
from burnish.core.task import Loss, Task
from burnish.core.technique import Context
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.accuracy import run_batch
from burnish.measuring.machine import machine
from burnish.techniques.distill.distill import Distill
from burnish.techniques.distill.objective import Distance, join
from burnish.techniques.distill.teacher import Says, teaching
from burnish.techniques.quantize.aware_scales import QuantizedModule
from burnish.techniques.train.answers import classifying, logits_of, probabilities
from burnish.techniques.train.compute import TEACHER
from burnish.techniques.train.feed import TrainingBatch
from burnish.techniques.train.task_losses import task_objective

_ALIKE = 0.01  # of an output's size: a difference that is none


@dataclass(frozen=True)
class Judged:
    """A model on held-out samples: its loss, and the share of classes that its teacher gives.

    `error` is the root mean square difference from the teacher's outputs as a share of theirs.
    `same` is None for a model that scores no classes.
    """

    loss: float
    error: float
    same: float | None


class Lecture:
    """The teacher, the objective, and held-out batches with what the teacher says of them."""

    def __init__(
        self,
        distill: Distill,
        model: Model,
        teacher: Model,
        hard: Loss | None,
        task: Task,
        device: str,
        held_out: Sequence[TrainingBatch],
        context: Context,
    ) -> None:
        self._classes = classifying(model, task)
        self._matched = [
            spec.name for spec in model.signature.outputs if np.dtype(spec.dtype).kind == "f"
        ]
        self._read = logits_of(probabilities(model))
        self.objective = Distance(
            distill,
            {name: name in self._classes for name in self._matched},
            self._read,
            task_objective(hard, distill.label_smoothing, self._read) if hard else None,
            None,
        )
        joined = join(self._classes, [probabilities(teacher)])
        example = dict(held_out[0].inputs)
        self.teacher: Says
        self.teacher, self.engine = teaching(
            [teacher], model.signature, "", device, joined, example, context
        )
        self._batches = [(batch, self._ask(batch, device)) for batch in held_out]

    def _ask(self, batch: TrainingBatch, device: str) -> dict[str, Tensor]:
        with torch.no_grad():
            said = self.teacher({name: one.to(device) for name, one in tensors(batch).items()})
        return {TEACHER + name: one.cpu() for name, one in said.items()}

    @property
    def n(self) -> int:
        """How many samples are held out."""
        return sum(len(batch) for batch, _ in self._batches)

    def judge(self, model: Model) -> Judged:
        """Returns the model on ONNX Runtime, on the held-out samples."""
        total, equal, n_classes, wrong, power = 0.0, 0, 0, 0.0, 0.0
        with OnnxRuntime().open(model, Setting(threads=machine().cores)) as session:
            for batch, said in self._batches:
                outputs = {
                    name: torch.from_numpy(np.array(array))
                    for name, array in run_batch(session, batch.inputs).items()
                }
                labels = None if batch.labels is None else torch.from_numpy(batch.labels)
                loss = self.objective(outputs, {**tensors(batch), **said}, labels)
                total += float(loss) * len(batch)
                for name in self._matched:
                    mine, theirs = self._read(name, outputs[name]), said[TEACHER + name]
                    wrong += float((mine - theirs).double().square().sum())
                    power += float(theirs.double().square().sum())
                    if name in self._classes:
                        equal += int((mine.argmax(1) == theirs.argmax(1)).sum())
                        n_classes += theirs.numel() // theirs.shape[1]
        same = equal / n_classes if n_classes else None
        return Judged(total / self.n, float((wrong / max(power, 1e-30)) ** 0.5), same)

    def confirm(self, module: QuantizedModule, model: Model, step: float) -> None:
        """Raises `Broken` unless the engine computes what was trained, to within `step`.

        Where a value lies between two levels (a mean often does) an engine may take the
        other one, so the root mean square of the differences is what counts.
        """
        batch, _ = self._batches[0]
        with torch.no_grad():
            expected = module(tensors(batch))
        with OnnxRuntime().open(model, Setting(threads=machine().cores)) as session:
            got = run_batch(session, batch.inputs)
        for name in self._matched:
            trained = expected[name].double().numpy()
            difference, size = _rms(got[name] - trained), _rms(trained)
            if difference > max(step, _ALIKE * size):
                raise Broken(
                    f"quantize_aware trained another model than the engine runs: {name} differs "
                    f"by {difference:.4g} (root mean square; its own is {size:.4g}), and one "
                    f"quantization step is {step:.4g}"
                )


def _rms(array: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def tensors(batch: TrainingBatch) -> dict[str, Tensor]:
    """Returns a batch's inputs as tensors."""
    return {name: _tensor(array) for name, array in batch.inputs.items()}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def in_words(lecture_n: int, held_out: bool, before: Judged, after: Judged) -> str:
    """Returns both judgements as one line."""
    where = "held-out" if held_out else "training"
    parts = [f"loss {before.loss:.4g} → {after.loss:.4g}"]
    if before.same is not None and after.same is not None:
        parts.append(f"the teacher's class {100 * before.same:.1f} % → {100 * after.same:.1f} %")
    else:
        parts.append(f"relative error {before.error:.3g} → {after.error:.3g}")
    return f"static → trained, on {lecture_n} {where} samples on ONNX Runtime: {', '.join(parts)}"


def example_of(batches: Sequence[TrainingBatch], fixed: int | None) -> Mapping[str, Tensor]:
    """Returns inputs of one sample, or of as many as the model insists on."""
    return {name: one[: fixed or 1] for name, one in tensors(batches[0]).items()}
