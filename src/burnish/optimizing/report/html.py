# SPDX-License-Identifier: Apache-2.0
"""The result as one HTML page that needs neither network nor script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from burnish.core.measurement import Measurement
from burnish.optimizing.report import charts, figures, names
from burnish.optimizing.report.account import by_reason
from burnish.optimizing.report.headline import got, headline, measured_for
from burnish.optimizing.report.rows import ROLES, drop_unit, rows
from burnish.optimizing.report.stages import stage_rows
from burnish.optimizing.result import Result

_WIDE, _NARROW = 1010, 340
_BREAKS = re.compile(
    r"(?<=\d) (?=(?:%|ms|s|[kMG]?B|points|samples)(?![a-z]))|(?<=\d,) (?=[−\d.,]+\])"
)


def html(result: Result) -> str:
    """Returns the report as one self-contained HTML document.

    Every text of the result is escaped; the page's content policy forbids scripts and
    any request.
    """
    best = result.best
    return _template().render(
        result=result,
        model=names.printable(result.model),
        task=names.printable(result.task),
        created=names.printable(result.created)
        .replace("T", " ")
        .removesuffix("Z")
        .removesuffix("+00:00"),
        said=headline(result),
        setting=names.setting(best),
        metric=names.metric(result),
        key_figures=_key_figures(result),
        rows=rows(result),
        stages=stage_rows(result),
        roles=ROLES,
        drop_unit=drop_unit(result),
        verdicts=_verdicts(result),
        charts=_charts(result),
        applied=[names.printable(one) for one in best.applied],
        skipped=by_reason(best.skipped),
        passed_over=by_reason(result.passed_over),
        warnings=[names.printable(one) for one in result.warnings],
        machine=_facts({k: v for k, v in result.machine.items() if k != "engines"}),
        engines=_facts(result.machine.get("engines", {}), keep_keys=True),
        protocol=_facts(result.protocol),
        command=names.printable(result.command, newline=True),
        recipe=[_step(one) for one in best.recipe],
        facts=_chosen_facts(result),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("burnish.optimizing.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = _together
    return environment.get_template("report.html.j2")


def _together(text: str) -> str:
    """Keeps a figure on one line with its unit, and an interval whole."""
    return _BREAKS.sub("\u00a0", text).replace("top-", "top\u2011")


@dataclass(frozen=True)
class _Key:
    """A key figure: what it is, its value, its interval, and what it was before."""

    term: str
    value: str
    unit: str
    interval: str
    was: str


def _key_figures(result: Result) -> list[_Key]:
    best, base = result.best.measured, result.fp32.measured
    metric = names.metric(result)
    found = []
    for key, term, compared in (
        ("latency", "p50 latency", _times(best.get("speedup"), "faster", "of the speed")),
        ("size", "Size", _smaller(best, base)),
        ("metric", metric[:1].upper() + metric[1:], _dropped(best.get("drop"))),
        ("throughput", "Throughput", ""),
    ):
        if key not in best:
            continue
        was = f"from {figures.value(base[key])}" if key in base else ""
        if result.best == result.fp32:
            was = compared = ""
        said = ", ".join(filter(None, (was, compared)))
        value, _, unit = figures.value(best[key]).partition(" ")
        found.append(_Key(term, value, unit, figures.interval(best[key]), said))
    return found


def _times(one: Measurement | None, more: str, less: str) -> str:
    if one is None:
        return ""
    return (
        f"{figures.value(one)} {more if one.value >= 1 else less} {figures.interval(one)}".strip()
    )


def _smaller(best: dict[str, Measurement] | Any, base: dict[str, Measurement] | Any) -> str:
    if "size" not in best or "size" not in base or not base["size"].value > 0:
        return ""
    return f"now {figures.fixed(100 * best['size'].value / base['size'].value, 0)} %"


def _dropped(drop: Measurement | None) -> str:
    return f"drop {figures.full(figures.drop(drop))}" if drop is not None else ""


def _verdicts(result: Result) -> list[dict[str, str]]:
    found = []
    for verdict in result.verdicts:
        measured = measured_for(result.best, verdict)
        found.append(
            {
                "requirement": names.printable(figures.requirement(verdict)),
                "got": got(result.best, verdict),
                "n": f"{measured.n:,}" if measured and measured.n else "",
                "status": verdict.status,
                "more": figures.more_samples(verdict),
            }
        )
    return found


def _charts(result: Result) -> dict[str, dict[str, Markup | str | None]]:
    makers = {
        "pareto": charts.pareto,
        "latencies": charts.latencies,
        "throughput": charts.throughput,
        "sizes": charts.sizes,
    }
    return {
        key: {
            "wide": make(result, _WIDE),
            "narrow": make(result, _NARROW),
            "empty": charts.EMPTY[key],
        }
        for key, make in makers.items()
    }


def _facts(data: Any, keep_keys: bool = False) -> list[tuple[str, str]]:
    found = []
    for key, value in dict(data).items():
        term, text = figures.entry(str(key), value)
        found.append((names.printable(key if keep_keys else term), names.printable(text)))
    return found


def _step(step: Any) -> str:
    inside = ", ".join(f"{key} = {value}" for key, value in step.items() if key != "technique")
    name = str(step.get("technique", "step"))
    return names.printable(f"{name} ({inside})" if inside else name)


def _chosen_facts(result: Result) -> list[tuple[str, str]]:
    """What else is known of the chosen candidate, where it was measured."""
    best, found = result.best, list[tuple[str, str]]()
    for key, term in (
        ("memory", "Peak memory"),
        ("load", "Time to load"),
        ("agreement", "Agreement"),
    ):
        if key in best.measured:
            found.append((term, figures.full(best.measured[key])))
    percentiles = best.detail.get("percentiles_ms", {})
    if percentiles:
        said = ", ".join(f"{key} {figures.quantity(one, 'ms')}" for key, one in percentiles.items())
        found.append(("Latency of single calls", names.printable(said)))
    for key, term in (
        ("mcnemar_p", "McNemar's test, p"),
        ("noise_ratio", "Noise between rounds"),
        ("export_max_abs_difference", "Largest difference of the export from its source"),
    ):
        if best.detail.get(key) is not None:
            found.append((term, figures.significant(float(best.detail[key]))))
    return found
