# SPDX-License-Identifier: Apache-2.0
"""Runs `burnish measure` several times on one file and prints how well the runs agree.

    python benchmarks/repeatability.py MODEL [--runs 6] [-- further options of measure]

Each run is a fresh process that reuses nothing. For each engine it prints every latency
with its interval, and how many pairs of runs have intervals that overlap.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from burnish.core.measurement import Measurement


def main() -> None:
    """Runs the command and compares what it gave."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="the MODEL of burnish measure")
    parser.add_argument("--runs", type=int, default=6)
    parser.epilog = "What follows -- is given to burnish measure."
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, more = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    by_engine: dict[str, list[Measurement]] = {}
    for run in range(options.runs):
        print(f"run {run + 1} of {options.runs}", file=sys.stderr, flush=True)
        for engine, latency in measured([options.model, *more]).items():
            by_engine.setdefault(engine, []).append(latency)
    pairs = agree = 0
    for engine, latencies in by_engine.items():
        print(f"{engine}:")
        for one in latencies:
            print(f"  {one}")
        overlaps = [a.overlaps(b) for a, b in itertools.combinations(latencies, 2)]
        middle = sorted(one.value for one in latencies)[len(latencies) // 2]
        spread = max(abs(one.value / middle - 1) for one in latencies)
        print(f"  {sum(overlaps)} of {len(overlaps)} pairs overlap; ± {100 * spread:.1f} %")
        pairs, agree = pairs + len(overlaps), agree + sum(overlaps)
    if pairs:
        print(f"{agree} of {pairs} pairs of intervals overlap ({100 * agree / pairs:.0f} %)")


def measured(arguments: list[str]) -> dict[str, Measurement]:
    """Returns the latency by engine from one run of `burnish measure` in a fresh process."""
    with tempfile.TemporaryDirectory() as store:
        done = subprocess.run(
            [Path(sys.executable).with_name("burnish"), "measure", "--json", *arguments],
            env={**os.environ, "BURNISH_STORE": store},
            stdout=subprocess.PIPE,
            check=True,
        )
    data = json.loads(done.stdout)
    return {
        one["engine"]: Measurement.from_dict(one["measured"]["latency"])
        for one in data["candidates"]
    }


if __name__ == "__main__":
    main()
