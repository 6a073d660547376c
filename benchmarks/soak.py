# SPDX-License-Identifier: Apache-2.0
"""Serves at a share of what it can, for an hour: does memory grow, does anything fail?

    python benchmarks/soak.py [--model mobilenet_v2] [--minutes 60] [--load 0.7]

The ceiling is what a closed loop of 32 connections gets through; then Poisson traffic at
`--load` of it runs to the end, from the same two cores. Each minute's latencies, failures,
memory, and how late the event loop came to its heartbeat are printed. Exits with 1 when a
request failed, when the median memory of the last third is more than 5 % and 16 MiB above
that of the third before, or when the heartbeat's p99.9 is 20 ms or more.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from overload import CONNECTIONS, closed_loop, load_plan, served
from serving_peers import case as cases
from serving_peers.client import Target
from serving_peers.peers import peers
from serving_peers.process import HOST

from burnish.measuring.machine import machine
from burnish.serving.counts import Histogram
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import Poisson
from serving import say

MOST_LAG_MS = 20.0
MOST_GROWN_RATIO, MOST_GROWN_BYTES = 1.05, 16 * 2**20
MIB = 2**20


def main() -> int:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=cases.SIDES, default="mobilenet_v2")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--load", type=float, default=0.7, help="share of the ceiling")
    parser.add_argument("--seconds", type=float, default=60, help="of each row of the table")
    parser.add_argument("--up", type=float, default=60, help="seconds in which it must be up")
    options = parser.parse_args()
    options.warm_up = 0.0
    peer = next(one for one in peers(machine().cores) if one.name == "Burnish")
    resident, failed, requests = [], 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        say(f"{options.model}: making the bundle")
        case = cases.make(options.model, Path(temporary), 1.0)
        with served(peer, case, [], options.up) as target:
            ceiling = closed_loop(target, case, argparse.Namespace(seconds=10, warm_up=3))
            print(f"{machine().cpu_model}, {machine().cores} cores; ceiling {ceiling:.0f}/s\n")
            print("| minute | requests/s | p50 ms | p99 ms | failed | memory MiB | loop p99.9 ms |")
            print("|---:|" + "---:|" * 6)
            began = status(target)
            for turn in range(max(1, round(60 * options.minutes / options.seconds))):
                schedule = Poisson(options.load * ceiling)
                plan = load_plan(
                    target, case, options, schedule=schedule, connections=CONNECTIONS, seed=turn
                )
                before, result = status(target), run_load(plan)
                now = status(target)
                resident.append(now["server"]["resident_bytes"])
                bad = sum(result.failures.values())
                failed, requests = failed + bad, requests + result.requests
                cells = [f"{(turn + 1) * options.seconds / 60:g}", f"{result.achieved_per_s:.0f}"]
                cells += [f"{result.percentile_ms(rank):.2f}" for rank in (50, 99)]
                cells += [str(dict(result.failures) or 0), f"{resident[-1] / MIB:.0f}"]
                cells.append(f"{lag(before, now):.2f}")
                print("| " + " | ".join(cells) + " |", flush=True)
            whole = lag(began, status(target))
    third = max(1, len(resident) // 3)
    earlier, later = (float(np.median(part)) for part in (resident[-2 * third : -third or None],
                                                          resident[-third:]))  # fmt: skip
    print(f"\n{requests} requests, {failed} failed; memory {earlier / MIB:.0f} MiB in the second "
          f"third, {later / MIB:.0f} MiB in the last; heartbeat p99.9 {whole:.2f} ms")  # fmt: skip
    grown = later > MOST_GROWN_RATIO * earlier and later - earlier > MOST_GROWN_BYTES
    good = not failed and not grown and whole < MOST_LAG_MS
    print("memory is flat, nothing failed, and the loop is never late" if good else "FAILED")
    return 0 if good else 1


def status(target: Target) -> dict[str, Any]:
    """Returns what the server tells of itself."""
    connection = http.client.HTTPConnection(HOST, target.port, timeout=30)
    connection.request("GET", "/status.json")
    said: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return said


def lag(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Returns p99.9 of how late the event loop was between two moments, in milliseconds."""
    counts = np.zeros(len(after["bounds_ms"]) + 1, int)
    for sign, one in ((-1, before), (1, after)):
        seen = one["loop_lag"]["counts"]
        counts[: len(seen)] += sign * np.asarray(seen, int)
    return Histogram(counts.tolist(), int(counts.sum())).quantile_ms(0.999)


if __name__ == "__main__":
    sys.exit(main())
