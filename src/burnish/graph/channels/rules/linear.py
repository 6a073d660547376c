# SPDX-License-Identifier: Apache-2.0
"""Convolutions, matrix products and recurrent layers: what makes and reads channels.

A grouped convolution may be cut in two ways. With g groups of k inputs and m outputs each:

    case 1, whole groups: group j goes with its k inputs and m outputs; g shrinks
    case 2, places: place p of all groups goes, among the inputs; k shrinks, or m, not g

Depthwise convolution (k = 1) is case 1. Elsewhere the finer way is tried first, the other
when the first leads nowhere.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.propagation import (
    Axis,
    Choice,
    Propagation,
    Refusal,
    Repair,
    Survives,
    title,
)

_WHOLE, _PLACES = 0, 1


def conv(p: Propagation, node: ir.Node) -> None:
    """Conv: weights (outputs, inputs / group, *kernel)."""
    value, source = _weights(p, node)
    x, w = p.axes(source), p.axes(value)
    p.hold(x[2:], f"{title(node)} slides over it")
    p.hold(w[2:], f"it is the kernel of {title(node)}")
    inputs, outputs, inner = _known(x[1]), _known(w[0]), _known(w[1])
    group = node.attributes.get_int("group", 1)
    if group == 1:
        p.join(node, inputs, inner)
        _two_roles(p, node, value, reads=1, makes=0)
    elif _by_groups(p, node, group, inner.size, outputs):
        anchors = outputs.reshape(group, -1)[:, 0]
        p.join(node, outputs, np.repeat(anchors, outputs.size // group))
        p.join(node, inputs, np.repeat(anchors, inner.size))
        p.hold(inner, f"{title(node)} is cut by whole groups")
        p.repairs.append(_group_count(node, anchors))
    else:
        p.join(node, inputs, np.tile(inner, group))
        p.join(node, outputs, np.tile(outputs[: outputs.size // group], group))
        _two_roles(p, node, value, reads=1, makes=0)
    _bias(p, node, outputs)
    _give_spatial(p, node, [x[0], outputs], len(x))


def conv_transpose(p: Propagation, node: ir.Node) -> None:
    """ConvTranspose: weights (inputs, outputs / group, *kernel)."""
    value, source = _weights(p, node)
    x, w = p.axes(source), p.axes(value)
    p.hold(x[2:], f"{title(node)} slides over it")
    p.hold(w[2:], f"it is the kernel of {title(node)}")
    inputs, inner = _known(w[0]), _known(w[1])
    p.join(node, x[1], inputs)
    group = node.attributes.get_int("group", 1)
    if group == 1:
        outputs = inner
        _two_roles(p, node, value, reads=0, makes=1)
    elif _by_groups(p, node, group, inputs.size // group, inputs):
        anchors = inputs.reshape(group, -1)[:, 0]
        p.join(node, inputs, np.repeat(anchors, inputs.size // group))
        outputs = np.repeat(anchors, inner.size)
        p.hold(inner, f"{title(node)} is cut by whole groups")
        p.repairs.append(_group_count(node, anchors))
    else:
        p.join(node, inputs, np.tile(inputs[: inputs.size // group], group))
        outputs = np.tile(inner, group)
        _two_roles(p, node, value, reads=0, makes=1)
    _bias(p, node, outputs)
    _give_spatial(p, node, [x[0], outputs], len(x))


def gemm(p: Propagation, node: ir.Node) -> None:
    """Gemm: A (m, k) and B (k, n), either transposed, and C broadcast to (m, n)."""
    a, b = p.axes(node.inputs[0]), p.axes(node.inputs[1])
    a_inner = 0 if node.attributes.get_int("transA", 0) else 1
    b_inner = 1 if node.attributes.get_int("transB", 0) else 0
    _contract(p, node, a, a_inner, 1 - a_inner, b, b_inner, 1 - b_inner)
    result = [a[1 - a_inner], b[1 - b_inner]]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = p.broadcast(node, [result, p.axes(node.inputs[2])])
    p.give(node, result)


def matmul(p: Propagation, node: ir.Node) -> None:
    """MatMul, as numpy's: (…, m, k) by (…, k, n), either a vector."""
    a, b = p.axes(node.inputs[0]), p.axes(node.inputs[1])
    if not a or not b:
        raise Refusal("multiplies a number")
    a_other = -2 if len(a) > 1 else None
    b_inner, b_other = (-2, -1) if len(b) > 1 else (-1, None)
    _contract(p, node, a, -1, a_other, b, b_inner, b_other)
    batch = p.broadcast(node, [a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else []
    rest = [a[-2]] if len(a) > 1 else []
    p.give(node, [*batch, *rest, *([b[-1]] if len(b) > 1 else [])])


def recurrent(p: Propagation, node: ir.Node) -> None:
    """LSTM, GRU, RNN: reads channels; the hidden state stays as wide as it is."""
    value, source = _weights(p, node)
    x, w = p.axes(source), p.axes(value)
    p.join(node, x[2], w[2])
    p.use(node, value, 2, "consumer")
    reason = f"{title(node)} keeps its hidden state"
    p.hold([*x[:2], *w[:2]], reason)
    for other in node.inputs[2:]:
        if other is not None:
            p.hold(p.axes(other), reason)
    for index, output in enumerate(node.outputs):
        shape = p.shapes.of(output)
        if shape is not None:
            p.give(node, [p.held(node, one, reason, index) for one in range(len(shape))], index)


def _weights(p: Propagation, node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Returns the weights and the input. Raises `Refusal` when the weights are computed."""
    source, value = node.inputs[0], node.inputs[1]
    if source is None or value is None:
        raise Refusal("lacks an input")
    p.axes(value)
    if not p.is_weight(value):
        raise Refusal("has weights that are computed")
    return value, source


def _known(axis: Axis) -> Ids:
    if axis is None:
        raise Refusal("has a number of channels that is not known")
    return axis


def _two_roles(p: Propagation, node: ir.Node, value: ir.Value, *, reads: int, makes: int) -> None:
    p.use(node, value, makes, "producer")
    p.use(node, value, reads, "consumer")


def _contract(
    p: Propagation,
    node: ir.Node,
    a: list[Axis],
    a_inner: int,
    a_other: int | None,
    b: list[Axis],
    b_inner: int,
    b_other: int | None,
) -> None:
    """Joins the axes that a product sums over, and says what its weights make and read."""
    p.join(node, a[a_inner], b[b_inner])
    for place, inner, other in ((1, b_inner, b_other), (0, a_inner, a_other)):
        value = node.inputs[place]
        if value is not None and p.is_weight(value):
            if other is not None:
                p.use(node, value, other, "producer")
            p.use(node, value, inner, "consumer")
            return
    p.hold(a[a_inner], f"{title(node)} sums over it the products of two computed tensors")


def _by_groups(p: Propagation, node: ir.Node, group: int, size: int, ids: Ids) -> bool:
    """Chooses case 1 or 2, notes the choice, and returns whether it is case 1."""
    if size == 1:
        return True
    order = [_WHOLE, _PLACES] if group >= size else [_PLACES, _WHOLE]
    keys = [(str(node.name), way) for way in order]
    for key in keys:
        if key not in p.rejected:
            p.choices.append(Choice(key, ids))
            return key[1] == _WHOLE
    tried = "; ".join(dict.fromkeys(p.rejected[key] for key in keys))
    p.hold(ids, f"{title(node)} can be cut in no way: {tried}")
    return False


def _group_count(node: ir.Node, anchors: Ids) -> Repair:
    def repair(survives: Survives) -> None:
        node.attributes["group"] = ir.AttrInt64("group", int(survives(anchors).sum()))

    return repair


def _bias(p: Propagation, node: ir.Node, channels: Ids) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        p.join(node, p.axes(node.inputs[2])[0], channels)


def _give_spatial(p: Propagation, node: ir.Node, axes: list[Axis], rank: int) -> None:
    reason = f"{title(node)} slides over it"
    p.give(node, [*axes, *(p.held(node, one, reason) for one in range(2, rank))])
