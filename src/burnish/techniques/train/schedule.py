# SPDX-License-Identifier: Apache-2.0
"""The learning rate at each step, as a share of the highest.

>>> [round(factor("cosine", step, 4, 0.0), 3) for step in range(4)]
[1.0, 0.854, 0.5, 0.146]
"""

from __future__ import annotations

import math

from burnish.techniques.train.training import Schedule

_START = 1 / 25
_END = _START / 1e4


def factor(schedule: Schedule, step: int, steps: int, warmup_ratio: float) -> float:
    """Returns the share of the highest learning rate at `step` of 0..steps - 1: 0 to 1.

    "one_cycle" rises from 1/25 along a cosine and falls to nothing along another; the
    others rise linearly, then fall along a cosine or stay. Source: Smith and Topin 2018
    (arXiv:1708.07120), with the cosines of PyTorch's OneCycleLR; Loshchilov and Hutter
    2017 (arXiv:1608.03983), equation 5, without restarts.
    """
    if schedule == "one_cycle":
        top = max(warmup_ratio * steps - 1, 0.0)
        if step <= top:
            return _anneal(_START, 1.0, step / top) if top else 1.0
        return _anneal(1.0, _END, (step - top) / max(steps - 1 - top, 1.0))
    warmup = round(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return _anneal(1.0, 0.0, (step - warmup) / (steps - warmup))


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * min(share, 1.0)))
