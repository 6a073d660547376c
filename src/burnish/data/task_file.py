# SPDX-License-Identifier: Apache-2.0
"""Reads a Task from a TOML file; `docs/tasks.md` lists every key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse
from burnish.core.task import Task
from burnish.data.array_input import ArrayInput
from burnish.data.judging import read_loss, read_metric
from burnish.data.normalization import Normalization
from burnish.data.overlap import overlap_warnings
from burnish.data.preprocessing import InputPreprocessing, input_from_table
from burnish.data.readers.class_folders import lines
from burnish.data.samples import SourceSamples
from burnish.data.splits import open_split
from burnish.data.toml_table import Table, raise_faults

SPLITS = ("calibration", "training", "validation")
_MOST_BYTES = 1 << 24


def load_task(path: str | Path) -> Task:
    """Returns the task in a TOML file, its sources opened and its splits compared.

    Raises one `Misuse` that lists every fault with its table and key.
    """
    path = Path(path)
    faults: list[str] = []
    task = Table(_read(path), str(path), faults, path.parent)
    name = task.text("name") or path.stem
    classes = _classes(task)
    preprocessing = _preprocessing(task)
    metric, loss = read_metric(task), read_loss(task)
    splits: dict[str, SourceSamples] = {}
    for split in SPLITS:
        data = task.value(split)
        if data is None:
            continue
        if not isinstance(data, dict):
            task.fault(f"{split} must be a table, got {data!r}")
            continue
        table = Table(data, f"{path} [{split}]", faults, path.parent)
        opened = open_split(table, preprocessing, classes)
        if opened is not None:
            splits[split] = opened
    task.finish()
    if not set(SPLITS) & set(task.data):
        task.fault("there is no data: add a table [calibration], [training] or [validation]")
    raise_faults(faults)
    return Task(
        name=name,
        metric=metric,
        loss=loss,
        preprocessing=preprocessing,
        classes=classes,
        warnings=tuple(overlap_warnings(splits)),
        **splits,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Misuse(f"{path} is over 16 MiB: no task file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise Misuse(f"cannot read the task {path}: {error}") from error


def _classes(task: Table) -> tuple[str, ...]:
    if isinstance(task.value("classes"), str):
        path = task.path("classes")
        try:
            return () if path is None else tuple(lines(path))
        except Misuse as error:
            task.fault(str(error))
            return ()
    return task.texts("classes") or ()


def _preprocessing(task: Table) -> InputPreprocessing | None:
    """Returns what [preprocess] says; without it, the inputs that every split names, as they are.

    None when there is a fault.
    """
    before = len(task.faults)
    data = task.value("preprocess")
    if data is None:
        return _as_they_are(task)
    if not isinstance(data, dict) or not data:
        task.fault(f"preprocess must be a table, got {data!r}")
        return None
    where = f"{task.where} [preprocess"
    if all(isinstance(value, dict) for value in data.values()):
        found = [
            input_from_table(Table(one, f"{where}.{name}]", task.faults), name)
            for name, one in data.items()
        ]
    else:
        found = [input_from_table(Table(data, f"{where}]", task.faults))]
    if len(task.faults) > before:
        return None
    return InputPreprocessing(tuple(one for one in found if one is not None))


def _as_they_are(task: Table) -> InputPreprocessing | None:
    tables = [task.data[name] for name in SPLITS if isinstance(task.data.get(name), dict)]
    names = [tuple(one["inputs"]) for one in tables if isinstance(one.get("inputs"), dict)]
    if tables and (len(names) < len(tables) or len(set(names)) != 1):
        task.fault(
            "which of the model's inputs takes the samples? Add a table [preprocess] with input "
            'and kind, or name the inputs in every split, as inputs = { image = "x" }'
        )
    if not tables or len(names) < len(tables) or len(set(names)) != 1:
        return None
    return InputPreprocessing(
        tuple(ArrayInput(name, normalization=Normalization(dtype="")) for name in names[0])
    )
