# SPDX-License-Identifier: Apache-2.0
"""The settings of the training loop: plain data, the same for every technique that trains.

>>> Training(epochs=0, momentum=1.5)
Traceback (most recent call last):
burnish.core.errors.Misuse: epochs must be a whole number from 1, got 0; momentum must be a \
number from 0 to below 1, got 1.5
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from burnish.core.errors import Misuse, unknown

Optimizer = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "cosine", "constant"]
Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
AUGMENTATIONS = ("flip", "crop")


@dataclass(frozen=True)
class Training:
    """How a model is trained; `FineTune` says what each field means. What is 0 is off."""

    epochs: int = 10
    batch_size: int = 128
    samples: int = 0
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: Schedule = "one_cycle"
    warmup_ratio: float = 0.1
    clip_norm: float = 1.0
    mixup: float = 0.0
    augment: tuple[str, ...] = ()
    crop_padding: int = 4
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    precision: Precision = "auto"
    device: Device = "auto"
    channels_last: bool = True
    compiled: bool = False
    memory_bytes: int = 1 << 30
    hold_out_ratio: float = 0.0
    patience: int = 0
    stop_at: float | None = None
    hold_zeros: bool = False

    def __post_init__(self) -> None:
        if faults := self.faults():
            raise Misuse("; ".join(faults))

    def faults(self) -> list[str]:
        """Returns what is wrong with each field; a subclass adds its own."""
        faults = [
            f"{name} must be {words}, got {getattr(self, name)!r}"
            for name, (words, fine) in _RULES.items()
            if not fine(getattr(self, name))
        ]
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                faults.append(str(unknown(name, str(getattr(self, name)), get_args(kind))))
        if not isinstance(self.augment, tuple):
            faults.append(f"augment must be a list of names, got {self.augment!r}")
        else:
            wrong = [one for one in self.augment if one not in AUGMENTATIONS]
            faults += [str(unknown("augmentation", str(one), AUGMENTATIONS)) for one in wrong]
        if not faults and self.hold_out_ratio == 0 and (self.patience or self.stop_at is not None):
            faults.append(
                "patience and stop_at judge held-out samples: set hold_out_ratio, to 0.1 say"
            )
        return faults


def whole(value: Any, least: int) -> bool:
    """Returns whether the value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def number(value: Any, low: float, below: float) -> bool:
    """Returns whether the value is a number with low ≤ value < below."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value < below


_Rule = tuple[str, Callable[[Any], bool]]


def _from(least: int) -> _Rule:
    return f"a whole number from {least}", lambda value: whole(value, least)


def _between(low: float, below: float) -> _Rule:
    words = "a finite number from 0" if below == math.inf else f"a number from 0 to below {below:g}"
    return words, lambda value: number(value, low, below)


def _flag() -> _Rule:
    return "true or false", lambda value: isinstance(value, bool)


_RULES: dict[str, _Rule] = {
    "epochs": _from(1),
    "batch_size": _from(1),
    "samples": _from(0),
    "learning_rate": (
        "a finite number above 0",
        lambda value: number(value, 0, math.inf) and value > 0,
    ),
    "weight_decay": _between(0, math.inf),
    "momentum": _between(0, 1),
    "warmup_ratio": _between(0, 1),
    "clip_norm": _between(0, math.inf),
    "mixup": _between(0, math.inf),
    "crop_padding": _from(1),
    "label_smoothing": _between(0, 1),
    "ema_decay": _between(0, 1),
    "channels_last": _flag(),
    "compiled": _flag(),
    "memory_bytes": _from(1),
    "hold_out_ratio": (
        "a number from 0 to 0.5",
        lambda value: number(value, 0, 0.5) or value == 0.5,
    ),
    "patience": _from(0),
    "stop_at": (
        "a finite number",
        lambda value: value is None or number(value, -math.inf, math.inf),
    ),
    "hold_zeros": _flag(),
}
_CHOICES: dict[str, Any] = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "precision": Precision,
    "device": Device,
}
