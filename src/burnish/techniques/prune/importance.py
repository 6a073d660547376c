# SPDX-License-Identifier: Apache-2.0
"""How much each channel of a group matters, summed over all that goes with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model
from burnish.core.technique import Context
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.canonical import infer_types
from burnish.graph.channels import ChannelGroup, Slice
from burnish.measuring.machine import machine
from burnish.techniques.prune.pruning import weight_array
from burnish.techniques.quantize.observe import fitting, with_outputs
from burnish.techniques.train.trained import training_samples

Importance = Literal["l1", "l2", "batch_norm", "taylor", "activation", "random"]
Normalization = Literal["auto", "mean", "max", "sum", "none"]
Scores = dict[str, NDArray[np.float64]]
"""For each group that could be scored, one number for each channel, 0 or more."""

_BATCH = 32
_BATCH_BYTES = 1 << 26
_CHANNEL_AXES = {"Conv": (1, 1), "ConvTranspose": (0, 1)}  # of the weight, of the input


def importance(
    kind: Importance,
    model: Model,
    groups: Sequence[ChannelGroup],
    context: Context,
    samples: int,
) -> Scores:
    """Returns raw scores; a group that has nothing of this kind to score is left out.

    "l1", "l2": the norm of all its weights, biases and normalizations, running statistics
    aside. "batch_norm": the mean magnitude of its scales. "taylor": see `taylor`.
    "activation": the mean magnitude of what its consumers read, over `samples` calibration
    samples. "random": uniform in 0..1, a control. Source: Li et al. 2017
    (arXiv:1608.08710) for l1; Fang et al. 2023 (arXiv:2301.12900), equation 5, for sums over
    a group; Liu et al. 2017 (arXiv:1708.06519) for the scales.
    """
    if kind not in get_args(Importance):
        raise unknown("importance", str(kind), get_args(Importance))
    if kind in ("l1", "l2"):
        return _norms(model, groups, 1 if kind == "l1" else 2)
    if kind == "batch_norm":
        return _scales(model, groups)
    if kind == "activation":
        return _activations(model, groups, context, samples)
    if kind == "taylor":
        from burnish.techniques.prune.taylor import taylor

        return taylor(model, groups, context, samples)
    source = np.random.default_rng(context.seed)
    return {group.name: source.random(group.size) for group in groups}


def normalized(scores: Mapping[str, NDArray[np.float64]], how: Normalization) -> Scores:
    """Returns scores that can be compared across groups.

    Each group's are divided by their mean, largest or sum; groups of zeros stay zeros.

    >>> normalized({"a": np.array([1.0, 3.0])}, "mean")["a"].tolist()
    [0.5, 1.5]
    """
    measure: dict[str, Any] = {"mean": np.mean, "max": np.max, "sum": np.sum}
    if how == "none":
        return dict(scores)
    if how not in measure:
        raise unknown("normalization", str(how), (*measure, "none"))
    return {
        name: one / (float(measure[how](one)) or 1.0) if one.size else one
        for name, one in scores.items()
    }


def per_channel(one: Slice, along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns for each channel the sum of `along`, one number for each place of the axis."""
    return np.array([along[list(places)].sum() for places in one.positions], dtype=np.float64)


def summed(one: Slice, array: NDArray[Any]) -> NDArray[np.float64]:
    """Returns for each channel the sum of the elements of its slice of an initializer."""
    others = tuple(axis for axis in range(array.ndim) if axis != one.axis)
    return per_channel(one, np.asarray(array, np.float64).sum(axis=others))


def distinct(slices: Sequence[Slice]) -> Iterator[Slice]:
    """Yields each place of a weight once: several nodes may read one weight."""
    seen: set[tuple[str, int]] = set()
    for one in slices:
        if (one.initializer, one.axis) not in seen:
            seen.add((one.initializer, one.axis))
            yield one


def _norms(model: Model, groups: Sequence[ChannelGroup], order: int) -> Scores:
    graph = model.edit().graph
    statistics = {
        str(value.name)
        for node in graph
        if node.op_type == "BatchNormalization"
        for value in node.inputs[3:5]
        if value is not None
    }
    scores: Scores = {}
    for group in groups:
        total = np.zeros(group.size)
        for one in distinct(group.slices):
            array = weight_array(graph.initializers[one.initializer])
            if one.initializer not in statistics and array.dtype.kind == "f":
                total += summed(one, np.abs(array.astype(np.float64)) ** order)
        scores[group.name] = total ** (1 / order)
    return scores


def _scales(model: Model, groups: Sequence[ChannelGroup]) -> Scores:
    graph = model.edit().graph
    scales = {
        str(node.inputs[1].name)
        for node in graph
        if node.op_type == "BatchNormalization" and node.inputs[1] is not None
    }
    scores: Scores = {}
    for group in groups:
        own = [one for one in distinct(group.slices) if one.initializer in scales]
        if own:
            each = [np.abs(weight_array(graph.initializers[one.initializer])) for one in own]
            scores[group.name] = np.mean(
                [summed(one, array) for one, array in zip(own, each, strict=True)], axis=0
            )
    return scores


def _activations(
    model: Model, groups: Sequence[ChannelGroup], context: Context, samples: int
) -> Scores:
    data, _ = training_samples(context.need_task("importance by activation"))
    nodes = {str(node.name): node for node in model.edit().graph}
    read = {
        (group.name, one.node, one.initializer): (one, place)
        for group in groups
        for one in group.slices
        if one.role == "consumer" and (place := _read_by(nodes[one.node], one)) is not None
    }
    names = list(dict.fromkeys(name for _, (name, _) in read.values()))
    if not names:
        return {}
    totals: dict[str, NDArray[np.float64]] = {}
    seen = 0
    limit = min(samples, len(data))
    graph = model.edit()
    infer_types(graph, "the model")
    probe = with_outputs(Model(graph), names)
    with OnnxRuntime().open(probe, Setting(threads=machine().cores)) as session:
        first = session.run(next(fitting(model, data, 1, 1)))
        each = sum(array.nbytes for array in first.values())
        size = max(1, min(_BATCH, _BATCH_BYTES // max(each, 1)))
        for inputs in fitting(model, data, size, limit):
            values = {**session.run(inputs), **inputs}
            n = len(next(iter(inputs.values())))
            seen += n
            context.progress("activations", min(seen, limit), limit)
            for key, (one, (name, axis)) in read.items():
                if key[0] not in totals:
                    totals[key[0]] = np.zeros(len(one.positions))
                magnitude = np.moveaxis(np.abs(values[name]), axis, 0)
                along = magnitude.reshape(len(magnitude), -1).mean(axis=1, dtype=np.float64)
                # A grouped layer's weight has the places of one of its groups.
                length = 1 + max(max(places) for places in one.positions)
                if len(along) % length == 0 and len(along) > length:
                    along = along.reshape(-1, length).mean(axis=0)
                totals[key[0]] += n * per_channel(one, along) / len(one.positions[0])
    consumers = {name: sum(key[0] == name for key in read) for name in totals}
    return {name: one / (seen * consumers[name]) for name, one in totals.items()}


def _read_by(node: ir.Node, one: Slice) -> tuple[str, int] | None:
    """Returns the value that a consumer reads the channels from, and their axis in it."""
    data = node.inputs[0]
    if data is None or data.name is None or data.is_initializer():
        return None
    if node.op_type in _CHANNEL_AXES and one.axis == _CHANNEL_AXES[node.op_type][0]:
        return data.name, 1
    if node.op_type == "Gemm":
        return data.name, 0 if node.attributes.get_int("transA", 0) else 1
    if node.op_type == "MatMul":
        return data.name, -1
    return None


def need_scores(
    technique: str, kind: str, groups: Sequence[ChannelGroup], scores: Scores
) -> list[ChannelGroup]:
    """Returns the groups without a score; raises `Misuse` when none has one."""
    if groups and not scores:
        raise Misuse(
            f"{technique}: none of the {len(groups)} groups that can be cut has a score by "
            f"{kind!r}: a folded model has no BatchNormalization left; use l2 or taylor"
        )
    return [group for group in groups if group.name not in scores]
