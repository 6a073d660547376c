# SPDX-License-Identifier: Apache-2.0
"""What a model says about one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a served bundle says about one sample, as `burnish.open` says it at home.

    `outputs` are by name, without the batch axis; they came as JSON, so that their dtypes are
    numpy's own for the numbers there, and what JSON cannot hold is NaN. For a classifier with
    class names, `label` is the likeliest class, `score` its probability, and `scores` those of
    the likeliest few, likeliest first.
    """

    label: str | None = None
    score: float | None = None
    scores: tuple[tuple[str, float], ...] = ()
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
