# SPDX-License-Identifier: Apache-2.0
"""Gathers what quantization needs to know of a model's activations, in constant memory.

The model runs on ONNX Runtime with its intermediate tensors as extra outputs, one batch
at a time; only histograms and sums are kept. Statistics gathered once serve every
range method and every placement, and are kept in the store.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.task import Arrays, Samples
from burnish.core.technique import Context
from burnish.engines.engine import check
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.accuracy import fixed_batch
from burnish.measuring.machine import machine
from burnish.techniques.quantize.histogram import Histogram

_BATCH_BYTES = 64 * 1024**2
_LARGEST_BATCH = 32
_PER_SAMPLE = 1 << 15  # values of one tensor in one sample that enter its histogram, about


@dataclass
class Observed:
    """What was seen of one tensor: its histogram, and its mean for each channel (axis 1)."""

    histogram: Histogram
    channel_mean: NDArray[np.float64]
    n: int = 0

    def add(self, values: NDArray[np.floating]) -> None:
        """Adds a batch: (batch, channels, …); what is not finite counts as 0 in the mean."""
        not_finite = self.histogram.not_finite
        self.histogram.add(values, _every(values))
        if values.ndim < 2 or values.size == 0:
            return
        if self.histogram.not_finite > not_finite:
            values = np.where(np.isfinite(values), values, 0)
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        mean = values.mean(axis=axes, dtype=np.float64)
        if self.channel_mean.shape != mean.shape:
            self.channel_mean = np.zeros_like(mean)
        total = self.n + len(values)
        self.channel_mean += (mean - self.channel_mean) * (len(values) / total)
        self.n = total


def _every(values: NDArray[np.floating]) -> int:
    """Returns the step that takes about `_PER_SAMPLE` values of each sample.

    It has no factor in common with the sizes of the axes, so that it takes from every
    channel, row and column alike.
    """
    per_sample = math.prod(values.shape[1:])
    every = max(1, per_sample // _PER_SAMPLE)
    while math.gcd(every, per_sample) > 1:
        every += 1
    return every


def observe(
    model: Model, tensors: Sequence[str], samples: int, context: Context, technique: str
) -> dict[str, Observed]:
    """Returns what was seen of each tensor over the first `samples` calibration samples.

    Memory does not grow with `samples` (0 means all). Raises `Misuse` when there is no
    calibration data or it does not fit the model.
    """
    task = context.need_task(technique)
    data = task.split("calibration")
    limit = min(samples or len(data), len(data))
    if limit == 0:
        raise Misuse(f"the calibration data of the task {task.name!r} is empty")
    names = hashlib.sha256("\n".join(tensors).encode()).hexdigest()[:16]
    key = f"{version('burnish')}-{model.digest[:32]}-{data.fingerprint()[:16]}-{limit}-{names}"

    def make(folder: Path) -> None:
        _write(folder / "observed.npz", _gather(model, tensors, data, limit, context))

    folder = context.folder("observed", key, make)
    if folder is None:
        return _gather(model, tensors, data, limit, context)
    return _read(folder / "observed.npz")


def _gather(
    model: Model, tensors: Sequence[str], data: Samples, limit: int, context: Context
) -> dict[str, Observed]:
    seen = {name: Observed(Histogram(), np.zeros(0)) for name in tensors}
    first = next(fitting(model, data, 1, 1))
    check(model.signature, first)
    sizes = _sizes(model, tensors, first)
    groups = _groups(sizes)
    for number, group in enumerate(groups):
        probe = with_outputs(model, group)
        batch_size = int(np.clip(_BATCH_BYTES // sum(sizes[n] for n in group), 1, _LARGEST_BATCH))
        done = 0
        with OnnxRuntime().open(probe, Setting(threads=machine().cores)) as session:
            for inputs in fitting(model, data, batch_size, limit):
                values = {**session.run(inputs), **inputs}
                for name in group:
                    seen[name].add(values[name])
                done = min(done + len(next(iter(inputs.values()))), limit)
                context.progress("calibrating", number * limit + done, len(groups) * limit)
    return seen


def fitting(model: Model, data: Samples, batch_size: int, limit: int) -> Iterator[Arrays]:
    """Yields the inputs of batches that the model takes.

    Where its batch size is fixed, that is taken, and the last is filled up with its last sample.
    """
    fixed = fixed_batch(model.signature)
    for batch in data.batches(fixed or batch_size, limit):
        rows = np.minimum(np.arange(fixed or len(batch)), len(batch) - 1)
        yield {name: array[rows] for name, array in batch.inputs.items()}


def _sizes(model: Model, tensors: Iterable[str], first: Arrays) -> dict[str, int]:
    """Returns the bytes that each tensor takes for one sample, from inferred shapes."""
    graph = model.edit().graph
    dims = {
        str(size): first[spec.name].shape[axis]
        for spec in model.signature.inputs
        for axis, size in enumerate(spec.shape)
    }
    sizes = {}
    values = {v.name: v for node in graph for v in node.outputs} | {v.name: v for v in graph.inputs}
    for name in tensors:
        shape = values[name].shape
        count = 1
        for size in shape or ():
            count *= size if isinstance(size, int) else dims.get(str(size.value), 1)
        sizes[name] = 4 * max(count, 1)
    return sizes


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """Returns the tensors in groups that each take at most `_BATCH_BYTES` for one sample."""
    groups: list[list[str]] = [[]]
    total = 0
    for name, size in sizes.items():
        if groups[-1] and total + size > _BATCH_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups


def with_outputs(model: Model, tensors: Sequence[str]) -> Model:
    """Returns the model with these tensors as its outputs, the nodes they do not need left out."""
    graph = model.edit()
    inputs = {value.name for value in graph.graph.inputs}
    values = {v.name: v for node in graph.graph for v in node.outputs}
    kept = [values[name] for name in tensors if name not in inputs]
    graph.graph.outputs.clear()
    graph.graph.outputs.extend(kept or [next(iter(values.values()))])
    RemoveUnusedNodesPass()(graph)
    return Model(graph)


def _write(path: Path, seen: Mapping[str, Observed]) -> None:
    arrays: dict[str, NDArray[Any]] = {"names": np.array(list(seen))}
    for number, one in enumerate(seen.values()):
        for key, array in one.histogram.to_arrays().items():
            arrays[f"{number}.{key}"] = array
        arrays[f"{number}.channel_mean"] = one.channel_mean
        arrays[f"{number}.n"] = np.asarray(one.n)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[str, Observed]:
    with np.load(path, allow_pickle=False) as arrays:
        return {
            str(name): Observed(
                Histogram.from_arrays(
                    {key: arrays[f"{number}.{key}"] for key in ("numbers", "whole", "counts")}
                ),
                arrays[f"{number}.channel_mean"],
                int(arrays[f"{number}.n"]),
            )
            for number, name in enumerate(arrays["names"])
        }
