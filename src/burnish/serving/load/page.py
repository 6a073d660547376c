# SPDX-License-Identifier: Apache-2.0
"""A run or a sweep as one HTML page that needs neither network nor script."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from burnish.serving.load.plot import by_percentile, by_rate
from burnish.serving.load.result import LoadResult
from burnish.serving.load.rows import facts, run_rows, sweep_rows, verdict
from burnish.serving.load.sweep import SweepResult


def page(measured: LoadResult | SweepResult, command: str = "", created: str = "") -> str:
    """Returns the page; every text is escaped, and its policy forbids scripts and requests."""
    if isinstance(measured, SweepResult):
        shown = measured.best or min(measured.steps, key=lambda step: step.per_s)
        charts = [by_rate(measured), by_percentile(shown.result)]
        rows, result = sweep_rows(measured), shown.result
        at = ", at the knee" if measured.best else ", at the lowest rate"
    else:
        charts, rows, result = [by_percentile(measured)], run_rows(measured), measured
        at = ""
    return _template().render(
        result=result,
        verdict=verdict(measured),
        head=rows[0],
        rows=rows[1:],
        charts=charts,
        facts=facts(result),
        sweep=isinstance(measured, SweepResult),
        at=at,
        command=command,
        created=created,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("burnish.serving.load", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")
