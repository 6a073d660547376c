# SPDX-License-Identifier: Apache-2.0
"""Proposes what to prune, and how much, for what int8 alone leaves a goal short of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from burnish.core.candidate import Candidate
from burnish.core.goal import Goal
from burnish.core.measurement import Measurement
from burnish.core.technique import Technique
from burnish.optimizing.entries import Entry
from burnish.techniques.prune.blocks import PruneBlocks
from burnish.techniques.prune.channels import PruneChannels

_LADDER = (0.3, 0.5, 0.7)  # shares of the multiply-accumulates that are tried
_LEAST_LEFT = 0.1  # of the latency or size: who needs less needs another network
MARGIN = 0.92
"""Of a latency aimed at: of what is measured at last, the whole interval must be in."""
_SIZE_MARGIN = 0.95  # of a size aimed at: scales and alignment come on top of the weights
_BLOCK_LADDER = (0.5, 0.75, 1.0, 1.5)  # of the blocks that would do if all took as long
_BLOCKS_TOO = 0.35  # from this share on, blocks and channels are cut together as well


@dataclass(frozen=True)
class Shortfall:
    """What a candidate misses.

    `latency_ratio` and `size_ratio` are the shares of its latency and size that may stay (1:
    it is fast or small enough); `smaller`: it takes too much memory or serves too little;
    `drop`: its metric is too low.
    """

    latency_ratio: float = 1.0
    size_ratio: float = 1.0
    smaller: bool = False
    drop: bool = False

    @property
    def structural(self) -> bool:
        """Whether the network itself must become smaller."""
        return self.latency_ratio < 1 or self.size_ratio < 1 or self.smaller

    @property
    def left(self) -> float:
        """The share that may stay, of the latency or the size, whichever is less."""
        return min(self.latency_ratio, self.size_ratio)

    @property
    def words(self) -> str:
        """What may stay: "80 % of the latency"."""
        shares = {"latency": self.latency_ratio, "size": self.size_ratio}
        said = [f"{100 * ratio:.0f} % of the {of}" for of, ratio in shares.items() if ratio < 1]
        return " and ".join([*said, *(["less memory or time"] if self.smaller else [])])


def shortfall(
    candidate: Candidate, fp32: Candidate, goal: Goal, *, raced_briefly: bool = False
) -> Shortfall:
    """Returns what the candidate misses of the goal: by value, but for the latency.

    The interval of a metric would narrow with more samples. That of a latency has had the
    time that there was, and a network that is a little smaller settles it: so its worse end
    counts. Where it was `raced_briefly` it is wide for that reason alone, and its value
    counts, with a margin.
    """
    own, base = candidate.measured, fp32.measured
    latency = size = 1.0
    if goal.max_latency_ms is not None and "latency" in own:
        one = own["latency"]
        latency = goal.max_latency_ms / (one.value / MARGIN if raced_briefly else one.high)
    if goal.min_speedup is not None and "speedup" in own:
        one = own["speedup"]
        speedup = one.value * MARGIN if raced_briefly else one.low
        latency = min(latency, speedup / goal.min_speedup)
    if "size" in own:
        if goal.max_size_bytes is not None:
            size = goal.max_size_bytes / own["size"].value
        if goal.max_size_ratio is not None and "size" in base:
            size = min(size, goal.max_size_ratio * base["size"].value / own["size"].value)
    smaller = _above(own, "memory", goal.max_memory_bytes) or (
        goal.min_throughput is not None
        and "throughput" in own
        and own["throughput"].value < goal.min_throughput
    )
    limit = goal.drop_limit(base["metric"].value) if "metric" in base else None
    return Shortfall(min(latency, 1.0), min(size, 1.0), smaller, _above(own, "drop", limit))


def _above(measured: Mapping[str, Measurement], quantity: str, limit: float | None) -> bool:
    return limit is not None and quantity in measured and measured[quantity].value > limit


@dataclass(frozen=True)
class Structure:
    """A smaller form of the network: the steps that cut it. Of one kind, the gentlest is kept."""

    kind: str
    name: str
    steps: tuple[Technique, ...]


def structures(short: Shortfall, lead: Entry, blocks: int) -> list[Structure]:
    """Returns what to try, for the engine and threads of the int8 model that falls short.

    `blocks` are the residual blocks of the network, some of which may be dropped: one after
    the other, so that a structure of fewer is a step on the way. What is cut soonest comes
    first. Empty where no more than a tenth of its latency or size may stay.
    """
    if short.left < _LEAST_LEFT:
        return []
    engine, threads = lead.engine.name, lead.setting.threads
    channels = PruneChannels(importance="taylor", engine=engine, threads=threads, seconds=8.0)
    block = PruneBlocks(samples=128)
    found = []
    amount = 0.0
    if short.latency_ratio < 1:
        amount = _amount(short.latency_ratio, MARGIN)
        for count in sorted({math.ceil(share * amount * blocks) for share in _BLOCK_LADDER}):
            if 0 < count < blocks:
                words = f"{count} of {blocks} blocks dropped"
                found.append(Structure("blocks", words, (block,) * count))
        steps = (replace(channels, amount=amount, of="latency"),)
        found.append(
            Structure("channels by latency", f"channels −{100 * amount:.0f} % latency", steps)
        )
        if amount >= _BLOCKS_TOO:
            half = round(1 - (1 - amount) ** 0.5, 3)
            both = (
                replace(
                    block, amount=half, of="latency", engine=engine, threads=threads, seconds=4.0
                ),
                replace(channels, amount=half, of="latency"),
            )
            name = f"blocks and channels −{100 * amount:.0f} % latency"
            found.append(Structure("blocks and channels", name, both))
    if short.size_ratio < 1:
        share = _amount(short.size_ratio, _SIZE_MARGIN)
        steps = (replace(channels, amount=share, of="size"),)
        found.append(Structure("channels by size", f"channels −{100 * share:.0f} % size", steps))
        amount = amount or share
    ladder = [share for share in _LADDER if share >= amount] or [_LADDER[-1]]
    for share in ladder:
        steps = (replace(channels, amount=share, of="macs"),)
        found.append(Structure("channels by MACs", f"channels −{100 * share:.0f} % MACs", steps))
    return found


def _amount(ratio: float, margin: float) -> float:
    """Returns the share to cut so that `ratio` is left, with a margin."""
    return round(1 - margin * ratio, 3)
