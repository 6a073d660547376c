# SPDX-License-Identifier: Apache-2.0
"""The choice among made-up tables: never dominated, and steady as the tables change."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from burnish.core.candidate import Setting
from burnish.serving.planning.behaviour import Behaviour
from burnish.serving.planning.selection import Considered, choose, contenders, nearest


def row(streams=1, batch=1, rate=100.0, latency=10.0, capacity=200.0, share=1.0, keeps=True):
    at = Behaviour(rate, share, keeps, latency, latency / 2, rate * share, 0.0, rate, 1000)
    return Considered(
        Setting(1, streams), batch, ((1, 5.0),), 100, 6.0, capacity, at=at if rate else None
    )


def tables(n, asked):
    """Random tables; values are coarse, so that equal ones occur."""
    rng = np.random.default_rng(7)
    for _ in range(n):
        yield [
            row(
                streams=int(rng.integers(1, 5)),
                batch=int(2 ** rng.integers(0, 5)),
                rate=50.0 if asked else float(rng.integers(0, 40) * 5),
                latency=float(rng.integers(4, 40) / 2),
                capacity=float(rng.integers(1, 40) * 5),
                keeps=bool(rng.random() < 0.7),
            )
            for _ in range(rng.integers(1, 12))
        ]


def merits(one, asked):
    """What is to be small."""
    first = -one.capacity_per_s if asked else -one.rate_per_s
    return np.array([first, one.latency_ms, one.max_batch_size])


@pytest.mark.parametrize("asked", [None, 50.0])
def test_the_choice_keeps_the_slo_and_is_never_dominated(asked):
    empty = 0
    for table in tables(400, asked):
        chosen = choose(table, asked)
        kept = [one for one in table if one.keeps]
        if not kept:
            assert chosen is None
            empty += 1
            continue
        assert chosen in kept
        own = merits(chosen, asked)
        for other in kept:
            theirs = merits(other, asked)
            assert not ((theirs <= own).all() and (theirs < own).any()), (chosen, other)
        if asked is None:
            assert chosen.rate_per_s >= 0.97 * max(one.rate_per_s for one in kept)
        else:
            assert chosen.latency_ms <= 1.03 * min(one.latency_ms for one in kept)
    assert 0 < empty < 200


@pytest.mark.parametrize("asked", [None, 50.0])
def test_more_to_choose_from_is_never_worse_and_order_does_not_matter(asked):
    rng = np.random.default_rng(1)
    for table in tables(200, asked):
        some = table[: int(rng.integers(1, len(table) + 1))]
        few, all_ = choose(some, asked), choose(table, asked)
        if few is not None:
            assert all_ is not None
            if asked is None:
                assert all_.rate_per_s >= 0.97 * few.rate_per_s
            else:
                assert all_.latency_ms <= 1.03 * few.latency_ms
        turned = choose([table[i] for i in rng.permutation(len(table))], asked)
        assert (turned is None) == (all_ is None)
        if all_ is not None:
            np.testing.assert_array_equal(merits(turned, asked), merits(all_, asked))


@pytest.mark.parametrize("asked", [None, 50.0])
def test_the_chosen_one_made_better_stays_chosen(asked):
    for table in tables(200, asked):
        chosen = choose(table, asked)
        if chosen is None:
            continue
        better_at = replace(chosen.at, latency_ms=0.5 * chosen.at.latency_ms)
        better = replace(chosen, at=better_at, capacity_per_s=2 * chosen.capacity_per_s)
        if asked is None:
            better = replace(better, at=replace(better_at, rate_per_s=2 * better_at.rate_per_s))
        rest = [one for one in table if one is not chosen]
        assert choose([*rest, better], asked) == better


def test_batching_is_taken_only_where_it_pays():
    alone, batched = row(streams=2, rate=100), row(batch=8, rate=102)
    assert choose([batched, alone], None) is alone
    assert choose([replace(batched, at=replace(batched.at, rate_per_s=110)), alone], None) != alone


def test_at_a_rate_the_lowest_latency_is_taken_and_then_the_room_to_grow():
    slow, fast, roomy = row(latency=12), row(latency=8), row(latency=8.1, batch=8, capacity=900)
    assert choose([slow, fast], 100.0) is fast
    assert choose([slow, fast, roomy], 100.0) is roomy


def test_nearest():
    few, most = row(share=0.5, keeps=False), row(streams=2, share=0.8, keeps=False)
    assert nearest([few, most]) is most
    assert choose([few, most], 100.0) is None
    none = [row(rate=0), replace(row(rate=0), alone_ms=4.0)]
    assert nearest(none).alone_ms == 4.0
    small, large = (replace(row(rate=0, capacity=c), passed_over="too little") for c in (5, 9))
    assert nearest([small, large]) is large
    assert contenders([small, large], 100.0, 4) == [large]


@pytest.mark.parametrize("asked", [None, 50.0])
def test_contenders_hold_the_best_and_nothing_far_from_it(asked):
    for table in tables(300, asked):
        found = contenders(table, asked, 4)
        assert 1 <= len(found) <= 4
        kept = [one for one in table if one.keeps]
        if not kept:
            continue
        if asked is None:
            best = max(one.rate_per_s for one in kept)
            assert found[0].rate_per_s == best
            assert all(one.rate_per_s >= 0.85 * best for one in found)
        else:
            best = min(one.latency_ms for one in kept)
            assert found[0].latency_ms == best
            assert all(one.keeps and one.latency_ms <= best / 0.85 + 1e-9 for one in found)


def test_rows_are_plain_data():
    data = replace(row(latency=math.inf), over=row().at).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["at"]["latency_ms"] is None
    assert data["over"]["rate_per_s"] == 100.0
