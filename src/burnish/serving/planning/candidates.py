# SPDX-License-Identifier: Apache-2.0
"""Which threads, streams and batch sizes are worth measuring, and which largest batches to try."""

from __future__ import annotations

from collections.abc import Sequence

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse

GAIN = 0.03
"""By how much a larger batch must answer more samples a second to be worth it."""
MOST_ROWS = 256
_FLAT_SIZES = 2  # sizes in a row without a gain: one alone may be noise

Rates = Sequence[tuple[int, float, float]]
"""Batch size, median milliseconds of a call, samples a second; ascending from size 1."""


def settings(cores: int) -> list[Setting]:
    """Returns threads × streams that use more than a quarter of the cores, and not more than all.

    Threads and streams are powers of two, or what fills the cores.

    >>> [str(one) for one in settings(2)]
    ['1 thread × 1 stream', '1 thread × 2 streams', '2 threads × 1 stream']
    """
    if cores < 1:
        raise Misuse(f"expected at least 1 core, got {cores}")
    return [
        Setting(threads, streams)
        for threads in _counts(cores)
        for streams in _counts(cores // threads)
        if 4 * threads * streams > cores
    ]


def worth_doubling(rates: Rates, slo_ms: float) -> bool:
    """Returns whether a batch of twice the largest size may still pay.

    It does not once two sizes in a row brought no gain, nor where a request that just missed
    a batch would not make the next one: 2 · t(b) > `slo_ms`.
    """
    size, ms, _ = rates[-1]
    if 2 * ms > slo_ms or 2 * size > MOST_ROWS:
        return False
    before = rates[:-_FLAT_SIZES]
    best = max((rate for _, _, rate in before), default=0.0)
    return any(rate >= (1 + GAIN) * best for _, _, rate in rates[-_FLAT_SIZES:])


def largest_batches(rates: Rates, slo_ms: float) -> list[int]:
    """Returns the batch sizes to try as the largest: 1, and each that answers more than before.

    >>> largest_batches([(1, 4.0, 250.0), (2, 5.0, 400.0), (4, 9.9, 404.0)], slo_ms=50.0)
    [1, 2]
    """
    chosen = [1]
    best = rates[0][2]
    for size, ms, rate in rates[1:]:
        if 2 * ms > slo_ms:
            break
        if rate >= (1 + GAIN) * best:
            chosen.append(size)
            best = rate
    return chosen


def _counts(most: int) -> list[int]:
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
