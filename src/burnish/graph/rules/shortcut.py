# SPDX-License-Identifier: Apache-2.0
"""A shortcut without parameters, "option A": every s-th pixel, and zeros for the new channels.

    Pad(x[:, :, ::s, ::s]) = Conv(x; W, strides=s),  W[o, i] = 1 where o is i's new place, else 0

Engines slice and pad in an operator for each axis, and cannot join them to the sum that
follows; they add to the output of a convolution within its kernel.

Source: He et al. 2016 (arXiv:1512.03385), section 4.2, for the shortcut.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import integers, made_by, sizes
from burnish.graph.rewrite import Answer, Rule
from burnish.graph.rules.pooling import padding_by_axis, padding_value

_HALF_OR_SINGLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_MOST_CHANNELS = 128  # to convolve more takes longer than to copy them


def _whole(node: ir.Node, tape: Tape) -> Answer:
    """x[:] = x"""
    steps = _strides(node)
    return node.inputs[0] if steps is not None and all(step == 1 for step in steps) else None


def _subsampled(node: ir.Node, tape: Tape) -> Answer:
    x, before_pad = node.inputs[0], sizes(node.inputs[0])
    dtype = x.dtype if x is not None else None
    if dtype not in _HALF_OR_SINGLE or before_pad is None or len(before_pad) < 3:
        return None
    rank = len(before_pad)
    strides = [1] * rank
    while (one := made_by(x, "Slice")) is not None and (steps := _strides(one)) is not None:
        strides = [a * b for a, b in zip(strides, steps, strict=True)]
        x = one.inputs[0]
    if x is None or strides[:2] != [1, 1] or all(step == 1 for step in strides):
        return None
    amounts = padding_by_axis(node, rank)
    if node.attributes.get_string("mode", "constant") != "constant" or padding_value(node) != 0.0:
        return "it pads something else than zeros"
    if amounts is None:
        return "how much is padded is not constant"
    before, after = amounts
    if any(count for axis in range(rank) if axis != 1 for count in (before[axis], after[axis])):
        return "it pads more than the channels"
    if min(before[1], after[1]) < 0:
        return "it crops"
    channels = before_pad[1]
    if channels is None:
        return "the number of channels is not known"
    if channels > _MOST_CHANNELS:
        return f"with {channels} channels a convolution would take longer"
    weight = np.zeros((before[1] + channels + after[1], channels), dtype.numpy())
    weight[before[1] + np.arange(channels), np.arange(channels)] = 1
    name = f"{node.outputs[0].name}.weight"
    kernel = tape.initializer(ir.tensor(weight.reshape(*weight.shape, *[1] * (rank - 2))), name)
    return tape.op("Conv", [x, kernel], {"strides": strides[2:]})


def _strides(node: ir.Node) -> list[int] | None:
    """Returns the step along each axis, where a Slice takes all from the first to the last."""
    shape = sizes(node.inputs[0])
    if shape is None:
        return None
    starts, ends = (integers(one) for one in node.inputs[1:3])
    if starts is None or ends is None:
        return None
    count = len(starts)
    optional = [*node.inputs[3:], None, None]
    axes = integers(optional[0]) if optional[0] is not None else [*range(count)]
    steps = integers(optional[1]) if optional[1] is not None else [1] * count
    if axes is None or steps is None:
        return None
    strides = [1] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        most = np.iinfo(np.int32).max if size is None else size
        if start != 0 or end < most or step < 1:
            return None
        strides[axis] = step
    return strides


SHORTCUT = (
    Rule("takes all there is", frozenset({"Slice"}), _whole, quiet=True),
    Rule("to a convolution with ones", frozenset({"Pad"}), _subsampled),
)
