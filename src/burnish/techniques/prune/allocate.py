# SPDX-License-Identifier: Apache-2.0
"""How many channels each group keeps, so that a budget holds at the least loss.

Nothing here knows of models: a group is its allowed widths and what each width loses.

>>> wide = Choice("wide", widths=(8, 16), losses=(1.0, 0.0))
>>> thin = Choice("thin", widths=(8, 16), losses=(9.0, 0.0))
>>> greedy([wide, thin], cost=lambda widths: widths["wide"] + widths["thin"], budget=24)
{'wide': 8, 'thin': 16}
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse

NARROW = 32
"""The most channels of a layer that is cut in steps of 8; wider ones go in steps of 16."""

_MOST_WIDTHS = 64
_HALVINGS = 40

Widths = dict[str, int]
CostOf = Callable[[Mapping[str, int]], float]


@dataclass(frozen=True)
class Choice:
    """A group's allowed widths, ascending, the last its whole size, and what each loses."""

    name: str
    widths: tuple[int, ...]
    losses: tuple[float, ...]


def allowed_widths(size: int, align: int, keep_ratio: float, each: int = 1) -> tuple[int, ...]:
    """Returns the widths a group of `size` channels may have, ascending, `size` the last.

    Multiples of `align` (0: of 16, or of 8 up to `NARROW` channels) from `keep_ratio` of
    the size; at most 64 of them, so wide groups go in larger steps. `each` is how many of
    its layer's outputs one channel stands for: an attention head is as wide as its
    dimensions, and aligned when these are.

    >>> allowed_widths(64, align=0, keep_ratio=0.25)
    (16, 32, 48, 64)
    >>> allowed_widths(32, align=0, keep_ratio=0.1)
    (8, 16, 24, 32)
    >>> allowed_widths(4, align=0, keep_ratio=0.1, each=64)
    (1, 2, 3, 4)
    >>> allowed_widths(12, align=16, keep_ratio=0.1)
    (12,)
    """
    step = align or (8 if size * each <= NARROW else 16)
    step //= math.gcd(step, each)
    step *= math.ceil(size / (step * _MOST_WIDTHS))
    least = max(1, math.ceil(keep_ratio * size))
    return (*(width for width in range(step, size, step) if width >= least), size)


def choice(name: str, scores: NDArray[np.float64], widths: Sequence[int]) -> Choice:
    """Returns the choice of a group whose least important channels go first."""
    lost = np.concatenate([[0.0], np.cumsum(np.sort(scores))])
    return Choice(name, tuple(widths), tuple(float(lost[len(scores) - one]) for one in widths))


def uniform(choices: Sequence[Choice], keep_ratio: float) -> Widths:
    """Returns for each group the allowed width nearest to its share, the wider of two."""
    return {
        one.name: min(one.widths, key=lambda w: (abs(w - keep_ratio * one.widths[-1]), -w))
        for one in choices
    }


def uniform_within(choices: Sequence[Choice], cost: CostOf, budget: float) -> Widths:
    """Returns the uniform widths of the largest ratio within the budget.

    `cost` must not fall with any width. Raises `Misuse` when the budget cannot be met.
    """
    if cost(whole(choices)) <= budget:
        return whole(choices)
    _refuse_unreachable(choices, cost, budget)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if cost(uniform(choices, middle)) <= budget:
            low = middle
        else:
            high = middle
    return uniform(choices, low)


def greedy(choices: Sequence[Choice], cost: CostOf, budget: float) -> Widths:
    """Returns widths within the budget: always the step that loses least for what it saves.

    `cost` must not fall with any width, and what one group saves must not grow when
    another gets narrower, as with multiply-accumulates: then old ratios of loss to saving
    are lower bounds, and few are computed anew. Raises `Misuse` when the budget cannot be
    met.
    """
    _refuse_unreachable(choices, cost, budget)
    widths, now = whole(choices), cost(whole(choices))
    at = {one.name: len(one.widths) - 1 for one in choices}

    def ratio(index: int) -> float:
        one = choices[index]
        place = at[one.name]
        saved = now - cost({**widths, one.name: one.widths[place - 1]})
        lost = max(0.0, one.losses[place - 1] - one.losses[place])
        return lost / saved if saved > 0 else math.inf

    heap = [(ratio(index), index) for index, one in enumerate(choices) if len(one.widths) > 1]
    heapq.heapify(heap)
    while now > budget:
        _, index = heapq.heappop(heap)
        fresh = ratio(index)
        if heap and (fresh, index) > heap[0]:
            heapq.heappush(heap, (fresh, index))
            continue
        one = choices[index]
        at[one.name] -= 1
        widths[one.name] = one.widths[at[one.name]]
        now = cost(widths)
        if at[one.name]:
            heapq.heappush(heap, (ratio(index), index))
    return widths


def knapsack(
    choices: Sequence[Choice],
    savings: Mapping[str, Sequence[float]],
    needed: float,
    steps: int = 4096,
) -> Widths:
    """Returns the widths of least loss whose savings add up to at least `needed`.

    A multiple-choice knapsack, solved exactly by dynamic programming over savings rounded
    down to `needed` / `steps`: no widths that save `needed` × (1 + groups / steps) lose
    less. `savings[name]` goes with the choice's widths. Raises `Misuse` when even the
    largest savings do not suffice. Source: Dudzinski and Walukiewicz 1987, section 3, for
    the recursion.
    """
    if needed <= 0:
        return whole(choices)
    most = sum(max(savings[one.name]) for one in choices)
    if most < needed:
        raise Misuse(f"{needed:.4g} is to be saved, and the narrowest widths save {most:.4g}")
    units = {
        one.name: [
            # What is a whole number but for its last bit counts as whole.
            min(steps, math.floor(max(0.0, s) * steps / needed + 1e-9))
            for s in savings[one.name]
        ]
        for one in choices
    }
    best = np.full(steps + 1, math.inf)
    best[0] = 0.0
    # taken[g][s]: the width taken in group g, and the savings before it, on the best way to s.
    taken: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for one in choices:
        after = np.full(steps + 1, math.inf)
        which, origin = np.zeros(steps + 1, np.int64), np.zeros(steps + 1, np.int64)
        for place in reversed(range(len(one.widths))):  # of equals, the wider
            unit, loss = units[one.name][place], one.losses[place]
            moved = np.full(steps + 1, math.inf)
            moved[unit:] = best[: steps + 1 - unit] + loss
            source = np.arange(steps + 1) - unit
            top = steps - unit + int(np.argmin(best[steps - unit :]))  # more than enough counts too
            moved[steps], source[steps] = best[top] + loss, top
            better = moved < after
            after[better], which[better], origin[better] = moved[better], place, source[better]
        taken.append((which, origin))
        best = after
    if not math.isfinite(best[steps]):  # only rounding down stands between
        return {
            one.name: max(zip(savings[one.name], one.widths, strict=True))[1] for one in choices
        }
    widths: Widths = {}
    state = steps
    for one, (which, origin) in zip(reversed(choices), reversed(taken), strict=True):
        widths[one.name] = one.widths[int(which[state])]
        state = int(origin[state])
    return {one.name: widths[one.name] for one in choices}


def whole(choices: Sequence[Choice]) -> Widths:
    """Returns every group's whole size."""
    return {one.name: one.widths[-1] for one in choices}


def _refuse_unreachable(choices: Sequence[Choice], cost: CostOf, budget: float) -> None:
    least = cost({one.name: one.widths[0] for one in choices})
    if least > budget:
        raise Misuse(
            f"the budget of {budget:.4g} cannot be met: the narrowest allowed widths of the "
            f"{len(choices)} groups that can be cut cost {least:.4g}"
        )
