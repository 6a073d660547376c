# SPDX-License-Identifier: Apache-2.0
"""Normalization: by stored statistics, over single channels, over groups, over an axis.

What is normalized over an axis depends on all of it, so that axis stays: a mean over fewer
elements is another mean, whatever their values.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from burnish.graph.channels.atoms import Ids
from burnish.graph.channels.propagation import Propagation, Refusal, Repair, Survives, title


def batch_normalization(p: Propagation, node: ir.Node) -> None:
    """BatchNormalization by stored statistics: five vectors, one number for each channel."""
    if node.attributes.get_int("training_mode", 0):
        raise Refusal("is in training mode")
    x = p.axes(node.inputs[0])
    for value in node.inputs[1:5]:
        p.join(node, x[1], p.axes(value)[0])
    p.give(node, x)


def instance_normalization(p: Propagation, node: ir.Node) -> None:
    """InstanceNormalization: each channel of each sample by itself."""
    x = p.axes(node.inputs[0])
    p.hold(x[2:], f"{title(node)} normalizes over it")
    for value in node.inputs[1:3]:
        p.join(node, x[1], p.axes(value)[0])
    p.give(node, x)


def group_normalization(p: Propagation, node: ir.Node) -> None:
    """GroupNormalization: cut by whole groups, whose statistics are their own."""
    x = p.axes(node.inputs[0])
    p.hold(x[2:], f"{title(node)} normalizes over it")
    channels = x[1]
    groups = node.attributes.get_int("num_groups", 0)
    if channels is None or groups < 1 or channels.size % groups:
        raise Refusal("has a number of channels that is not known")
    anchors = channels.reshape(groups, -1)[:, 0]
    p.join(node, channels, np.repeat(anchors, channels.size // groups))
    for value in node.inputs[1:3]:
        p.join(node, channels, p.axes(value)[0])
    p.repairs.append(_group_count(node, anchors))
    p.give(node, x)


def layer_normalization(p: Propagation, node: ir.Node) -> None:
    """LayerNormalization: the axes from `axis` on stay."""
    x = p.axes(node.inputs[0])
    axis = node.attributes.get_int("axis", -1) % len(x)
    reason = f"{title(node)} normalizes over it"
    p.hold(x[axis:], reason)
    for value in node.inputs[1:]:
        if value is not None:
            p.broadcast(node, [x, p.axes(value)])
    p.give(node, x)
    for index in range(1, len(node.outputs)):
        kept = [p.held(node, one, reason, index) for one in range(axis, len(x))]
        p.give(node, [*x[:axis], *kept], index)


def over_axis(p: Propagation, node: ir.Node) -> None:
    """Softmax and its kin: the axis stays."""
    x = p.axes(node.inputs[0])
    axis = node.attributes.get_int("axis", -1)
    p.hold(x[axis], f"{title(node)} normalizes over it")
    p.give(node, x)


def mean_variance_normalization(p: Propagation, node: ir.Node) -> None:
    """MeanVarianceNormalization over the axes listed."""
    x = p.axes(node.inputs[0])
    for axis in node.attributes.get_ints("axes", (0, 2, 3)):
        p.hold(x[axis], f"{title(node)} normalizes over it")
    p.give(node, x)


def local_response(p: Propagation, node: ir.Node) -> None:
    """LRN: a channel depends on its neighbours, so channels stay."""
    x = p.axes(node.inputs[0])
    p.hold(x[1], f"{title(node)} mixes neighbouring channels")
    p.give(node, x)


def _group_count(node: ir.Node, anchors: Ids) -> Repair:
    def repair(survives: Survives) -> None:
        node.attributes["num_groups"] = ir.AttrInt64("num_groups", int(survives(anchors).sum()))

    return repair
