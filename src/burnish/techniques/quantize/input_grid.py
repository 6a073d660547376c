# SPDX-License-Identifier: Apache-2.0
"""Puts an image input on the 8-bit grid that its pixels came from.

A decoded image has 256 levels. Normalization moves each channel's levels by its own mean
(and deviation), and one scale and zero point for the whole tensor then fits none of them:
the very first rounding loses up to half a level everywhere. Where the input is seen to lie
on such levels, a channel x_c = a_c k + b_c is first brought back to its k = 0 … 255,

    y_c = (x_c − b_c) / a_c,        conv(x, W, β) = conv(y, a W, β + Σ W_c b_c),

so that quantizing y with scale 1 loses nothing, and the convolution takes a and b into its
weights and bias. It holds where the convolution pads nothing (a padded 0 is no level of y).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from burnish.core.model import Model
from burnish.core.task import Arrays
from burnish.core.technique import Skipped
from burnish.techniques.quantize.grid import Activation, Grid
from burnish.techniques.quantize.observe import Observed

_LEVELS = 256
_MOST_CHANNELS = 16
_TOLERANCE = 1e-3  # of a level: float32 leaves about 1e-5 of it


@dataclass(frozen=True)
class Aligned:
    """A graph that computes what the model does, and the exact grids of its new tensors."""

    graph: ir.Model
    grids: dict[str, Grid]
    skipped: tuple[Skipped, ...] = ()


def align(
    model: Model, batches: Iterable[Arrays], kind: Activation, keep_float: Collection[str] = ()
) -> Aligned:
    """Returns the model with each input that lies on 8-bit levels brought onto them.

    `batches` are some inputs of the model; they are read only where an input may qualify.
    Inputs of convolutions in `keep_float` stay as they are.
    """
    graph = model.edit()
    readers = {
        value: node
        for value in graph.graph.inputs
        if (node := _only_reader(value)) is not None
        and node.op_type == "Conv"
        and node.name not in keep_float
    }
    possible: dict[ir.Value, ir.Node] = {}
    skipped = []
    for value, node in readers.items():
        reason = _refusal(value, node)
        if reason is None:
            possible[value] = node
        else:
            skipped.append(Skipped(f"the levels of the input {value.name}", reason))
    grids: dict[str, Grid] = {}
    seen = list(batches) if possible else []
    for value, node in possible.items():
        name = str(value.name)
        levels = find_levels(np.concatenate([batch[name] for batch in seen]))
        if levels is not None:
            shift = 0 if kind == "u8" else _LEVELS // 2
            made = _rewrite(graph.graph, value, node, *levels, shift)
            grids[made] = _exact(kind)
    return Aligned(graph, grids, tuple(skipped))


def find_levels(
    values: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Returns the step a and lowest level b of each channel, or None when there is no such grid.

    `values`: (batch, channels, …). Every value must be b + a k for a whole k in 0 to 255,
    within a thousandth of a step.

    >>> pixels = np.arange(256, dtype=np.float32).reshape(1, 1, 256)
    >>> step, lowest = find_levels(pixels / 51 - 2)
    >>> step.round(4).tolist(), lowest.round(4).tolist()
    ([0.0196], [-2.0])
    """
    steps, lowest = [], []
    for channel in np.moveaxis(values, 1, 0).astype(np.float64):
        if not np.isfinite(channel).all():
            return None
        levels = np.unique(channel)
        gaps = np.diff(levels)
        # What float32 rounds differently is one level.
        span = float(levels[-1] - levels[0])
        gaps = gaps[gaps > span * 1e-6]
        if gaps.size == 0:
            return None
        count = round(span / float(gaps.min()))
        if not 2 <= count < _LEVELS:
            return None
        step = span / count
        k = (channel - levels[0]) / step
        if np.abs(k - np.rint(k)).max() > _TOLERANCE:
            return None
        # Levels that these samples lack may lie on either side.
        spare = (_LEVELS - 1 - count) // 2
        steps.append(step)
        lowest.append(float(levels[0]) - spare * step)
    return np.array(steps), np.array(lowest)


def within(seen: Observed, grid: Grid) -> bool:
    """Returns whether all that was seen of a tensor lies in its grid's range, to half a level."""
    low, high = (float(grid.scale) * (end - int(grid.zero_point)) for end in (grid.low, grid.high))
    slack = 0.5 * float(grid.scale)
    return low - slack <= seen.histogram.low and seen.histogram.high <= high + slack


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _refusal(value: ir.Value, node: ir.Node) -> str | None:
    """Returns why the convolution cannot take the levels into its weights, or None."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.const_value is None or value.dtype != ir.DataType.FLOAT:
        return "its convolution's weight is computed"
    if bias is not None and bias.const_value is None:
        return "its convolution's bias is computed"
    channels = weight.const_value.numpy().shape[1]
    if node.attributes.get_int("group", 1) != 1 or channels > _MOST_CHANNELS:
        return "its convolution is grouped, or has many channels: that is no image"
    if any(node.attributes.get_ints("pads", ())) or node.attributes.get_string(
        "auto_pad", "NOTSET"
    ) not in ("NOTSET", "VALID"):
        return "its convolution pads with 0, which is no level of an image"
    return None


def _rewrite(
    graph: ir.Graph,
    value: ir.Value,
    node: ir.Node,
    step: NDArray[np.float64],
    lowest: NDArray[np.float64],
    shift: int,
) -> str:
    """Puts y = (x − b) / a − shift before the convolution; returns the name of y."""
    tape = Tape()
    shape = (1, -1, *[1] * (len(value.shape or ()) - 2))
    origin = lowest + shift * step
    out = value
    names = {one.name for one in graph.all_nodes()} | set(graph.initializers)

    def constant(name: str, array: NDArray[np.float64]) -> ir.Value:
        while name in names:
            name += "."
        names.add(name)
        made = tape.initializer(ir.tensor(array.astype(np.float32), name=name), name=name)
        graph.register_initializer(made)
        return made

    def computed(operator: str, operand: ir.Value) -> ir.Value:
        made = tape.op(operator, [out, operand])
        made.name = f"{value.name}.levels.{operator.lower()}"
        made.shape, made.type = value.shape, value.type
        return made

    scale = float(step[0])
    if np.ptp(step) > _TOLERANCE / _LEVELS * scale or abs(scale - 1) > 1e-6:
        out = computed("Mul", constant("levels.scale", (1 / step).reshape(shape)))
    else:
        step = np.ones_like(step)
    out = computed("Add", constant("levels.shift", (-origin / step).reshape(shape)))
    graph.insert_before(node, list(tape.nodes))
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    assert weight.const_value is not None
    kernel = weight.const_value.numpy().astype(np.float64)
    spread = [1, -1, *[1] * (kernel.ndim - 2)]
    added = kernel.reshape(*kernel.shape[:2], -1).sum(axis=2) @ origin
    if bias is not None and bias.const_value is not None:
        added = added + bias.const_value.numpy()
    node.replace_input_with(0, out)
    node.replace_input_with(1, constant(f"{weight.name}.levels", kernel * step.reshape(spread)))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, constant(f"{node.name}.bias.levels", added))
    return str(out.name)


def _exact(kind: Activation) -> Grid:
    one = np.asarray(1, np.float32)
    if kind == "u8":
        return Grid(one, np.asarray(0, np.uint8), 0, 255)
    return Grid(one, np.asarray(0, np.int8), -128, 127)
