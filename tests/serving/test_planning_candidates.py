# SPDX-License-Identifier: Apache-2.0
from itertools import pairwise

import numpy as np
import pytest

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.serving.planning.candidates import largest_batches, settings, worth_doubling
from burnish.serving.planning.slo import Slo


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 6, 8, 12, 64, 192])
def test_settings_fit_the_cores_and_hold_both_extremes(cores):
    found = settings(cores)
    assert {Setting(cores, 1), Setting(1, cores)} <= set(found)
    assert len(set(found)) == len(found) <= 3 * cores.bit_length() + 3
    for one in found:
        assert cores / 4 < one.threads * one.streams <= cores
    with pytest.raises(Misuse, match="at least 1 core"):
        settings(0)


def rates(ms_of, sizes):
    return [(size, ms_of(size), 1e3 * size / ms_of(size)) for size in sizes]


def doubled(ms_of, slo_ms):
    """The sizes that would be measured."""
    sizes = [1]
    while worth_doubling(rates(ms_of, sizes), slo_ms):
        sizes.append(2 * sizes[-1])
    return sizes


def test_doubling_stops_where_it_no_longer_pays():
    assert doubled(lambda b: 10.0 * b, 1e6) == [1, 2, 4]  # two sizes in a row without a gain
    assert doubled(lambda b: 100.0 + b, 1e6)[-1] == 256
    assert doubled(lambda b: 10.0 + b, 60.0) == [1, 2, 4, 8, 16, 32]  # 2 · t(32) > 60 ms
    assert doubled(lambda b: 10.0 + b, 1.0) == [1]


def test_one_flat_size_alone_does_not_end_it():
    flat_at_2 = {1: 4.0, 2: 8.0, 4: 9.0, 8: 12.0}
    assert worth_doubling(rates(flat_at_2.get, [1, 2]), 1e3)
    assert worth_doubling(rates(flat_at_2.get, [1, 2, 4]), 1e3)


def test_largest_batches_each_answer_more_than_those_before():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = [2**n for n in range(rng.integers(1, 8))]
        ms = dict(zip(sizes, np.cumsum(rng.uniform(0.5, 8.0, len(sizes))), strict=True))
        slo_ms = rng.uniform(1, 60)
        table = rates(ms.get, sizes)
        found = largest_batches(table, slo_ms)
        per_s = {size: rate for size, _, rate in table}
        assert found[0] == 1
        for before, after in pairwise(found):
            assert after > before
            assert per_s[after] >= 1.03 * per_s[before]
            assert 2 * ms[after] <= slo_ms
        looser = largest_batches(table, 2 * slo_ms)
        assert found == looser[: len(found)]  # a looser SLO only adds


def test_batching_that_does_not_pay_is_not_tried():
    assert largest_batches(rates(lambda b: 5.0 * b, [1, 2, 4]), 1e3) == [1]


@pytest.mark.parametrize(
    ("ms", "percentile", "word"),
    [(0, 99, "above 0 ms"), (float("inf"), 99, "finite"), (1, 100, "99.99"), (1, 0.5, "from 1")],
)
def test_slo_out_of_range(ms, percentile, word):
    with pytest.raises(Misuse, match=word):
        Slo(ms, percentile)
