# SPDX-License-Identifier: Apache-2.0
"""Reads the keys `metric` and `loss` of a task file: a name, a function, or a table."""

from __future__ import annotations

import re
from typing import Any, Literal

from burnish.core.errors import Misuse
from burnish.core.task import Loss, Metric
from burnish.data.functions import find_function
from burnish.data.losses import FunctionLoss, loss
from burnish.data.metrics import OPTIONS, FunctionMetric, metric
from burnish.data.toml_table import Table


def read_metric(task: Table) -> Metric | None:
    """Returns the metric, or None when there is none or it is faulty."""
    table = _table(task, "metric")
    if table is None or (name := table.text("name")) is None:
        return None
    try:
        if ":" in name:
            return _function_metric(table, name)
        known = OPTIONS["top1"] if re.fullmatch(r"top\d+", name) else OPTIONS.get(name, ())
        options: dict[str, Any] = {}
        for key in known:
            read = {"output": table.text, "threshold": table.number, "ignore": table.whole}[key]
            if (value := read(key)) is not None:  # type: ignore[operator]
                options[key] = value
        made = metric(name, **options)
    except Misuse as error:
        table.fault(str(error))
        return None
    table.finish()
    return made


def read_loss(task: Table) -> Loss | None:
    """Returns the loss, or None when there is none or it is faulty."""
    table = _table(task, "loss")
    if table is None or (name := table.text("name")) is None:
        return None
    made: Loss
    try:
        if ":" in name:
            made = FunctionLoss(name, find_function(name, task.folder))
        else:
            made = loss(name, table.text("output"))
    except Misuse as error:
        table.fault(str(error))
        return None
    table.finish()
    return made


def _function_metric(table: Table, name: str) -> Metric | None:
    found = find_function(name, table.folder)
    if hasattr(found, "rows") and hasattr(found, "value"):
        missing = [key for key in ("name", "unit", "better", "binary") if not hasattr(found, key)]
        if missing:
            raise Misuse(f"the metric {name!r} lacks the attributes {missing}")
        table.finish()
        given: Metric = found
        return given
    better: Literal["lower", "higher"] = (
        "lower" if table.text("better", one_of=["lower", "higher"]) == "lower" else "higher"
    )
    unit = table.text("unit") or ""
    table.finish()
    return FunctionMetric(found, name, better, unit)


def _table(task: Table, key: str) -> Table | None:
    value = task.value(key)
    if value is None:
        return None
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, dict) or "name" not in value:
        task.fault(f'{key} must be a name, or a table like {{ name = "…" }}, got {value!r}')
        return None
    return Table(value, f"{task.where} {key}", task.faults, task.folder)
