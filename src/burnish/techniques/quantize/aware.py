# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: a quantized model learns to answer as the float model does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.task import Samples
from burnish.core.technique import Context, Outcome, Skipped
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.distill.distill import Distill, Kind
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.aware_graph import FloatForm, is_quantized, take_apart
from burnish.techniques.quantize.grid import Activation
from burnish.techniques.quantize.input_grid import align
from burnish.techniques.quantize.observe import fitting
from burnish.techniques.quantize.ranges import Method
from burnish.techniques.quantize.static import QuantizeStatic, Rounding
from burnish.techniques.train.feed import Feed, TrainingBatch
from burnish.techniques.train.trained import (
    CHECKPOINT_S,
    TrainingTechnique,
    kept,
    need_torch,
    training_samples,
)
from burnish.techniques.train.training import Precision, Schedule, Training

if TYPE_CHECKING:
    from burnish.core.task import Loss
    from burnish.techniques.quantize.aware_judging import Judged
    from burnish.techniques.quantize.aware_scales import QuantizedModule

_STATIC = (
    "ranges", "percentile", "activations", "weight_bits", "rounding", "per_channel", "keep_float",
    "align_input",
)  # fmt: skip
_ALIGN_SAMPLES = 32


@dataclass(frozen=True)
class QuantizeAware(TrainingTechnique):
    """Static int8, then training of what it rounds: weights, and with `learn_steps` the scales.

    A float model is quantized first as `quantize_static` does it, with BatchNormalization
    folded (Nagel et al. 2021, arXiv:2106.08295, section 5.2.1: folded trains as well as any
    other way); a model in QDQ form is taken as it is. Weights are rounded in the forward
    pass and gradients pass the rounding; scales are learned by LSQ (Esser et al. 2020), zero
    points and the input's scale stay. The file has the static one's nodes, only other numbers.

    It learns from the model that the recipe began with, without labels; with `soft_weight`
    below 1 the rest of the weight is the task's own loss. `loss` and `temperature` are those
    of `distill`. Samples are the training data, or the calibration data where there is none.
    Static and trained model are judged on samples held out (`hold_out_ratio`), on ONNX
    Runtime, by that loss: when training did not better it, the static model is kept.

    `ranges`, `percentile`, `activations`, `weight_bits`, `rounding`, `per_channel`,
    `keep_float` and `align_input` are those of `quantize_static`, and `calibration_samples`
    its `samples`. All other fields are those of `fine_tune`. With AdamW the learning rate of
    a weight is relative to its channel's range, of a scale to the scale.
    """

    epochs: int = 5
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup_ratio: float = 0.05
    precision: Precision = "float32"
    hold_out_ratio: float = 0.1
    ranges: Method = "mse"
    percentile: float = 99.999
    activations: Activation | Literal["auto"] = "auto"
    weight_bits: int = 0
    rounding: Rounding = "nearest"
    per_channel: bool = True
    keep_float: tuple[str, ...] = ()
    align_input: bool = True
    calibration_samples: int = 0
    learn_steps: bool = True
    loss: Kind = "auto"
    temperature: float = 3.0
    soft_weight: float = 1.0
    name: ClassVar[str] = "quantize_aware"

    def faults(self) -> list[str]:
        """Returns what is wrong with each field."""
        faults = super().faults()
        for make in (self._static, self._distill):
            try:
                make()
            except Misuse as error:
                faults.append(str(error))
        if not isinstance(self.learn_steps, bool):
            faults.append(f"learn_steps must be true or false, got {self.learn_steps!r}")
        return faults

    @classmethod
    def after(cls, static: QuantizeStatic, **more: Any) -> Self:
        """Returns the technique that trains on from what `static` makes; `more` are fields."""
        same = {name: getattr(static, name) for name in _STATIC}
        return cls(calibration_samples=static.samples, **same, **more)

    def _static(self) -> QuantizeStatic:
        same = {name: getattr(self, name) for name in _STATIC}
        return QuantizeStatic(samples=self.calibration_samples, **same)

    def _distill(self) -> Distill:
        return Distill(
            loss=self.loss,
            temperature=self.temperature,
            soft_weight=self.soft_weight,
            label_smoothing=self.label_smoothing,
        )

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` without data, or without a float model to learn from."""
        task = context.need_task(self.name)
        training_samples(task)
        if not any(spec.dtype.startswith("float") for spec in model.signature.outputs):
            raise Misuse(f"{self.name} needs an output of floats, got {model.signature}")
        if is_quantized(model):
            if context.original is None or is_quantized(context.original):
                raise Misuse(
                    f"{self.name} learns from the float model, and this one is quantized already: "
                    "use it in a recipe that begins with the float model"
                )
        else:
            task.split("calibration")
        need_torch(self.name)

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the QDQ model after training, and what it gained over the static one."""
        from burnish.techniques.train.task_losses import loss_key, loss_of

        task = context.need_task(self.name)
        samples, notes = training_samples(task)
        hard: Loss | None = None
        if self.soft_weight < 1:
            if next(iter(samples.batches(1, 1))).labels is None:
                reason = "the training data has none: the teacher's answers have all the weight"
                notes = (*notes, Skipped("labels", reason))
            else:
                hard = loss_of(task)
        teacher = context.original or model
        others = [
            version("onnxruntime"),
            teacher.digest,
            task.calibration.fingerprint() if task.calibration is not None else "",
            task.metric.name if task.metric is not None else "",
            task.loss.name if task.loss is not None else "",
            loss_key(hard) if hard is not None else "",
        ]

        def train(checkpoint: Path | None) -> Outcome:
            return self._train(model, teacher, context, samples, hard, notes, checkpoint)

        return kept(self, model, context, samples, others, train)

    def _train(
        self,
        model: Model,
        teacher: Model,
        context: Context,
        samples: Samples,
        hard: Loss | None,
        notes: tuple[Skipped, ...],
        checkpoint: Path | None,
    ) -> Outcome:
        from burnish.techniques.quantize.aware_judging import Lecture, example_of
        from burnish.techniques.quantize.aware_scales import QuantizedModule
        from burnish.techniques.train.compute import device_of
        from burnish.techniques.train.loop import fit

        static, form = self._start(model, teacher, context)
        applied, skipped = static.applied, (*notes, *static.skipped, *form.skipped)
        settings: Training = self
        fixed = fixed_batch(model.signature)
        if fixed is not None and fixed != self.batch_size:
            settings = self.with_batch(fixed)
            reason = f"the model takes batches of {fixed} only"
            skipped = (*skipped, Skipped(f"batch_size {self.batch_size}", reason))
        # Only what is held out is taken from it, and the training reads the data anew.
        feed = Feed(samples, settings, context.seed, context.progress, fixed)
        held_out = [_own(one) for one in feed.probe(feed.batch_size)]
        apart = feed.n_held_out > 0
        del feed
        task = context.need_task(self.name)
        lecture = Lecture(
            self._distill(), model, teacher, hard, task, device_of(self), held_out, context
        )
        module = QuantizedModule(
            form, example_of(held_out, fixed), self.learn_steps, self.optimizer == "adamw"
        )
        history = fit(
            module,
            samples,
            lecture.objective,
            settings,
            context,
            teacher=lecture.teacher,
            after_step=module.after_step,
            checkpoint=checkpoint,
            checkpoint_s=CHECKPOINT_S,
        )
        module.settle()
        made = Model(module.lower(), model.lineage)
        lecture.confirm(module, made, module.last_step())
        before, after = lecture.judge(static.model), lecture.judge(made)
        applied = (*applied, self._words(form, module, hard), *history.words())
        line, notes = _verdict(lecture.n, apart, before, after)
        better = made if after.loss < before.loss else static.model
        return Outcome(
            model.derive(better.edit(), self),
            (*applied, line),
            (*skipped, *history.notes, *notes),
        )

    def _start(self, model: Model, teacher: Model, context: Context) -> tuple[Outcome, FloatForm]:
        """Returns the static model, and it taken apart, with the weights that it rounded."""
        if is_quantized(model):
            sources = [teacher, Fuse().apply(teacher, context).model]
            return Outcome(model), take_apart(model, sources, self.weight_bits)
        source = model
        words: tuple[str, ...] = ()
        if any(node.op_type == "BatchNormalization" for node in model.edit().graph):
            source = Fuse().apply(model, context).model
            words = ("BatchNormalization folded into the weights (fuse)",)
        static = self._static().apply(source, context)
        sources = [source]
        if self.align_input:
            # Aligned, the first convolution has other weights than its own.
            data = context.need_task(self.name).split("calibration")
            batches = fitting(source, data, _ALIGN_SAMPLES, min(_ALIGN_SAMPLES, len(data)))
            kind: Activation = "u8" if self.activations == "auto" else self.activations
            sources.append(Model(align(source, batches, kind, self.keep_float).graph))
        form = take_apart(static.model, sources, self.weight_bits)
        return replace(static, applied=(*words, *static.applied)), form

    def _words(self, form: FloatForm, module: QuantizedModule, hard: Loss | None) -> str:
        kind = "kd" if self.loss == "auto" else self.loss
        steps = f"{len(module.steps)} scales learned" if self.learn_steps else "scales fixed"
        known = f"{form.n_known} of {len(form.weights)} weights from their float values"
        soft = 1.0 if hard is None else self.soft_weight
        labels = f"{1 - soft:g} hard ({hard.name})" if hard is not None else "without labels"
        return (
            f"trained {known}, {steps}; {soft:g} soft ({kind}, T = {self.temperature:g}), {labels}"
        )


def _verdict(
    n: int, held_out: bool, before: Judged, after: Judged
) -> tuple[str, tuple[Skipped, ...]]:
    """Returns what training changed, in words, and what of it is no gain."""
    from burnish.techniques.quantize.aware_judging import in_words

    line = in_words(n, held_out, before, after)
    if not after.loss < before.loss:
        reason = f"training did not better the static model, which is kept: {line}"
        return "the static model, kept", (Skipped("training", reason),)
    if (after.same or 0.0) < (before.same or 0.0):
        reason = "it fell, although the loss did too: more samples would tell"
        return line, (Skipped("agreement with the teacher", reason),)
    return line, ()


def _own(batch: TrainingBatch) -> TrainingBatch:
    """Returns a copy, so that the data it is a part of can go."""
    inputs = {name: array.copy() for name, array in batch.inputs.items()}
    return TrainingBatch(inputs, None if batch.labels is None else batch.labels.copy())
