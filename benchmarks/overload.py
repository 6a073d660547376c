# SPDX-License-Identifier: Apache-2.0
"""Asks more of `burnish serve` than it can answer, and compares with the simulator's forecast.

    python benchmarks/overload.py [--model mobilenet_v2] [--slo-ms 60] [--loads 1.1 1.5 3]

How many requests are answered within the SLO when more come than can be answered, and how
soon do the others hear that they will not be? The ceiling is what a closed loop of 32
connections gets through without an SLO; the best goodput without overload is the highest of
Poisson traffic at `--shares` of it. Loads above it follow as Poisson traffic, latencies
counted from when a request was due, refusals from when it was sent. The generator shares
the machine's cores with the server. Beside each figure stands what the simulator, which
runs the same batcher, says of the same rate: with calls as they were in process, and with
batches that take as long to make and to run as the server saw in that very run. Prints a
Markdown table; medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from serving_peers import case as cases
from serving_peers import client
from serving_peers.case import Case
from serving_peers.client import Target
from serving_peers.peers import Config, Peer, peers
from serving_peers.process import HOST, free_ports, running, work_folder

from burnish.measuring.machine import machine
from burnish.serving.arrivals import poisson
from burnish.serving.batcher import Batcher
from burnish.serving.batching import Batching
from burnish.serving.lane import ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.load.histogram import Histogram
from burnish.serving.load.payload import given_payload
from burnish.serving.load.plan import LoadPlan
from burnish.serving.load.run import run_load
from burnish.serving.load.schedule import ClosedLoop, Poisson
from burnish.serving.load.slo import Slo
from burnish.serving.planning.call_times import CallTimes, Resampled
from burnish.serving.request import Batch
from burnish.serving.serving_plan import ServingPlan, serving_plan
from burnish.serving.simulator import Simulation, simulate
from serving import ranged, say

MODEL = "model"
CONNECTIONS, CLOSED = 512, 32
EXPIRED = 504
PROCESSES = 1
"""Of the generator, which here uses a fraction of a core."""


@dataclass
class Outcome:
    """What came of one rate; one value for each round."""

    offered: list[float] = field(default_factory=list)
    goodput: list[float] = field(default_factory=list)
    rejected_ratio: list[float] = field(default_factory=list)
    """Told so with 429 or 503."""
    expired_ratio: list[float] = field(default_factory=list)
    """Told so with 504, after their time had run out."""
    other_ratio: list[float] = field(default_factory=list)
    """Answered late, or failed in another way."""
    refusals: list[Histogram] = field(default_factory=list)
    """The time to a 429, 503 or 504."""
    in_process: list[Simulation] = field(default_factory=list)
    as_seen: list[Simulation] = field(default_factory=list)
    behind: int = 0
    """Rounds in which the generator could not keep its times."""


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=cases.SIDES, default="mobilenet_v2")
    parser.add_argument("--slo-ms", type=float, default=60)
    parser.add_argument("--loads", type=float, nargs="+", default=[1.1, 1.5, 3.0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each")
    parser.add_argument("--up", type=float, default=60, help="seconds in which it must be up")
    options = parser.parse_args()
    peer = next(one for one in peers(machine().cores) if one.name == "Burnish")
    with tempfile.TemporaryDirectory() as temporary:
        say(f"{options.model}: making the bundle")
        case = cases.make(options.model, Path(temporary), 1.0)
        outcomes = {one: Outcome() for one in [*options.shares, *options.loads]}
        ceilings = []
        for turn in range(options.rounds):
            with served(peer, case, [], options.up) as target:
                ceilings.append(closed_loop(target, case, options))
            say(f"round {turn + 1} of {options.rounds}: {ceilings[-1]:.0f}/s in a closed loop")
            for share, outcome in outcomes.items():
                per_s = share * float(np.median(ceilings))
                say(f"round {turn + 1} of {options.rounds}: {share:g} × the ceiling")
                with served(peer, case, ["--slo", f"{options.slo_ms:g}ms"], options.up) as target:
                    loaded(target, case, per_s, turn, outcome, options)
    report(case, ceilings, outcomes, options)


@contextlib.contextmanager
def served(peer: Peer, case: Case, flags: list[str], up_s: float) -> Iterator[Target]:
    """Runs `burnish serve` as the bundle's plan says, with further flags."""
    with work_folder() as temporary:
        port, *spare = free_ports(4)
        target, config = peer.target(port), Config(more={"as_measured": True})
        environment = peer.environment(config, case, port, spare, Path(temporary))
        command = [*peer.command(config, case, port), *flags]

        def answers() -> bool:
            return client.is_up(target, case.bodies[0])

        with running(command, environment, Path(temporary) / "log", answers, up_s):
            yield target


def load_plan(target: Target, case: Case, options: argparse.Namespace, **more: object) -> LoadPlan:
    """Returns the plan of a run; the body is the raw tensor."""
    payload = given_payload(MODEL, case.bodies[0], 0)
    fixed = {"duration_s": options.seconds, "warmup_s": options.warm_up, "processes": PROCESSES}
    return LoadPlan(f"http://{HOST}:{target.port}", payload, **{**fixed, **more})


def closed_loop(target: Target, case: Case, options: argparse.Namespace) -> float:
    """Returns how many requests a second are answered when each connection waits."""
    plan = load_plan(target, case, options, schedule=ClosedLoop(), connections=CLOSED)
    return run_load(plan).achieved_per_s


def loaded(
    target: Target,
    case: Case,
    per_s: float,
    turn: int,
    outcome: Outcome,
    options: argparse.Namespace,
) -> None:
    """Adds what comes of one rate in one round."""
    before, gathered_before_ms = call_times(target)
    plan = load_plan(
        target,
        case,
        options,
        schedule=Poisson(per_s),
        connections=CONNECTIONS,
        slo=Slo("p99", options.slo_ms),
        seed=turn,
    )
    result = run_load(plan)
    after, gathered_ms = call_times(target)
    seen = {
        size: (ms - before.get(size, (0.0, 0))[0], n - before.get(size, (0.0, 0))[1])
        for size, (ms, n) in after.items()
    }
    # Counted for each request of a batch, and about as long as the batch has rows.
    rows = sum(size * size * n for size, (_, n) in seen.items())
    row_ms = (gathered_ms - gathered_before_ms) / rows if rows else 0.0
    requests, rejected = result.requests, result.rejected
    expired = result.failures.get(str(EXPIRED), 0)
    outcome.offered.append(result.offered_per_s or 0.0)
    outcome.goodput.append(result.goodput_per_s or 0.0)
    outcome.rejected_ratio.append(rejected / requests)
    outcome.expired_ratio.append(expired / requests)
    outcome.other_ratio.append((requests - (result.in_slo or 0) - rejected - expired) / requests)
    outcome.refusals.append(result.refusals)
    outcome.behind += result.generator_behind
    means = {size: ms / n + row_ms * size for size, (ms, n) in seen.items() if n > 0}
    for simulations, service in (
        (outcome.in_process, in_process(case, turn)),
        (outcome.as_seen, mean_calls(means)),
    ):
        simulations.append(forecast(case, service, per_s, turn, options))


def call_times(target: Target) -> tuple[dict[int, tuple[float, int]], float]:
    """Returns what the server counted.

    The milliseconds in the engine and the calls, by batch size; and the milliseconds in which
    batches were made, once for each of their requests.
    """
    connection = http.client.HTTPConnection(HOST, target.port, timeout=10)
    connection.request("GET", f"/v2/models/{MODEL}/stats")
    said = json.loads(connection.getresponse().read())
    connection.close()
    counted = said["model_stats"][0]
    calls = [(one["batch_size"], one["compute_infer"]) for one in counted["batch_stats"]]
    gathered_ms = counted["inference_stats"]["compute_input"]["ns"] / 1e6
    return {size: (one["ns"] / 1e6, one["count"]) for size, one in calls}, gathered_ms


def planned(case: Case) -> ServingPlan:
    """Returns how the bundle is served."""
    return serving_plan(case.bundle.manifest["plan"])


def in_process(case: Case, turn: int) -> Callable[[Batch], float]:
    """Returns a service that takes as long as some call in process did."""
    setting = planned(case).setting
    calls = {one.batch_size: one.calls_ms for one in case.points if one.setting == setting}
    return Resampled(CallTimes(setting, calls), np.random.default_rng([turn, 1]))


def mean_calls(means_ms: dict[int, float]) -> Callable[[Batch], float]:
    """Returns a service that takes as long as the server's calls of that batch size on average.

    A size beyond the largest seen takes as much longer as it has more samples.
    """
    sizes = sorted(means_ms)
    times = [means_ms[size] for size in sizes]

    def service(batch: Batch) -> float:
        beyond = max(1.0, batch.size / sizes[-1])
        return beyond * float(np.interp(batch.size, sizes, times))

    return service


def forecast(
    case: Case,
    service: Callable[[Batch], float],
    per_s: float,
    turn: int,
    options: argparse.Namespace,
) -> Simulation:
    """Returns what the simulator says of Poisson traffic at this rate."""
    plan = planned(case)
    latency = LatencyModel(plan.table, plan.max_batch_size)
    batching = Batching(plan.setting.streams, options.slo_ms)
    batcher = Batcher(batching, lambda _: ServedShape(latency))
    traffic = poisson(per_s, options.seconds, np.random.default_rng([turn, 0]))
    return simulate(traffic, batcher, service)


def report(
    case: Case, ceilings: list[float], outcomes: dict[float, Outcome], options: argparse.Namespace
) -> None:
    """Prints the table."""
    here, engine, plan = machine(), case.ceiling.samples_per_s.value, planned(case)
    best = max((float(np.median(outcomes[one].goodput)), one) for one in options.shares)
    setting = f"{plan.setting.streams} × {plan.setting.threads} thr., batch ≤ {plan.max_batch_size}"
    print(
        f"{here.cpu_model}, {here.cores} cores, shared by server and generator; {options.rounds} "
        f"rounds of {options.seconds:g} s. {case.name}, int8, a body of {len(case.bodies[0]):,} "
        f"bytes; {setting}; SLO {options.slo_ms:g} ms.\n\n"
        f"Ceiling, a closed loop of {CLOSED} connections without an SLO: {ranged(ceilings, 1)}/s "
        f"(the engine alone, in process: {engine:.1f}/s). Best goodput without overload: "
        f"{best[0]:.1f}/s, at {best[1]:g} × the ceiling.\n"
    )
    titles = ["load", "offered/s", "in SLO/s", "of the best", "429, 503 %", "504 %"]
    titles += ["late or failed %", "to refusal, ms: p50, p99 (n)"]
    titles += [
        "simulated in SLO/s: calls in process",
        "calls as seen",
        "simulated p99 to refusal, ms: in process, as seen",
    ]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for share, one in outcomes.items():
        shares = [goodput / best[0] if best[0] else np.nan for goodput in one.goodput]
        cells = [f"{share:g} ×", ranged(one.offered, 1), ranged(one.goodput, 1), ranged(shares, 2)]
        for ratios in (one.rejected_ratio, one.expired_ratio, one.other_ratio):
            cells.append(ranged([100 * ratio for ratio in ratios], 1))
        cells.append(refusal(one))
        cells += [ranged([run.goodput_per_s for run in one.in_process], 1)]
        cells += [ranged([run.goodput_per_s for run in one.as_seen], 1)]
        cells.append(f"{simulated_refusal(one.in_process)}, {simulated_refusal(one.as_seen)}")
        print("| " + " | ".join(cells) + " |")
    for share, one in outcomes.items():
        if one.behind:
            print(
                f"\n{share:g} ×: the generator was behind its times in {one.behind} of "
                f"{len(one.offered)} rounds; latencies there are partly its own."
            )


def refusal(outcome: Outcome) -> str:
    """Returns the time to refusal, of all rounds together."""
    refusals = Histogram.merged(outcome.refusals)
    if not refusals.n:
        return "–"
    middle, high = refusals.percentiles_ms([50, 99])
    return f"{middle:.1f}, {high:.1f} ({refusals.n})"


def simulated_refusal(runs: list[Simulation]) -> str:
    """Returns the longest of the rounds' p99 of the time to refusal."""
    after = [run.time_to_rejection_ms[99.0] for run in runs if run.rejected_after_ms]
    return f"{max(after):.1f}" if after else "–"


if __name__ == "__main__":
    main()
