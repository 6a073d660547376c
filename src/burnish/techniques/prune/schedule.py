# SPDX-License-Identifier: Apache-2.0
"""Prunes in rounds, and recovers what was lost after each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model, write_whole
from burnish.core.program import program
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.techniques.distill.distill import Distill
from burnish.techniques.prune.channels import PruneChannels
from burnish.techniques.prune.pruning import Pruning, Removal
from burnish.techniques.prune.weights import PruneWeights
from burnish.techniques.train.trained import TrainingTechnique
from burnish.techniques.train.training import whole

Schedule = Literal["cubic", "one_shot"]


@dataclass(frozen=True)
class _Round:
    """The model after a round, what is gone in all, and what was done in the round."""

    model: Model
    removal: Removal
    applied: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class PruneIteratively(Technique):
    """Prunes with `step` in `rounds`, and applies `recovery` after each.

    `step` is `prune_channels`, `prune_blocks` or `prune_weights`, with the whole amount.
    With `schedule` "cubic" much goes in the first rounds and little in the last: after
    round i of n the share 1 − (1 − i/n)³ of it (Zhu and Gupta 2017, arXiv:1710.01878,
    equation 1); "one_shot" takes all in one round. `recovery` is any technique: by default
    `distill` without labels, from the model that all began with; an empty `recipe` is
    none. What `prune_weights` zeroed is held at zero meanwhile. With `rewind`, what is left
    after each round's choice gets the weights that it had at the start, and is trained
    from there (Renda et al. 2020, arXiv:2003.02389).

    With a store each round is kept, so that a run that was killed goes on from it.
    """

    step: Technique = field(default_factory=PruneChannels)
    rounds: int = 4
    schedule: Schedule = "cubic"
    recovery: Technique = field(default_factory=Distill)
    rewind: bool = False
    name: ClassVar[str] = "prune_iteratively"

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.step, Pruning):
            faults.append(
                f"step must be prune_channels, prune_blocks or prune_weights, got {self.step!r}"
            )
        if not isinstance(self.recovery, Technique):
            faults.append(f"recovery must be a technique, got {self.recovery!r}")
        if not whole(self.rounds, 1):
            faults.append(f"rounds must be a whole number from 1, got {self.rounds!r}")
        if self.schedule not in get_args(Schedule):
            faults.append(str(unknown("schedule", str(self.schedule), get_args(Schedule))))
        elif self.schedule == "one_shot" and self.rounds != 1:
            faults.append(f"one_shot prunes in one round: set rounds = 1, got {self.rounds!r}")
        if not isinstance(self.rewind, bool):
            faults.append(f"rewind must be true or false, got {self.rewind!r}")
        if isinstance(self.step, PruneWeights) and self.step.pattern and self.rounds != 1:
            faults.append(f"a pattern has no shares to go by: set rounds = 1, got {self.rounds!r}")
        if faults:
            raise Misuse("; ".join(faults))

    def requires(self, model: Model, context: Context) -> None:
        """Raises what the step and the recovery require."""
        self.step.requires(model, context)
        self.recovery.requires(model, replace(context, original=context.original or model))

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the pruned and recovered model, and what each round did."""
        context = replace(context, original=context.original or model)
        applied: list[str] = []
        skipped: list[Skipped] = []
        state = _Round(model, {})
        for number in range(1, self.rounds + 1):
            context.progress("pruning rounds", number - 1, self.rounds)
            state = self._stored(number, model, state, context)
            head = f"round {number} of {self.rounds}: "
            applied += [head + line for line in state.applied]
            skipped += [one for one in state.skipped if one not in skipped]
        graph = state.model.edit()
        notes = self._step.plain(state.removal)
        pruned = model.derive(graph, self, **({"removal": notes} if notes else {}))
        return Outcome(pruned, tuple(applied), tuple(skipped))

    @property
    def _step(self) -> Pruning:
        if not isinstance(self.step, Pruning):
            raise Misuse(f"{self.step!r} does not prune")
        return self.step

    def share(self, number: int) -> float:
        """Returns how much of the whole amount is gone after a round, 0 to 1.

        >>> [round(PruneIteratively(rounds=2).share(i), 3) for i in (0, 1, 2)]
        [0.0, 0.875, 1.0]
        """
        return 1 - (1 - number / self.rounds) ** 3

    def _stored(self, number: int, start: Model, state: _Round, context: Context) -> _Round:
        if context.store is None:
            return self._round(number, start, state, context)

        def make(folder: Path) -> None:
            made = self._round(number, start, state, context)
            made.model.save(folder / "model.onnx")
            words: dict[str, Any] = {
                "removal": self._step.plain(made.removal),
                "applied": made.applied,
                "skipped": [(one.place, one.reason) for one in made.skipped],
            }
            write_whole(folder / "round.json", json.dumps(words).encode())

        folder = context.store.folder("pruned", self._key(number, start, state, context), make)
        words = json.loads((folder / "round.json").read_bytes())
        return _Round(
            Model.load(folder / "model.onnx"),
            words["removal"],
            tuple(words["applied"]),
            tuple(Skipped(place, reason) for place, reason in words["skipped"]),
        )

    def _key(self, number: int, start: Model, state: _Round, context: Context) -> str:
        task, original = context.task, context.original
        data = [
            samples.fingerprint()
            for samples in ((task.training, task.calibration) if task is not None else ())
            if samples is not None
        ]
        judged = [task.metric and task.metric.name, task.loss and task.loss.name] if task else []
        parts = [
            program(),
            self.to_dict(),
            number,
            start.digest,
            state.model.digest,
            original.digest if original is not None else "",
            self._step.plain(state.removal),
            data,
            judged,
            context.seed,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def _round(self, number: int, start: Model, state: _Round, context: Context) -> _Round:
        part = self._step.part(self.share(number), self.share(number - 1), start, state.model)
        if part is None:
            pruned = Outcome(state.model, (), (_nothing(number),))
            removal = state.removal
        else:
            chosen = part.choose(state.model, context)
            removal = self._step.merged(state.removal, chosen.removal)
            if self.rewind:
                pruned = part.carried_out(
                    start, dataclasses.replace(chosen, removal=removal), context.seed
                )
            else:
                pruned = part.carried_out(state.model, chosen, context.seed)
        recovered = _holding(self.recovery, self._step).apply(pruned.model, context)
        return _Round(
            recovered.model,
            removal,
            (*pruned.applied, *recovered.applied),
            (*pruned.skipped, *recovered.skipped),
        )


def _nothing(number: int) -> Skipped:
    return Skipped(f"pruning in round {number}", "earlier rounds took that much already")


def _holding(recovery: Technique, step: Pruning) -> Technique:
    """Returns the recovery, told to hold zeros where the step makes them."""
    if isinstance(step, PruneWeights) and isinstance(recovery, TrainingTechnique):
        held: Technique = replace(recovery, hold_zeros=True)
        return held
    return recovery
