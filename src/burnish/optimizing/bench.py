# SPDX-License-Identifier: Apache-2.0
"""The steps of an optimization, each kept in the store under what it depends on.

A step's key holds the digests of the models, the engine's identity, the data's
fingerprint and, for what is timed, the machine's fingerprint: nothing measured on one
machine is ever taken for another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.measurement import Measurement
from burnish.core.model import Model, write_whole
from burnish.core.program import program
from burnish.core.progress import Progress
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.task import Samples, Task
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.measuring import resources
from burnish.measuring.accuracy import Judged, evaluate, fixed_batch, run_batch
from burnish.measuring.machine import machine
from burnish.measuring.throughput import throughput
from burnish.measuring.timing import Contender, Timed, race
from burnish.optimizing.entries import Entry
from burnish.techniques.fuse import random_inputs


@dataclass(frozen=True)
class Bench:
    """What measures: the task, the store, and the seed that all steps share."""

    original: Model
    task: Task | None
    store: Store
    seed: int
    progress: Progress

    @property
    def context(self) -> Context:
        """What techniques may use."""
        return Context(self.task, self.store, self.seed, self.progress)

    def build(self, recipe: Recipe) -> Outcome:
        """Returns what the recipe makes of the original. Raises what its techniques raise.

        Each step is kept, so that recipes that begin alike share what is alike.
        """
        steps = recipe.steps()
        outcome = Outcome(self.original)
        for n in range(len(steps)):
            outcome = self._step(steps[: n + 1], outcome)
        return outcome

    def _step(self, steps: Sequence[Technique], before: Outcome) -> Outcome:
        """Returns the outcome of the last of the steps, on what those before it made."""
        task = self.task
        splits = (task.calibration, task.training) if task is not None else ()
        data = [split.fingerprint() if split is not None else "" for split in splits]
        judged = [task.metric and task.metric.name, task.loss and task.loss.name] if task else []
        where = machine().fingerprint  # a recipe may leave choices to the machine
        recipe = Recipe(tuple(steps))
        key = _key("built", self.original.digest, recipe.key(), data, judged, where, self.seed)

        def make(folder: Path) -> None:
            context = replace(self.context, original=self.original)
            outcome = steps[-1].apply(before.model, context)
            outcome.model.save(folder / "model.onnx")
            plain = {
                "applied": before.applied + outcome.applied,
                "skipped": [asdict(one) for one in before.skipped + outcome.skipped],
            }
            write_whole(folder / "outcome.json", json.dumps(plain).encode())

        folder = self.store.folder("built", key, make)
        plain = json.loads((folder / "outcome.json").read_bytes())
        skipped = tuple(Skipped(**one) for one in plain["skipped"])
        return Outcome(Model.load(folder / "model.onnx"), tuple(plain["applied"]), skipped)

    def race(
        self,
        entries: Sequence[Entry],
        *,
        stage: str,
        baseline: str | Sequence[str],
        budget_s: float,
        precision_ratio: float,
        sessions: int,
    ) -> dict[str, Timed]:
        """Returns what `measuring.timing.race` gives for these entries at batch 1, by key."""
        inputs = self.inputs(1)
        keys = sorted({entry.key for entry in entries})
        key = _key("race", stage, machine().fingerprint, keys, baseline, budget_s, self.seed)

        def make() -> Any:
            timed = race(
                [Contender(entry.key, entry.open, inputs) for entry in entries],
                baseline=baseline,
                budget_s=budget_s,
                precision_ratio=precision_ratio,
                sessions=sessions,
                seed=self.seed,
                progress=_named(self.progress, stage),
            )
            return {name: asdict(one) for name, one in timed.items()}

        return {name: _timed(plain) for name, plain in self.store.json("races", key, make).items()}

    def judge(self, entry: Entry, limit: int | None = None) -> Judged:
        """Returns how the entry does on the validation data."""
        task = self._task()
        fingerprint = task.fingerprint("validation")
        key = _key("judged", entry.key, machine().fingerprint, fingerprint, limit)

        def make(folder: Path) -> None:
            with entry.open() as session:
                judged = evaluate(
                    session, task, limit=limit, progress=_named(self.progress, entry.name)
                )
            judged.save(folder / "judged.npz")

        return Judged.load(self.store.folder("judged", key, make) / "judged.npz")

    def fidelity(self, entry: Entry, reference: Entry, samples: int = 256) -> tuple[float, float]:
        """Returns how far the entry's outputs are from the reference's, without labels.

        The first figure is the mean squared difference over the reference's variance (0 is
        equal, infinity that some are not finite), the second the share of equal answers,
        both on calibration samples.
        """
        task = self._task()
        data = task.split("calibration")
        key = _key("fidelity", entry.key, reference.key, data.fingerprint(), samples)

        def make() -> Any:
            return _fidelity(entry, reference, data, samples)

        error, agreement = self.store.json("fidelity", key, make)
        return float(error), float(agreement)

    def resources(self, entry: Entry) -> dict[str, Measurement]:
        """Returns "load", and "memory" of a child process."""
        key = _key("resources", entry.key, machine().fingerprint)

        def make() -> Any:
            found = {
                "load": resources.load_time(entry.open, 3),
                "memory": resources.peak_memory(
                    entry.model, entry.engine.name, entry.setting, self.inputs(1), n=2
                ),
            }
            return {name: one.to_dict() for name, one in found.items()}

        plain = self.store.json("resources", key, make)
        return {name: Measurement.from_dict(one) for name, one in plain.items()}

    def throughput(
        self, entry: Entry, settings: Sequence[Setting], batch_sizes: Sequence[int], seconds: float
    ) -> list[dict[str, Any]]:
        """Returns the points of `measuring.throughput`, as plain data."""
        shown = [str(setting) for setting in settings]
        key = _key("rate", entry.key, machine().fingerprint, shown, list(batch_sizes), seconds)

        def make() -> Any:
            points = throughput(
                lambda setting: entry.engine.open(entry.model, setting),
                self.inputs,
                settings,
                batch_sizes,
                seconds,
            )
            return [_point(point.to_dict()) for point in points]

        plain: list[dict[str, Any]] = self.store.json("throughput", key, make)
        return plain

    def remember(self, question: Sequence[Any], answer: Callable[[], Any]) -> Any:
        """Returns the answer, plain data, that was given to the question first on this machine."""
        key = _key("answer", machine().fingerprint, self.original.digest, self.seed, question)
        return self.store.json("answers", key, answer)

    @property
    def least_batch(self) -> int:
        """The smallest batch that the model takes: 1, unless its batch size is fixed."""
        return fixed_batch(self.original.signature) or 1

    def inputs(self, batch: int) -> dict[str, NDArray[Any]]:
        """Returns a batch of real samples (repeated when there are fewer), or random inputs.

        A model of fixed batch size is given that.
        """
        batch = fixed_batch(self.original.signature) or batch
        data = None
        if self.task is not None:
            data = self.task.validation or self.task.calibration or self.task.training
        if data is None:
            return random_inputs(self.original, batch, self.seed)
        got = next(data.batches(batch, batch), None)
        if got is None:
            raise Misuse(f"the task {self._task().name!r} has an empty split")
        rows = np.arange(batch) % len(got)
        return {name: np.ascontiguousarray(array[rows]) for name, array in got.inputs.items()}

    def _task(self) -> Task:
        return self.context.need_task("judging a model")


def _fidelity(entry: Entry, reference: Entry, data: Samples, samples: int) -> tuple[float, float]:
    squared = spread = 0.0
    same = answers = 0
    with entry.open() as one, reference.open() as other:
        for batch in data.batches(16, samples):
            got, want = run_batch(one, batch.inputs), run_batch(other, batch.inputs)
            for name, expected in want.items():
                if not np.issubdtype(expected.dtype, np.floating):
                    continue
                flat = expected.reshape(len(expected), -1).astype(np.float64)
                middle = flat.mean(axis=1, keepdims=True) if flat.shape[1] > 1 else 0.0
                squared += float(np.square(got[name].reshape(len(expected), -1) - flat).sum())
                spread += float(np.square(flat - middle).sum())
                if expected.ndim == 2 and expected.shape[1] > 1:
                    same += int((got[name].argmax(1) == expected.argmax(1)).sum())
                    answers += len(expected)
    error = squared / max(spread, 1e-30)
    return error if math.isfinite(error) else math.inf, same / answers if answers else 1.0


def _key(*parts: Any) -> str:
    # Another state of the program may build or measure differently: it starts afresh.
    parts = (program(), *parts)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _timed(plain: Mapping[str, Any]) -> Timed:
    fields = dict(plain)
    for name in ("latency", "speedup"):
        if fields[name] is not None:
            fields[name] = Measurement.from_dict(fields[name])
    return Timed(**fields)


def _point(plain: dict[str, Any]) -> dict[str, Any]:
    rate = plain["samples_per_s"]
    return {
        "batch_size": plain["batch_size"],
        "threads": plain["setting"]["threads"],
        "streams": plain["setting"]["streams"],
        "samples_per_s": rate["value"],
        "low": rate["low"],
        "high": rate["high"],
        "latency_ms": plain["latency_ms"],
    }


def _named(progress: Progress, name: str) -> Progress:
    def report(work: str, done: int, total: int) -> None:
        progress(f"{work}: {name}", done, total)

    return report
