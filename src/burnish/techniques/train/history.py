# SPDX-License-Identifier: Apache-2.0
"""What a training run did, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from burnish.core.technique import Skipped


@dataclass(frozen=True)
class History:
    """What `fit` did.

    `losses`: the mean training loss of each epoch. `loss_before`, `loss_after`: on `n_probe`
    samples in evaluation mode, held out (`held_out`) or the first of the training data.
    `scores`: the held-out metric `score_name` (or loss) after each epoch, and `best_epoch`
    (from 1) the one whose weights were kept. `stopped`: why training ended early, or "".
    `seconds` and `feed_ratio`, the share of them that was spent waiting for data, differ
    from run to run; all else follows from the seed.
    """

    steps: int
    batch_size: int
    n: int
    losses: tuple[float, ...]
    loss_before: float
    loss_after: float
    n_probe: int
    held_out: bool
    scores: tuple[float, ...] = ()
    score_name: str = "loss"
    best_epoch: int = 0
    stopped: str = ""
    n_held_zeros: int = 0
    seconds: float = field(default=0.0, compare=False)
    feed_ratio: float = field(default=0.0, compare=False)
    notes: tuple[Skipped, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Returns the run in words, the same for the same seed."""
        where = "held-out" if self.held_out else "training"
        lines = [
            f"{len(self.losses)} epochs of {self.n} samples, {self.steps} steps of "
            f"{self.batch_size}; loss on {self.n_probe} {where} samples "
            f"{self.loss_before:.4g} → {self.loss_after:.4g}"
        ]
        if self.scores:
            best = f"held-out {self.score_name} {self.scores[self.best_epoch - 1]:.4g}"
            lines.append(f"kept the weights of epoch {self.best_epoch}: {best}")
        if self.stopped:
            lines.append(f"ended early: {self.stopped}")
        if self.n_held_zeros:
            lines.append(f"{self.n_held_zeros} weights held at zero")
        return tuple(lines)
