# SPDX-License-Identifier: Apache-2.0
"""Serves one model file with Burnish and with other servers, in one run on one machine.

    python benchmarks/serving.py [--models mobilenet_v2 resnet56] [--peers Burnish mosec …]

How much of what the engine can do does each server hand on? All run the same ONNX file with
ONNX Runtime, on all cores, and get the same bytes: one sample as raw float32 in the body, raw
float32 back, never JSON of numbers. First each peer is tried with a few settings; the best for
many connections and the best for one are kept. Then servers take turns, in an order of its
own for each round: started, asked whether they answer right, warmed up, measured with `wrk`
(a closed loop, on the same cores), stopped. The ceiling is the engine called in process, the
best of streams × threads × batch, measured again in every round. Prints Markdown tables:
medians over the rounds, with the least and the most. Needs `wrk` and `make
bench-serving-env`; a peer that cannot be run is listed with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from serving_peers import case as cases
from serving_peers import client
from serving_peers.case import Case
from serving_peers.client import Run, Target
from serving_peers.peers import Config, Peer, peers
from serving_peers.process import NotUp, free_ports, running, work_folder

from burnish.measuring.machine import machine

MANY, ONE = 32, 1
_FAILURES = (NotUp, OSError, http.client.HTTPException, subprocess.SubprocessError)


@dataclass
class Contender:
    """A peer with its best settings and what was measured of it; keys are connections."""

    peer: Peer
    tried: list[tuple[Config, dict[int, Run] | str]] = field(default_factory=list)
    best: dict[int, Config] = field(default_factory=dict)
    runs: dict[int, list[tuple[int, Run]]] = field(default_factory=dict)
    """By connections: the round with what was seen."""
    difference_ratio: float = 0.0
    """How far an answer was from the engine's own, of the output's range."""
    faults: list[str] = field(default_factory=list)


def main() -> None:
    """Runs the comparison that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = peers(machine().cores)
    names = [one.name for one in every]
    parser.add_argument("--models", nargs="+", choices=cases.SIDES, default=list(cases.SIDES))
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each")
    parser.add_argument("--try", type=float, default=4, dest="trial", help="seconds of a trial")
    parser.add_argument("--up", type=float, default=60, help="seconds in which a server must be up")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the servers")
    parser.add_argument("--bundles", type=Path, help="a folder to keep the bundles in")
    parser.add_argument("--json", type=Path, help="a file for every single run")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk, or the like")
    left_out = {one.name: one.missing() for one in every if one.name in options.peers}
    chosen = [one for one in every if one.name in options.peers and not left_out[one.name]]
    conditions(chosen, {name: why for name, why in left_out.items() if why}, options)
    kept = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            say(f"{name}: making the bundle")
            folder = (options.bundles or Path(temporary)).resolve()  # servers run elsewhere
            case = cases.make(name, folder, options.trial / 4)
            kept[name] = one_model(case, chosen, options)
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1))


def conditions(
    chosen: Sequence[Peer], left_out: dict[str, str], options: argparse.Namespace
) -> None:
    """Prints under which conditions all was measured, and who is left out."""
    here = machine()
    print(
        f"{here.cpu_model}, {here.cores} cores, shared by server and wrk; {options.rounds} rounds "
        f"of {options.seconds:g} s. A range is the least and the most over the rounds.\n"
    )
    print("| server | version | ONNX Runtime | |\n|---|---|---|---|")
    for peer in chosen:
        cells = [peer.name, *peer.versions(), peer.remark]
        print("| " + " | ".join(cells) + " |", flush=True)
    for name, why in left_out.items():
        print(f"\n{name} is left out: {why}", flush=True)


def one_model(case: Case, chosen: Sequence[Peer], options: argparse.Namespace) -> dict[str, object]:
    """Prints the tables of one model; returns every run as data."""
    contenders = [Contender(one) for one in chosen]
    for contender in contenders:
        trials(contender, case, options)
    ceilings, alone = [], []
    rng = np.random.default_rng(options.seed)
    for turn in range(options.rounds):
        say(f"{case.name}: round {turn + 1} of {options.rounds}: the engine alone")
        ceilings.append(case.again(case.ceiling, options.seconds).samples_per_s.value)
        alone.append(case.again(case.alone, options.seconds / 2).latency_ms)
        for index in rng.permutation(len(contenders)):
            say(f"{case.name}: round {turn + 1} of {options.rounds}: {chosen[index].name}")
            measure(contenders[index], case, turn, options)
    report(case, contenders, ceilings, alone)
    return {
        "ceiling_per_s": ceilings,
        "alone_ms": alone,
        "runs": {
            one.peer.name: {
                str(connections): [{"round": turn, **vars(run)} for turn, run in runs]
                for connections, runs in one.runs.items()
            }
            for one in contenders
        },
    }


@contextlib.contextmanager
def served(
    peer: Peer, config: Config, case: Case, up_s: float
) -> Iterator[tuple[Target, Path, float]]:
    """Runs a peer; gives where it is, the body as a file, and how far its answers are off.

    Raises one of `_FAILURES` when it is not up in time or answers wrongly.
    """
    with work_folder() as temporary:
        work = Path(temporary)
        body = work / "body"
        body.write_bytes(case.bodies[0])
        port, *spare = free_ports(4)
        target = peer.target(port)
        environment = peer.environment(config, case, port, spare, work)
        command = peer.command(config, case, port)

        def answers() -> bool:
            return client.is_up(target, case.bodies[0])

        with running(command, environment, work / "log", answers, up_s):
            off = client.largest_difference(target, case.bodies, case.answers)
            if off > client.TOLERANCE_RATIO:
                raise NotUp(f"answers differ from the engine's by {off:.2g} of their range")
            yield target, body, off


def trials(contender: Contender, case: Case, options: argparse.Namespace) -> None:
    """Tries all settings of a peer and keeps the best for each number of connections."""
    seen: dict[int, dict[int, Run]] = {MANY: {}, ONE: {}}
    for number, config in enumerate(contender.peer.configs):
        say(f"{case.name}: trying {contender.peer.name} with {config}")
        try:
            with served(contender.peer, config, case, options.up) as (target, body, off):
                runs = {}
                for connections in (MANY, ONE):
                    client.wrk(target, body, connections, 1)
                    run = client.wrk(target, body, connections, options.trial)
                    runs[connections] = run
        except _FAILURES as failure:
            contender.tried.append((config, str(failure)))
            say(f"  {failure}")
            continue
        contender.difference_ratio = max(contender.difference_ratio, off)
        contender.tried.append((config, runs))
        say(f"  {runs[MANY].per_s:.1f}/s, {runs[ONE].p50_ms:.2f} ms alone")
        seen[MANY][number], seen[ONE][number] = runs[MANY], runs[ONE]
    if seen[MANY]:
        by_rate = max(seen[MANY], key=lambda number: seen[MANY][number].per_s)
        by_time = min(seen[ONE], key=lambda number: seen[ONE][number].p50_ms)
        configs = contender.peer.configs
        contender.best = {MANY: configs[by_rate], ONE: configs[by_time]}


def measure(contender: Contender, case: Case, turn: int, options: argparse.Namespace) -> None:
    """Measures a peer once with its best settings."""
    if not contender.best:
        return
    same = contender.best[MANY] is contender.best[ONE]
    for loads in [(MANY, ONE)] if same else [(MANY,), (ONE,)]:
        config = contender.best[loads[0]]
        try:
            with served(contender.peer, config, case, options.up) as (target, body, off):
                contender.difference_ratio = max(contender.difference_ratio, off)
                for connections in loads:
                    client.wrk(target, body, connections, options.warm_up)
                    run = client.wrk(target, body, connections, options.seconds)
                    contender.runs.setdefault(connections, []).append((turn, run))
        except _FAILURES as failure:
            contender.faults.append(f"round {turn + 1}, {config}: {failure}")
            say(f"  {failure}")


def report(
    case: Case, contenders: Sequence[Contender], ceilings: list[float], alone: list[float]
) -> None:
    """Prints the tables of one model."""
    body = len(case.bodies[0])
    top, single = case.ceiling, case.alone
    setting = f"{top.setting.streams} × {top.setting.threads} thr., batch {top.batch_size}"
    print(f"\n### {case.name}, int8, a body of {body:,} bytes, {MANY} connections\n")
    titles = ["server", "setting", "requests/s", "p50 ms", "p99 ms", "of the ceiling"]
    titles += ["Burnish's by this one's", "refused, lost"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    print(f"| the engine, in process | {setting} | {ranged(ceilings, 1)} | | | 1 | | |")
    own = next((one for one in contenders if one.peer.name == "Burnish"), None)
    own_rates = {turn: run.per_s for turn, run in own.runs.get(MANY, [])} if own else {}
    for one in contenders:
        runs = one.runs.get(MANY, [])
        if not runs:
            print(f"| {one.peer.name} | {why(one)} | | | | | | |")
            continue
        rates = [run.per_s for _, run in runs]
        shares = [run.per_s / ceilings[turn] for turn, run in runs]
        by = [own_rates[turn] / run.per_s for turn, run in runs if turn in own_rates and run.per_s]
        bad = [sum(run.refused for _, run in runs), sum(run.lost for _, run in runs)]
        cells = [one.peer.name, str(one.best[MANY]), ranged(rates, 1)]
        cells += [ranged([run.p50_ms for _, run in runs], 1)]
        cells += [ranged([run.p99_ms for _, run in runs], 1), ranged(shares, 2)]
        cells += [ranged(by, 2) if by and one is not own else "", ", ".join(map(str, bad))]
        print("| " + " | ".join(cells) + " |")
    setting = f"{single.setting.streams} × {single.setting.threads} thr."
    print(f"\n### {case.name}, {ONE} connection\n")
    titles = ["server", "setting", "p50 ms", "added to the engine's call, ms", "p99 ms"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    print(f"| the engine, in process | {setting} | {ranged(alone, 2)} | | |")
    for one in contenders:
        runs = one.runs.get(ONE, [])
        if not runs:
            print(f"| {one.peer.name} | {why(one)} | | | |")
            continue
        added = [run.p50_ms - alone[turn] for turn, run in runs]
        cells = [one.peer.name, str(one.best[ONE]), ranged([run.p50_ms for _, run in runs], 2)]
        cells += [ranged(added, 2), ranged([run.p99_ms for _, run in runs], 2)]
        print("| " + " | ".join(cells) + " |")
    off = max((one.difference_ratio for one in contenders), default=0.0)
    print(
        f"\nEvery server's answers to {len(case.bodies)} inputs sent at once were compared with "
        f"the engine's own at each start: they differ by at most {off:.1g} of their range."
    )
    for one in contenders:
        for fault in one.faults:
            print(f"\n{one.peer.name}, not measured: {fault}")
    print(f"\n{case.name}: what was tried, each for a short while:\n")
    print(f"| server | setting | requests/s at {MANY} | p50 ms at {ONE} |\n|---|---|---|---|")
    for one in contenders:
        for config, runs in one.tried:
            seen = f"{runs} | " if isinstance(runs, str) else ""
            if not isinstance(runs, str):
                seen = f"{runs[MANY].per_s:.1f} | {runs[ONE].p50_ms:.2f}"
            print(f"| {one.peer.name} | {config} | {seen} |", flush=True)


def why(contender: Contender) -> str:
    """Returns why there is nothing to show."""
    faults = [*contender.faults, *(one for _, one in contender.tried if isinstance(one, str))]
    return "not measured: " + (faults[0] if faults else "no setting came up")


def ranged(values: Sequence[float], digits: int) -> str:
    """Returns the median, and the range where there are several values."""
    middle = f"{float(np.median(values)):.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def say(text: str) -> None:
    """Tells how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
