# SPDX-License-Identifier: Apache-2.0
"""Shuffled batches for training, from samples that can only be read in order.

Samples that fit in `memory_bytes` are read once, kept in the type that they come in, and
drawn in a new order each epoch. More are read anew in each epoch, through a shuffle
buffer of that size. Every order and every random change follows from the seed, the
epoch and the step alone, so a run can go on from any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.progress import Progress, silent
from burnish.core.task import Samples
from burnish.core.technique import Skipped
from burnish.techniques.train.augment import Arrays, augmented, mixed, passed_over
from burnish.techniques.train.decoded import LABELS, arrays_of, decoded, read, refuse_others
from burnish.techniques.train.training import Training

_READ = 256
_PROBE = 512


@dataclass(frozen=True)
class TrainingBatch:
    """Inputs and labels; after mixup, sample i is `share` of itself, the rest `partner[i]`."""

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None
    partner: NDArray[np.int64] | None = None
    share: float = 1.0

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Feed:
    """The training samples, and those held out, which are never trained on.

    `batch_size`, `steps` (an epoch's) and `n` (an epoch's samples) are what results from
    the settings and the data. Every batch of an epoch is whole: an incomplete last one
    would weigh too much, and the next epoch draws others.
    """

    def __init__(
        self,
        samples: Samples,
        training: Training,
        seed: int,
        progress: Progress = silent,
        fixed: int | None = None,
    ) -> None:
        """Reads what fits in memory. `fixed`: the batch size that the model insists on."""
        if len(samples) < 2:
            raise Misuse(f"training needs 2 samples or more, got {len(samples)}")
        self._fixed = fixed
        self._samples, self._training, self._seed = samples, training, seed % 2**64
        first = arrays_of(next(iter(samples.batches(1, 1))))
        sample_bytes = max(1, sum(array.nbytes for array in first.values()))
        self.cached = len(samples) * sample_bytes <= training.memory_bytes
        # What is read anew each epoch is read no further than the epoch needs.
        limit = training.samples if training.samples and not self.cached else len(samples)
        n_read = min(limit, len(samples))
        self._window = max(1, training.memory_bytes // sample_bytes)
        self._held_rows = self._choose(n_read, sample_bytes)
        self.n_held_out = len(self._held_rows)
        n_left = n_read - self.n_held_out
        self.n = min(training.samples or n_left, n_left)
        self.batch_size = fixed or min(training.batch_size, self.n)
        if self.batch_size > self.n or 0 < self.n_held_out < (fixed or 1):
            raise Misuse(
                f"{self.n} training samples and {self.n_held_out} held out make no whole batch: "
                f"the model takes batches of {fixed} only"
            )
        self.steps = self.n // self.batch_size
        self._n_read = n_read
        self.notes = self._notes(first, sample_bytes)
        held = np.zeros(n_read, bool)
        held[self._held_rows] = True
        self._rows = np.flatnonzero(~held)
        self._held_out = held
        self._added: Arrays = {}
        if self.cached:
            self._all: Mapping[str, NDArray[Any]] = decoded(samples, progress)
            judged = self._held_rows if self.n_held_out else self._rows[:_PROBE]
            self._judged = {key: array[judged] for key, array in self._all.items()}
        else:
            self._judged = self._read_judged(progress)
        self.has_labels = LABELS in first

    def _choose(self, n: int, sample_bytes: int) -> NDArray[np.int64]:
        """Returns the rows that are held out, ascending; they take 1/4 of the memory at most."""
        wanted = round(n * self._training.hold_out_ratio)
        if self._training.hold_out_ratio:
            wanted = max(1, wanted)
        most = max(1, self._training.memory_bytes // 4 // sample_bytes)
        order = self._random(0, 0).permutation(n)
        return np.sort(order[: min(wanted, most, n - 1)])

    def _read_judged(self, progress: Progress) -> Arrays:
        """Reads only as far as the samples to judge by."""
        if not self.n_held_out:
            return read(self._samples, min(_PROBE, self._n_read), progress)
        last = int(self._held_rows[-1]) + 1
        parts: list[Arrays] = []
        at = 0
        for batch in self._samples.batches(_READ, last):
            progress("reading held-out samples", at, last)
            mine = self._held_out[at : at + len(batch)]
            parts.append({key: array[mine] for key, array in arrays_of(batch).items()})
            refuse_others(parts[0], parts[-1], at)
            at += len(batch)
        return {key: np.concatenate([one[key] for one in parts]) for key in parts[0]}

    def _notes(self, first: Arrays, sample_bytes: int) -> tuple[Skipped, ...]:
        inputs = {name: array for name, array in first.items() if name != LABELS}
        notes = list(passed_over(inputs, self._training))
        if not self.cached:
            notes.append(
                Skipped(
                    "full shuffle",
                    f"{len(self._samples)} samples of {sample_bytes} bytes exceed memory_bytes="
                    f"{self._training.memory_bytes}: read anew in each epoch, shuffled among "
                    f"{self._window} at a time",
                )
            )
        if self.batch_size < self._training.batch_size and not self._fixed:
            notes.append(
                Skipped(
                    f"batch_size {self._training.batch_size}",
                    f"there are {self.n} samples: batches of {self.batch_size}",
                )
            )
        return tuple(notes)

    def probe(self, batch_size: int) -> Iterator[TrainingBatch]:
        """Yields unchanged batches to judge by: those held out, else the first 512 samples."""
        n = self.n_probe
        for at in range(0, n, batch_size):
            part = slice(at, min(at + batch_size, n))
            yield _batch({key: one[part] for key, one in self._judged.items()})

    @property
    def n_probe(self) -> int:
        """How many samples `probe` yields."""
        n = len(next(iter(self._judged.values())))
        return n - n % (self._fixed or 1)

    @property
    def n_cached(self) -> int:
        """How many samples are held in memory to train on: 0 when they are read anew."""
        return len(self._rows) if self.cached else 0

    def in_order(self, batch_size: int) -> Iterator[TrainingBatch]:
        """Yields every cached training sample once, unchanged, in a fixed order."""
        for at in range(0, self.n_cached, batch_size):
            rows = self._rows[at : at + batch_size]
            yield _batch({key: array[rows] for key, array in self._all.items()})

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Adds arrays that go with the cached samples, in the order of `in_order`."""
        self._added.update(arrays)

    def epoch(self, number: int, start: int = 0) -> Iterator[TrainingBatch]:
        """Yields the batches of an epoch (from 0) from step `start` on."""
        batches = self._drawn(number, start) if self.cached else self._streamed(number, start)
        for step, arrays in enumerate(batches, start):
            yield self._changed(arrays, self._random(2, number, step))

    def _drawn(self, number: int, start: int) -> Iterator[Arrays]:
        order = self._random(1, number).permutation(self.n_cached)
        for step in range(start, self.steps):
            drawn = order[step * self.batch_size : (step + 1) * self.batch_size]
            own = {key: array[self._rows[drawn]] for key, array in self._all.items()}
            yield own | {key: array[drawn] for key, array in self._added.items()}

    def _streamed(self, number: int, start: int) -> Iterator[Arrays]:
        """Yields batches through a buffer: each drawn sample's place is taken by a new one."""
        random = self._random(1, number)
        parts: list[Arrays] = []
        step = n_parts = 0
        for some in self._shuffled(random):
            parts.append(some)
            n_parts += len(next(iter(some.values())))
            while n_parts >= self.batch_size and step < self.steps:
                joined = {key: np.concatenate([one[key] for one in parts]) for key in some}
                if step >= start:
                    yield {key: array[: self.batch_size] for key, array in joined.items()}
                parts = [{key: array[self.batch_size :] for key, array in joined.items()}]
                n_parts, step = n_parts - self.batch_size, step + 1

    def _shuffled(self, random: np.random.Generator) -> Iterator[Arrays]:
        buffer: Arrays = {}
        filled = at = 0
        for batch in self._samples.batches(min(_READ, self._window), self._n_read):
            new = ~self._held_out[at : at + len(batch)]
            at += len(batch)
            arrays = {key: array[new] for key, array in arrays_of(batch).items()}
            n = int(new.sum())
            if not buffer:
                size = min(self._window, self._n_read)
                buffer = {
                    key: np.empty((size, *one.shape[1:]), one.dtype) for key, one in arrays.items()
                }
            size = len(next(iter(buffer.values())))
            room = min(n, size - filled)
            for key, array in arrays.items():
                buffer[key][filled : filled + room] = array[:room]
            filled += room
            if room < n:
                places = random.choice(size, n - room, replace=False)
                yield {key: buffer[key][places] for key in buffer}
                for key, array in arrays.items():
                    buffer[key][places] = array[room:]
        rest = random.permutation(filled)
        for start in range(0, filled, _READ):
            yield {key: array[rest[start : start + _READ]] for key, array in buffer.items()}

    def _changed(self, arrays: Arrays, random: np.random.Generator) -> TrainingBatch:
        batch = _batch(arrays)
        inputs = augmented(dict(batch.inputs), self._training, random)
        if not self._training.mixup:
            return TrainingBatch(inputs, batch.labels)
        blend = mixed(inputs, self._training.mixup, random)
        return TrainingBatch(blend.inputs, batch.labels, blend.partner, blend.share)

    def _random(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *place])


def _batch(arrays: Arrays) -> TrainingBatch:
    inputs = {key: array for key, array in arrays.items() if key != LABELS}
    return TrainingBatch(inputs, arrays.get(LABELS))
