# SPDX-License-Identifier: Apache-2.0
"""Allocations hold their budget; the knapsack loses no more than trying everything does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.techniques.prune.allocate import (
    Choice,
    allowed_widths,
    choice,
    greedy,
    knapsack,
    uniform,
    uniform_within,
    whole,
)


@st.composite
def problems(draw: st.DrawFn, most: int = 4) -> tuple[list[Choice], dict[str, tuple[int, ...]]]:
    """A few groups with random widths, losses that grow as widths shrink, and whole savings."""
    choices, savings = [], {}
    for number in range(draw(st.integers(1, most))):
        n = draw(st.integers(1, 4))
        losses = sorted(draw(st.lists(st.integers(0, 50), min_size=n - 1, max_size=n - 1)))[::-1]
        saved = sorted(draw(st.lists(st.integers(0, 20), min_size=n - 1, max_size=n - 1)))[::-1]
        one = Choice(f"g{number}", tuple(range(8, 8 * n + 1, 8)), (*map(float, losses), 0.0))
        choices.append(one)
        savings[one.name] = (*saved, 0)
    return choices, savings


def _everything(choices: list[Choice], savings: dict[str, tuple[int, ...]], needed: float) -> float:
    """Returns the least loss that saves what is needed, by trying all."""
    best = math.inf
    for places in itertools.product(*(range(len(one.widths)) for one in choices)):
        pairs = list(zip(choices, places, strict=True))
        if sum(savings[one.name][at] for one, at in pairs) >= needed:
            best = min(best, sum(one.losses[at] for one, at in pairs))
    return best


def _loss(choices: list[Choice], widths: dict[str, int]) -> float:
    return sum(one.losses[one.widths.index(widths[one.name])] for one in choices)


def _saved(
    choices: list[Choice], savings: dict[str, tuple[int, ...]], widths: dict[str, int]
) -> float:
    return sum(savings[one.name][one.widths.index(widths[one.name])] for one in choices)


@settings(max_examples=200, deadline=None)
@given(problems(), st.integers(1, 40))
def test_the_knapsack_is_exact_on_whole_units(problem, needed: int) -> None:
    choices, savings = problem
    if sum(max(one) for one in savings.values()) < needed:
        with pytest.raises(Misuse, match="narrowest"):
            knapsack(choices, savings, needed, steps=needed)
        return
    widths = knapsack(choices, savings, needed, steps=needed)
    assert _saved(choices, savings, widths) >= needed
    assert _loss(choices, widths) == _everything(choices, savings, needed)


@settings(max_examples=100, deadline=None)
@given(problems(), st.floats(0.1, 40))
def test_a_coarse_knapsack_is_as_good_as_the_best_of_a_little_more(problem, needed: float) -> None:
    choices, savings = problem
    steps = 64
    if sum(max(one) for one in savings.values()) < needed:
        return
    widths = knapsack(choices, savings, needed, steps)
    assert _saved(choices, savings, widths) >= needed * (1 - 1e-9)
    more = needed * (1 + len(choices) / steps)
    assert _loss(choices, widths) <= _everything(choices, savings, more)


def test_the_knapsack_beats_greed() -> None:
    """Greed takes the small cheap step first and then needs the large one all the same."""
    choices = [Choice("a", (8, 16), (3.0, 0.0)), Choice("b", (8, 16), (1.0, 0.0))]
    savings = {"a": (10.0, 0.0), "b": (4.0, 0.0)}

    def cost(widths) -> float:
        return 100 - _saved(choices, savings, widths)

    assert greedy(choices, cost, 90) == {"a": 8, "b": 8}
    assert knapsack(choices, savings, 10) == {"a": 8, "b": 16}


@settings(max_examples=100, deadline=None)
@given(problems(), st.floats(0, 1))
def test_greed_and_uniform_hold_a_budget_of_products(problem, share: float) -> None:
    choices, _ = problem

    def cost(widths) -> float:
        """As multiply-accumulates do: each layer costs its inputs times its outputs."""
        sides = [3, *widths.values(), 10]
        return float(sum(a * b for a, b in itertools.pairwise(sides)))

    full, least = cost(whole(choices)), cost({one.name: one.widths[0] for one in choices})
    budget = share * full
    for solve in (greedy, uniform_within):
        if budget < least:
            with pytest.raises(Misuse, match="cannot be met"):
                solve(choices, cost, budget)
            continue
        widths = solve(choices, cost, budget)
        assert cost(widths) <= budget
        assert all(widths[one.name] in one.widths for one in choices)
        if budget >= full:
            assert widths == whole(choices)


def test_greed_takes_the_least_loss_for_what_is_saved() -> None:
    choices = [Choice("cheap", (1, 2), (1.0, 0.0)), Choice("dear", (1, 2), (5.0, 0.0))]
    assert greedy(choices, lambda w: w["cheap"] + w["dear"], 3) == {"cheap": 1, "dear": 2}


@settings(deadline=None)
@given(st.integers(1, 5000), st.sampled_from([0, 1, 8, 16]), st.floats(0, 0.99))
def test_widths_are_aligned_few_and_end_whole(size: int, align: int, keep: float) -> None:
    widths = allowed_widths(size, align, keep)
    assert widths[-1] == size
    assert list(widths) == sorted(set(widths))
    assert len(widths) <= 65
    step = align or (8 if size <= 32 else 16)
    assert all(width % step == 0 and width >= keep * size for width in widths[:-1])


def test_uniform_takes_the_nearest_width() -> None:
    choices = [
        Choice("a", (8, 16), (1.0, 0.0)),
        Choice("b", (16, 32, 48, 64), (3.0, 2.0, 1.0, 0.0)),
    ]
    assert uniform(choices, 0.5) == {"a": 8, "b": 32}
    assert uniform(choices, 0.75) == {"a": 16, "b": 48}
    assert uniform(choices, 1.0) == whole(choices)


def test_a_width_loses_its_least_scores() -> None:
    made = choice("a", np.array([4.0, 1.0, 3.0, 2.0]), (1, 2, 4))
    assert made.losses == (6.0, 3.0, 0.0)
