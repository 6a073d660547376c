# SPDX-License-Identifier: Apache-2.0
"""What would come of a setting under traffic: the batcher that serves, simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from burnish.serving.arrivals import poisson
from burnish.serving.batcher import Batcher
from burnish.serving.batching import Batching
from burnish.serving.lane import ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.planning.call_times import CallTimes, Resampled
from burnish.serving.planning.slo import Slo
from burnish.serving.simulator import Simulation, simulate

MOST_PER_S = 20_000.0
"""The largest rate that is looked for: beyond, the server's own work decides."""
_BEYOND = 5  # requests expected beyond the percentile, in each trace
_SLOS = 10.0  # a trace lasts this many times the SLO: queues must have time to grow
_FEWEST, _ENOUGH, _MOST = 300, 4_000, 20_000  # requests of a trace
_HOPELESS = 2.0  # so many times the misses that are allowed
_LIGHT = (0.02, 0.001)  # shares of the capacity, to see whether anything keeps the SLO
_COARSE, _PRECISION = 0.1, 0.02


@dataclass(frozen=True)
class Behaviour:
    """What Poisson arrivals at one rate would see, the network left out."""

    rate_per_s: float
    in_slo_ratio: float
    """The share of all requests that were answered within the SLO."""
    keeps: bool
    """Whether that is the asked percentile or more."""
    latency_ms: float
    """The asked percentile over all requests, a refused one counted as infinite."""
    median_ms: float
    goodput_per_s: float
    """Requests answered within the SLO, a second."""
    goodput_low_per_s: float
    goodput_high_per_s: float
    """The least and the most over the seeds."""
    requests: int


@dataclass(frozen=True)
class Traffic:
    """Made-up traffic: the seeds of its traces, each an independent repetition."""

    seed: int = 0
    seeds: int = 3

    def behaviour(self, times: CallTimes, slo: Slo, rate_per_s: float) -> Behaviour:
        """Returns what comes of serving in batches up to the largest of `times` at this rate."""
        runs = [self._run(times, slo, rate_per_s, one) for one in range(self.seeds)]
        return _behaviour(runs, slo, rate_per_s)

    def largest_rate(self, times: CallTimes, slo: Slo) -> Behaviour | None:
        """Returns the behaviour at the largest rate that keeps the SLO, or None without one.

        The rate is found to 2 % from below; a tenth of a percent of the capacity is the
        smallest that is tried, `MOST_PER_S` the largest.
        """
        # No more than the capacity is answered in the long run, whatever a short trace says.
        most = most_per_s(times.capacity_per_s, slo)
        if most == MOST_PER_S:
            found = self._unless_hopeless(times, slo, most)
            if found is not None and found.keeps:
                return found
        kept = self._between(times, slo, most, None, _COARSE)
        if kept is None or self.seeds == 1:
            return kept and self._between(times, slo, most, kept, _PRECISION)
        # One trace has told where to look; all of them judge.
        rate_per_s = kept.rate_per_s
        for share in (1.0, 0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.01):
            kept = self.behaviour(times, slo, share * rate_per_s)
            if kept.keeps:
                ceiling = min(most, (share + 2 * _COARSE) * rate_per_s)
                return self._between(times, slo, ceiling, kept, _PRECISION)
        return None

    def _between(
        self, times: CallTimes, slo: Slo, most: float, kept: Behaviour | None, precision: float
    ) -> Behaviour | None:
        """Returns the largest found from `kept` to a rate of `most`; without one, from 0 and by
        one trace only."""
        traffic = self
        if kept is None:
            traffic = replace(self, seeds=1)
            lightly = (traffic.behaviour(times, slo, share * most) for share in _LIGHT)
            kept = next((one for one in lightly if one.keeps), None)
        while kept is not None and most - kept.rate_per_s > precision * most:
            between_per_s = (kept.rate_per_s + most) / 2
            between = traffic._unless_hopeless(times, slo, between_per_s)
            if between is not None and between.keeps:
                kept = between
            else:
                most = between_per_s
        return kept

    def _unless_hopeless(self, times: CallTimes, slo: Slo, rate_per_s: float) -> Behaviour | None:
        """Returns the behaviour, or None when the first traces plainly miss the SLO."""
        runs: list[Simulation] = []
        for one in range(self.seeds):
            runs.append(self._run(times, slo, rate_per_s, one))
            offered = sum(run.offered for run in runs)
            missed = offered - sum(run.in_slo for run in runs)
            if missed > _HOPELESS * (1 - slo.ratio) * offered + _HOPELESS:
                return None
        return _behaviour(runs, slo, rate_per_s)

    def _run(self, times: CallTimes, slo: Slo, rate_per_s: float, one: int) -> Simulation:
        lasting = min(_ENOUGH, _SLOS * slo.ms / 1e3 * rate_per_s)
        enough = max(_FEWEST, _BEYOND / (1 - slo.ratio), lasting)
        seconds = min(enough, _MOST) / rate_per_s
        arrivals = poisson(rate_per_s, seconds, np.random.default_rng([self.seed, one, 0]))
        latency = LatencyModel(times.table)
        batcher = Batcher(
            Batching(times.setting.streams, slo.ms), lambda _: ServedShape(latency, 0)
        )
        service = Resampled(times, np.random.default_rng([self.seed, one, 1]))
        return simulate(arrivals, batcher, service)


def most_per_s(capacity_per_s: float, slo: Slo) -> float:
    """Returns the largest rate that may keep the SLO with streams that never wait."""
    return min(MOST_PER_S, capacity_per_s / slo.ratio)


def _behaviour(runs: Sequence[Simulation], slo: Slo, rate_per_s: float) -> Behaviour:
    offered = sum(run.offered for run in runs)
    in_slo = sum(run.in_slo for run in runs)
    answered = np.sort(np.concatenate([run.latencies_ms for run in runs]))
    goodputs = [run.goodput_per_s for run in runs]
    duration_s = sum(run.duration_ms for run in runs) / 1e3
    return Behaviour(
        rate_per_s=rate_per_s,
        in_slo_ratio=in_slo / offered,
        keeps=in_slo >= slo.ratio * offered,
        latency_ms=_at(answered, math.ceil(slo.ratio * offered)),
        median_ms=_at(answered, math.ceil(0.5 * offered)),
        goodput_per_s=in_slo / duration_s,
        goodput_low_per_s=min(goodputs),
        goodput_high_per_s=max(goodputs),
        requests=offered,
    )


def _at(ordered: NDArray[np.float64], rank: int) -> float:
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf
