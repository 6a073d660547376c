# SPDX-License-Identifier: Apache-2.0
"""The schedules are PyTorch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.techniques.train.schedule import factor


def _torch_rates(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.3), (50, 0.1), (20, 0.5)])
def test_one_cycle_is_that_of_pytorch(steps: int, warmup: float) -> None:
    expected = _torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, max_lr=1.0, total_steps=steps + 1, pct_start=warmup, cycle_momentum=False
        ),
        steps,
    )
    # PyTorch's has a place for the rate after the last step.
    got = [factor("one_cycle", step, steps + 1, warmup) for step in range(steps)]
    assert got == pytest.approx(expected, abs=1e-12)


def test_cosine_is_that_of_pytorch() -> None:
    expected = _torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30), 30)
    assert [factor("cosine", step, 30, 0.0) for step in range(30)] == pytest.approx(expected)


def test_warm_up_rises_evenly_and_then_stays() -> None:
    got = [factor("constant", step, 20, 0.2) for step in range(20)]
    assert got == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 16)


@given(
    st.sampled_from(["one_cycle", "cosine", "constant"]),
    st.integers(1, 300),
    st.floats(0, 0.99),
)
def test_a_share_is_always_above_0_and_at_most_1(schedule, steps: int, warmup: float) -> None:
    shares = [factor(schedule, step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares[: max(1, steps - 1)])
    assert 0 <= shares[-1] <= 1
