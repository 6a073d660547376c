# SPDX-License-Identifier: Apache-2.0
"""Tokens and rates: who is let in, and when others may ask again."""

from __future__ import annotations

import pytest

from burnish.serving.gate import Rate, Tokens
from burnish.serving.oip.faults import Fault
from burnish.serving.refusals import Refused


def test_without_tokens_all_may_ask_and_with_them_only_who_has_one() -> None:
    Tokens(()).check("")
    tokens = Tokens(("one", "two"))
    tokens.check("Bearer one")
    tokens.check("bearer two")
    for wrong in ("", "Bearer", "Bearer three", "Basic one", "one", "Bearer one two", "Bearer ü"):
        with pytest.raises(Fault) as caught:
            tokens.check(wrong)
        assert caught.value.status == 401


def test_a_client_has_its_share_and_no_more_and_hears_when_to_ask_again() -> None:
    now = 0.0
    rate = Rate(2.0, lambda: now)
    rate.check("a")
    rate.check("a")
    with pytest.raises(Refused) as caught:
        rate.check("a")
    assert caught.value.status == 429
    assert caught.value.retry_after_ms == pytest.approx(500.0)
    rate.check("b")
    now = 0.5
    rate.check("a")
    with pytest.raises(Refused):
        rate.check("a")


def test_the_rate_remembers_a_bounded_number_of_clients() -> None:
    rate = Rate(1.0, lambda: 0.0)
    for number in range(20_000):
        rate.check(str(number))
    assert len(rate._left) <= 10_000
