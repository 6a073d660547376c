# SPDX-License-Identifier: Apache-2.0
"""The verdict in sentences: what was chosen, what it gains, what it costs, what is open."""

from __future__ import annotations

from dataclasses import dataclass, replace

from burnish.core.candidate import Candidate
from burnish.core.goal import Status, Verdict
from burnish.core.measurement import Measurement
from burnish.optimizing.report import figures, names
from burnish.optimizing.result import Result

_QUANTITIES = {
    "drop": "drop",
    "latency": "latency",
    "speed-up": "speedup",
    "size": "size",
    "memory": "memory",
    "throughput": "throughput",
}


@dataclass(frozen=True)
class Headline:
    """`verdict` is short ("Goal met"), `sentence` says it all in one line."""

    status: Status
    verdict: str
    sentence: str
    short: str
    """The sentence without its intervals, for where they stand beside it."""
    chosen: str
    open: tuple[str, ...]
    """The limits that are not met or not shown, one sentence each."""


def headline(result: Result) -> Headline:
    """Returns the result's verdict in words."""
    best = result.best
    kept = not best.recipe and best.model == result.fp32.model
    name, where = names.printable(best.name) or "unnamed", names.setting(best)
    goal = result.goal.to_dict().items()
    limits = any(value is not None for name, value in goal if name != "objective")
    verdict = f"Goal {result.status}" if limits else "No limit was set"
    if kept:
        chosen = f"The original model on {where}"
        tried = bool(result.candidates or result.passed_over)
        reason = "no candidate was better" if tried else "nothing else was tried"
        said = short = f"{reason}, and the original is kept as it is"
    else:
        chosen = f"{name} on {where}"
        said = "; ".join(filter(None, (_gains(result, True), _cost(result, True))))
        short = "; ".join(filter(None, (_gains(result, False), _cost(result, False))))
    return Headline(
        status=result.status,
        verdict=verdict,
        sentence=_sentence(said),
        short=_sentence(short),
        chosen=chosen,
        open=tuple(_open(best, one) for one in result.verdicts if one.status != "met"),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _gains(result: Result, intervals: bool) -> str:
    best, base = result.best.measured, result.fp32.measured
    parts = []
    speed = best.get("speedup")
    if speed is not None:
        ratio = figures.value(speed)
        interval = f" {figures.interval(speed)}".rstrip() if intervals else ""
        if speed.low > 1:
            parts.append(f"{ratio} faster{interval}")
        elif speed.high < 1:
            parts.append(f"slower, {ratio} the speed{interval}")
        else:
            parts.append(f"no faster as far as shown, {ratio}{interval}")
    if "size" in best and "size" in base and best["size"].value > 0:
        smaller = base["size"].value / best["size"].value
        if smaller >= 1.02:
            parts.append(f"{figures.quantity(smaller, '×')} smaller")
        elif smaller <= 0.98:
            parts.append(f"{figures.quantity(1 / smaller, '×')} larger")
        else:
            parts.append("of the same size")
    if not parts:
        return ""
    against = "best fp32 engine" if speed is not None else "original"
    return f"{' and '.join(parts)}, against the {against}"


def _cost(result: Result, intervals: bool) -> str:
    drop, metric = result.best.measured.get("drop"), names.metric(result)
    if drop is None:
        return f"what it costs in {metric} was not measured"
    drop = figures.drop(drop)
    say = figures.full if intervals else figures.value
    if drop.value < 0:
        gain = replace(drop, value=-drop.value, low=-drop.high, high=-drop.low)
        return f"{metric} better by {say(gain)}"
    word = "worse by" if drop.value > 0 else "unchanged, drop"
    return f"{metric} {word} {say(drop)}"


def measured_for(candidate: Candidate, verdict: Verdict) -> Measurement | None:
    """Returns the measurement that a verdict is about."""
    quantity = _QUANTITIES.get(verdict.requirement.split(" at ")[0], "")
    measured = candidate.measured.get(quantity)
    return figures.drop(measured) if measured and quantity == "drop" else measured


def got(candidate: Candidate, verdict: Verdict) -> str:
    """Returns what was measured for a requirement, in the report's own figures."""
    measured = measured_for(candidate, verdict)
    return figures.full(measured) if measured else names.printable(verdict.got)


def _open(best: Candidate, verdict: Verdict) -> str:
    text = (
        f"{names.printable(figures.requirement(verdict))}: {verdict.status}, {got(best, verdict)}"
    )
    more = figures.more_samples(verdict)
    return f"{text}; {more}" if more else text
