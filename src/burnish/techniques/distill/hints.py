# SPDX-License-Identifier: Apache-2.0
"""Intermediate values that a student learns from its teacher's.

Where widths differ, a learned linear map (a 1×1 convolution) takes the student's to the
teacher's; it is trained along and then thrown away. Source: Romero et al. 2015
(FitNets, arXiv:1412.6550), section 2.2, with 1×1 in place of larger kernels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from burnish.core.errors import Misuse
from burnish.techniques.distill.losses import hint
from burnish.techniques.train.compute import TEACHER


class Hints(nn.Module):  # type: ignore[misc]
    """The sum of the pairs' losses; it holds the learned maps.

    `pairs`: (student's value, teacher's value). `student` and `teacher` hold each one's
    values for a few samples, which say where a map is needed.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        kind: str,
        student: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        seed: int,
    ) -> None:
        super().__init__()
        self._pairs, self._kind = tuple(pairs), kind
        self._axes: list[int | None] = []
        self.maps = nn.ModuleList()
        faults = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            for ours, theirs in self._pairs:
                mine, its = student[ours], teacher[theirs]
                axes = [
                    axis
                    for axis in range(1, mine.ndim)
                    if mine.ndim == its.ndim and mine.shape[axis] != its.shape[axis]
                ]
                if mine.ndim != its.ndim or len(axes) > 1 or not mine.is_floating_point():
                    faults.append(
                        f"{ours} {list(mine.shape[1:])} and {theirs} {list(its.shape[1:])}"
                    )
                    continue
                self._axes.append(axes[0] if axes else None)
                self.maps.append(
                    _linear(mine.shape[axes[0]], its.shape[axes[0]]) if axes else nn.Identity()
                )
        if faults:
            raise Misuse(
                "a hint's values must be floats alike but for one axis (the width), without the "
                f"batch: {'; '.join(faults)}"
            )

    def forward(self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the sum over the pairs, a scalar."""
        total = torch.zeros((), device=next(iter(outputs.values())).device)
        for (ours, theirs), axis, to in zip(self._pairs, self._axes, self.maps, strict=True):
            mine = outputs[ours]
            if axis is not None:
                mine = to(mine.movedim(axis, -1)).movedim(-1, axis)
            total = total + hint(self._kind, mine, inputs[TEACHER + theirs])
        return total


def _linear(width: int, other: int) -> nn.Module:
    made = nn.Linear(width, other)
    nn.init.normal_(made.weight, std=1 / math.sqrt(width))
    nn.init.zeros_(made.bias)
    return made
