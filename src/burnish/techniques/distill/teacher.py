# SPDX-License-Identifier: Apache-2.0
"""Models that teach: what they say of a batch, as tensors without gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported, unknown
from burnish.core.model import Model, Signature
from burnish.core.settings import settings
from burnish.core.technique import Context
from burnish.engines.engine import Session, by_name, installed
from burnish.graph.lift.module import lift
from burnish.measuring.accuracy import run_batch
from burnish.measuring.machine import machine

Says = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
Join = Callable[[str, Sequence[Tensor]], Tensor]

_RUNS = 5


def teaching(
    models: Sequence[Model],
    student: Signature,
    engine: str,
    device: str,
    join: Join,
    example: Mapping[str, Any],
    context: Context,
) -> tuple[Says, str]:
    """Returns teacher(inputs) -> outputs by the student's names, and what runs it, in words.

    `engine`: "lifted" (PyTorch, on the training's device), an engine's name, "fastest" by
    timing `example`, or "": lifted on a GPU, else ONNX Runtime. `join(name, tensors)` makes
    one answer of several teachers'. Outputs that only the teachers have keep their names.
    """
    spoken: list[Says] = []
    words: list[str] = []
    for model in models:
        _refuse_inputs(model.signature, student)
        chosen = engine or ("lifted" if device == "cuda" else "onnxruntime")
        if chosen == "fastest":
            chosen = _fastest(model, example, context)
        says = _lifted(model, device) if chosen == "lifted" else _session(model, chosen)
        spoken.append(_renamed(says, model.signature, student))
        words.append(chosen)

    def teacher(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        said = [says(inputs) for says in spoken]
        return {name: join(name, [one[name] for one in said]) for name in said[0]}

    return teacher, ", ".join(dict.fromkeys(words))


def _lifted(model: Model, device: str) -> Says:
    module = lift(model).to(device)
    module.eval()

    def says(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            said: dict[str, Tensor] = module(inputs)
        return said

    return says


def _open(model: Model, engine: str) -> Session:
    # As many threads as training has: they take turns.
    threads = settings().threads or machine().cores
    return by_name(engine).open(model, Setting(threads=threads))


def _session(model: Model, engine: str) -> Says:
    session = _open(model, engine)

    def says(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: one.cpu().contiguous().numpy() for name, one in inputs.items()}
        said = run_batch(session, arrays)
        return {name: torch.from_numpy(array) for name, array in said.items()}

    return says


def _fastest(model: Model, example: Mapping[str, Any], context: Context) -> str:
    """Returns the engine that ran a batch in the least time; kept in the store, when there is one.

    Engines differ in the last bits, so which one wins is part of the result.
    """

    def choose() -> str:
        times = {}
        for engine in installed():
            if engine.refusals(model):
                continue
            try:
                with _open(model, engine.name) as session:
                    run_batch(session, example)
                    times[engine.name] = min(_seconds(session, example) for _ in range(_RUNS))
            except Unsupported:
                continue
        if not times:
            raise Unsupported(f"no engine runs the teacher {model!r}")
        return min(times, key=times.__getitem__)

    if context.store is None:
        return choose()
    n = len(next(iter(example.values())))
    return str(context.store.json("teacher_engine", f"{model.digest[:32]}-{n}", choose))


def _seconds(session: Session, example: Mapping[str, Any]) -> float:
    began = time.perf_counter()
    run_batch(session, example)
    return time.perf_counter() - began


def _refuse_inputs(teacher: Signature, student: Signature) -> None:
    """Raises `Misuse` when the teacher cannot take the student's inputs."""
    given = {spec.name: spec for spec in student.inputs}
    one_each = len(teacher.inputs) == len(student.inputs) == 1
    for spec in teacher.inputs:
        mine = student.inputs[0] if one_each else given.get(spec.name)
        if mine is None:
            raise unknown("input of the teacher", spec.name, given)
        alike = len(mine.shape) == len(spec.shape) and all(
            a == b or not (isinstance(a, int) and isinstance(b, int))
            for a, b in zip(mine.shape[1:], spec.shape[1:], strict=True)
        )
        if mine.dtype != spec.dtype or not alike:
            raise Misuse(f"the teacher takes {spec}, but the student takes {mine}")


def _renamed(says: Says, teacher: Signature, student: Signature) -> Says:
    """Returns `says` with the student's names for what they have in common."""
    ours = [spec.name for spec in student.outputs]
    theirs = [spec.name for spec in teacher.outputs][: len(ours)]
    names = dict(zip(theirs, ours, strict=False)) if not set(ours) & set(theirs) else {}

    def renamed(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = dict(inputs)
        if len(teacher.inputs) == len(given) == 1:
            given = {teacher.inputs[0].name: next(iter(given.values()))}
        else:
            given = {spec.name: given[spec.name] for spec in teacher.inputs}
        return {names.get(name, name): one for name, one in says(given).items()}

    return renamed
