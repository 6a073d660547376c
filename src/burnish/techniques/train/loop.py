# SPDX-License-Identifier: Apache-2.0
"""The training loop: any objective, on any module with a lifted module's forward."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from burnish.core.errors import Misuse
from burnish.core.task import Metric, Samples
from burnish.core.technique import Context, Skipped
from burnish.measuring.accuracy import fixed_batch
from burnish.techniques.train.checkpoint import load_checkpoint, save_checkpoint
from burnish.techniques.train.compute import Compute, Teacher, reproducible, step_seed
from burnish.techniques.train.feed import Feed, TrainingBatch
from burnish.techniques.train.history import History
from burnish.techniques.train.prefetch import prefetched
from burnish.techniques.train.schedule import factor
from burnish.techniques.train.task_losses import Objective
from burnish.techniques.train.training import Training
from burnish.techniques.train.weights import Average, Zeros, copied, optimizer_of, restore, state

_REPORT_S = 0.2
_CHECK_STEPS = 20  # on a GPU each look at the loss waits for it


def fit(
    module: nn.Module,
    samples: Samples,
    objective: Objective,
    training: Training,
    context: Context,
    *,
    teacher: Teacher | None = None,
    keep: Collection[str] = (),
    after_step: Callable[[], None] | None = None,
    evaluate: Metric | None = None,
    checkpoint: Path | None = None,
    checkpoint_s: float = 60.0,
) -> History:
    """Trains `module` in place and returns what was done; it ends in evaluation mode.

    `module(inputs, keep)` returns outputs by name, and `objective(outputs, inputs, labels)`
    the batch's mean loss; an objective that is a module has its parameters trained along.
    A `teacher` sees the inputs that the module sees, and its outputs are among the
    objective's `inputs` as "teacher/<output>". `after_step` runs after each update.
    `evaluate` judges held-out samples (the loss does without it, or without labels).

    With `checkpoint`, the run is saved there every `checkpoint_s` seconds and goes on from
    it, to the same bits as one that was never interrupted, on the same machine. The module
    comes back on the CPU. Raises `Misuse` when the loss is no finite number.
    """
    run = _Run(module, samples, objective, training, context, teacher, tuple(keep), evaluate)
    with reproducible(run.device):
        try:
            return run.train(after_step, checkpoint, checkpoint_s)
        finally:
            module.eval()
            module.to("cpu")


class _Run:
    """One call of `fit`: what it holds between steps."""

    def __init__(
        self,
        module: nn.Module,
        samples: Samples,
        objective: Objective,
        training: Training,
        context: Context,
        teacher: Teacher | None,
        keep: tuple[str, ...],
        evaluate: Metric | None,
    ) -> None:
        self._module, self._training, self._context = module, training, context
        self._samples, self._keep = samples, keep
        signature = getattr(module, "signature", None)
        fixed = None if signature is None else fixed_batch(signature)
        self._feed = Feed(samples, training, context.seed, context.progress, fixed)
        self._compute = Compute(module, objective, training, teacher, keep, self._feed)
        self.device = self._compute.device
        self._metric = evaluate if self._feed.has_labels and self._feed.n_held_out else None
        module.to(self.device)
        learned = list(module.parameters())
        self._extra = objective if isinstance(objective, nn.Module) else None
        if self._extra is not None:
            self._extra.to(self.device)
            learned += list(self._extra.parameters())
        self._learned = [one for one in learned if one.requires_grad]
        if not self._learned:
            raise Misuse("the module has no parameter to train")
        if training.channels_last:
            for one in self._learned:
                if one.ndim == 4:
                    one.data = one.data.contiguous(memory_format=torch.channels_last)
        self._zeros = Zeros(module) if training.hold_zeros else None
        self._optimizer = optimizer_of(self._learned, training)
        self._average = Average(module, training.ema_decay) if training.ema_decay else None
        self._mark = ""
        # From here on, what a checkpoint holds besides weights.
        self._step = 0
        self._sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._losses: list[float] = []
        self._scores: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._best_epoch = 0
        self._before = math.nan

    def _digest(self) -> str:
        """Returns what makes this run: its settings, weights, data, seed and PyTorch."""
        digest = hashlib.sha256()
        own = {one.name: getattr(self._training, one.name) for one in fields(Training)}
        parts = [
            own,
            self._context.seed,
            self._samples.fingerprint(),
            torch.__version__,
            self._keep,
        ]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        for name, tensor in state(self._module).items():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def train(
        self, after_step: Callable[[], None] | None, checkpoint: Path | None, checkpoint_s: float
    ) -> History:
        feed, training = self._feed, self._training
        total = training.epochs * feed.steps
        found = None
        if checkpoint is not None:
            self._mark = self._digest()
            found = load_checkpoint(checkpoint, self._mark, self.device)
        self._compute.teach(self._context.progress)
        if found is not None:
            self._resume(found)
        else:
            self._before = self._loss_on_probe()
        began = saved = reported = time.monotonic()
        first_step, waited, stopped = self._step, 0.0, self._stopped()
        while self._step < total and not stopped:
            epoch, start = divmod(self._step, feed.steps)
            self._module.train()
            batches = prefetched(feed.epoch(epoch, start))
            try:
                while self._step < (epoch + 1) * feed.steps:
                    asked = time.monotonic()
                    batch = next(batches, None)
                    waited += time.monotonic() - asked
                    if batch is None:
                        raise Misuse(f"the training data ended at step {self._step}, too early")
                    self._train_on(batch, total, after_step)
                    now = time.monotonic()
                    # The last step's comes after what ends the epoch.
                    within = self._step % feed.steps > 0
                    if checkpoint and within and now - saved >= checkpoint_s:
                        self._save(checkpoint)
                        saved = now
                    if now - reported >= _REPORT_S:
                        reported = now
                        pace = (now - began) / (self._step - first_step)
                        try:
                            self._report(epoch, total, pace * (total - self._step))
                        except BaseException:  # the caller's way to end the work: lose nothing
                            if checkpoint and within:
                                self._save(checkpoint)
                            raise
            finally:
                batches.close()
            self._end_epoch()
            stopped = self._stopped()
            if checkpoint and time.monotonic() - saved >= checkpoint_s:
                self._save(checkpoint)
                saved = time.monotonic()
        if self._best:
            restore(self._module, self._best)
        elif self._average is not None:
            restore(self._module, self._average.tensors)
        self._refuse_nan()
        seconds = time.monotonic() - began
        return History(
            steps=self._step,
            batch_size=feed.batch_size,
            n=feed.n,
            losses=tuple(self._losses),
            loss_before=self._before,
            loss_after=self._loss_on_probe(),
            n_probe=feed.n_probe,
            held_out=feed.n_held_out > 0,
            scores=tuple(self._scores),
            score_name=self._metric.name if self._metric is not None else "loss",
            best_epoch=self._best_epoch,
            stopped=stopped,
            n_held_zeros=self._zeros.count if self._zeros is not None else 0,
            seconds=seconds,
            feed_ratio=waited / max(seconds, 1e-9),
            notes=(*feed.notes, *self._notes()),
        )

    def _train_on(
        self, batch: TrainingBatch, total: int, after_step: Callable[[], None] | None
    ) -> None:
        training = self._training
        rate = training.learning_rate * factor(
            training.schedule, self._step, total, training.warmup_ratio
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        # Dropout draws from PyTorch's generator: seeded anew, a step needs no earlier one.
        torch.manual_seed(step_seed(self._context.seed, self._step))
        loss = self._compute.loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._zeros is not None:
            self._zeros.before_step()
        if training.clip_norm:
            nn.utils.clip_grad_norm_(self._learned, training.clip_norm)
        self._sum += loss.detach()
        if self.device == "cpu" or self._step % _CHECK_STEPS == 0:
            self._refuse_nan_loss()
        self._optimizer.step()
        if self._zeros is not None:
            self._zeros.after_step()
        if after_step is not None:
            after_step()
        self._step += 1
        if self._average is not None:
            self._average.update(self._step)

    def _loss_on_probe(self) -> float:
        loss = self._compute.judge(None)[0]
        if not math.isfinite(loss):
            raise self._diverged(loss)
        return loss

    def _end_epoch(self) -> None:
        self._refuse_nan_loss()
        self._losses.append(float(self._sum) / self._feed.steps)
        self._sum.zero_()
        if not self._feed.n_held_out:
            return
        live = None
        if self._average is not None:
            live = copied(state(self._module))
            restore(self._module, self._average.tensors)
        score = self._compute.judge(self._metric)[1]
        if not self._scores or self._better(score, self._scores[self._best_epoch - 1]):
            self._best = copied(state(self._module))
            self._best_epoch = len(self._scores) + 1
        self._scores.append(score)
        if live is not None:
            restore(self._module, live)

    def _better(self, score: float, than: float) -> bool:
        higher = self._metric is not None and self._metric.better == "higher"
        return score > than if higher else score < than

    def _stopped(self) -> str:
        """Returns why training ends now, or ""."""
        training = self._training
        if not self._scores or self._step % self._feed.steps:
            return ""
        name = self._metric.name if self._metric is not None else "loss"
        last = self._scores[-1]
        if training.stop_at is not None and (
            last == training.stop_at or self._better(last, training.stop_at)
        ):
            return f"the held-out {name} {last:.4g} reached {training.stop_at:.4g}"
        waited = len(self._scores) - self._best_epoch
        if training.patience and waited >= training.patience:
            return f"no better held-out {name} for {waited} epochs"
        return ""

    def _report(self, epoch: int, total: int, left_s: float) -> None:
        done = self._step % self._feed.steps
        loss = float(self._sum) / done if done else (self._losses or [math.nan])[-1]
        score = f", {self._scores[-1]:.4g}" if self._scores else ""
        left = f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min"
        work = f"epoch {epoch + 1}, loss {loss:.4g}{score}, {left} left"
        self._context.progress(work, self._step, total)

    def _refuse_nan_loss(self) -> None:
        if not bool(torch.isfinite(self._sum)):
            raise self._diverged(float(self._sum))

    def _refuse_nan(self) -> None:
        for name, tensor in self._module.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise Misuse(f"the training diverged: {name} is not finite; {self._advice()}")

    def _diverged(self, loss: float) -> Misuse:
        return Misuse(f"the loss is {loss} at step {self._step}; {self._advice()}")

    def _advice(self) -> str:
        training = self._training
        clip = "" if training.clip_norm else ", or set clip_norm to 1"
        return (
            f"lower learning_rate ({training.learning_rate:g}){clip}, and see whether the data or "
            "the loss gives what is not finite"
        )

    def _notes(self) -> Iterator[Skipped]:
        if self._training.device == "cuda" and self.device != "cuda":
            yield Skipped("device cuda", "PyTorch finds no GPU: trained on the CPU")

    def _save(self, path: Path) -> None:
        self._refuse_nan_loss()
        kept: dict[str, Any] = {
            "step": self._step,
            "module": copied(state(self._module)),
            "extra": copied(state(self._extra)) if self._extra is not None else {},
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.tensors if self._average is not None else {},
            "best": self._best,
            "best_epoch": self._best_epoch,
            "sum": self._sum,
            "losses": self._losses,
            "scores": self._scores,
            "before": self._before,
        }
        save_checkpoint(path, self._mark, kept)

    def _resume(self, kept: Mapping[str, Any]) -> None:
        restore(self._module, kept["module"])
        if self._extra is not None:
            restore(self._extra, kept["extra"])
        self._optimizer.load_state_dict(kept["optimizer"])
        if self._average is not None:
            self._average.tensors = kept["average"]
        self._step, self._best, self._best_epoch = kept["step"], kept["best"], kept["best_epoch"]
        self._sum = kept["sum"]
        self._losses, self._scores = kept["losses"], kept["scores"]
        self._before = kept["before"]
