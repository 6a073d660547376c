# SPDX-License-Identifier: Apache-2.0
"""What batching costs where there is nothing to batch: a server with it beside one without.

    python benchmarks/low_load.py [--model resnet56] [--shares 0.05 0.15 0.3] [--seconds 10]

Both serve the same bundle as it was measured, one with batches of up to `--batch`, one with
batches of 1. Poisson traffic at a few shares of what a closed loop gets through asks them in
turns, with the same seed in each round. Prints the mean and median latencies and their
ratios: medians over the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np
from overload import CONNECTIONS, closed_loop, load_plan, planned, served
from serving_peers import case as cases
from serving_peers.peers import peers

from burnish.measuring.machine import machine
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import Poisson
from serving import ranged, say


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=cases.SIDES, default="resnet56")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.15, 0.3])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds before each")
    parser.add_argument("--up", type=float, default=60, help="seconds in which it must be up")
    options = parser.parse_args()
    peer = next(one for one in peers(machine().cores) if one.name == "Burnish")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say(f"{options.model}: making the bundle")
        case = cases.make(options.model, folder, 1.0)
        targets = {
            most: stack.enter_context(served(peer, case, ["--max-batch", str(most)], options.up))
            for most in (1, options.batch)
        }
        ceiling = closed_loop(targets[1], case, argparse.Namespace(seconds=5, warm_up=2))
        found: dict[float, dict[int, list[tuple[float, float]]]] = {}
        for share in options.shares:
            found[share] = {most: [] for most in targets}
            for turn in range(options.rounds):
                say(f"{share:g} of the ceiling: round {turn + 1} of {options.rounds}")
                order = sorted(targets, reverse=turn % 2 == 1)
                for most in order:
                    plan = load_plan(
                        targets[most],
                        case,
                        options,
                        schedule=Poisson(share * ceiling),
                        connections=CONNECTIONS,
                        seed=turn,
                    )
                    latency = run_load(plan).latency
                    (middle,) = latency.percentiles_ms([50])
                    found[share][most].append((latency.mean_ms, middle))
    setting = planned(case).setting
    print(
        f"{machine().cpu_model}, {machine().cores} cores, shared by servers and generator; "
        f"{options.rounds} rounds of {options.seconds:g} s. {case.name}, int8, "
        f"{len(case.bodies[0]):,} bytes; {setting.streams} × {setting.threads} thr.; "
        f"ceiling {ceiling:.0f}/s.\n"
    )
    titles = ["load", "batch ≤ 1: mean ms", f"batch ≤ {options.batch}: mean ms"]
    print("| " + " | ".join([*titles, "ratio of means", "ratio of medians"]) + " |")
    print("|---|" + "---:|" * 4)
    for share, by_most in found.items():
        alone, batched = np.array(by_most[1]), np.array(by_most[options.batch])
        ratios = batched / alone
        cells = [f"{share:g} ×", ranged(alone[:, 0], 2), ranged(batched[:, 0], 2)]
        cells += [ranged(ratios[:, 0], 3), ranged(ratios[:, 1], 3)]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
