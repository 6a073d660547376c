# SPDX-License-Identifier: Apache-2.0
"""Durations as people write them."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.optimizing.budget import Budget, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        (" 90 Sec ", 90),
        ("20 min", 1200),
        ("20minutes", 1200),
        ("1 minute", 60),
        ("1.5 h", 5400),
        ("2 hours", 7200),
        (0.5, 0.5),
        (3, 3),
    ],
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "min",
        "0",
        "0s",
        "-5",
        "-5 min",
        "5 weeks",
        "1e3",
        "1,5 h",
        "nan",
        "inf",
        "5 min 3 s",
        0,
        -1,
        float("nan"),
        float("inf"),
        None,
        [60],
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(Misuse, match="duration"):
        seconds(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_misuse(text):
    with contextlib.suppress(Misuse):
        assert seconds(text) > 0


def test_what_is_spent_and_left():
    budget = Budget(0.05)
    assert 0 < budget.left_s <= 0.05
    time.sleep(0.06)
    assert budget.spent_s >= 0.05
    assert budget.left_s == 0
