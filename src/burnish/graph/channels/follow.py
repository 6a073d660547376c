# SPDX-License-Identifier: Apache-2.0
"""Follows atoms through a whole graph, node after node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from burnish.core.errors import Broken
from burnish.graph.channels.propagation import Propagation, Refusal, title
from burnish.graph.channels.rules.table import RULES
from burnish.graph.channels.shapes import Shapes, concrete_shapes
from burnish.graph.channels.sizes import escape, track

_MOST_ROUNDS = 8


def follow(model: ir.Model) -> Propagation:
    """Returns the atoms of a graph, after the choices that leave most of them free.

    A node that splits an axis can be cut in several ways. When a way that was taken is
    found locked in the end, it is rejected and the graph is followed anew.
    """
    shapes = concrete_shapes(model)
    rejected: dict[tuple[str, int], str] = {}
    for _ in range(_MOST_ROUNDS):
        found = _round(model, shapes, rejected)
        failed = _failed(found)
        if not failed.keys() - rejected.keys():
            return found
        rejected = {**failed, **rejected}
    return found


def _failed(p: Propagation) -> dict[tuple[str, int], str]:
    """Returns the choices that led to locks, and the locks.

    First those that were locked by no other choice: when those go another way, the rest
    may be free.
    """
    reasons = {
        one.key: str(p.atoms.reasons(one.ids[:1])[0])
        for one in p.choices
        if p.atoms.locked(one.ids).all()
    }
    names = {one.key[0] for one in p.choices}
    roots = {
        key: reason
        for key, reason in reasons.items()
        if not any(f" {name} splits" in reason for name in names)
    }
    return roots or reasons


def _round(model: ir.Model, shapes: Shapes, rejected: Mapping[tuple[str, int], str]) -> Propagation:
    p = Propagation(model.graph, shapes, rejected)
    for value in model.graph.inputs:
        shape = shapes.of(value)
        p.values[value] = (
            None
            if shape is None
            else [None if size is None else p.atoms.new(size) for size in shape]
        )
        p.hold(p.values[value] or [], f"it is the model's input {value.name}")
    for node in model.graph:
        rule = RULES.get(node.op_type) if node.domain == "" else None
        try:
            if rule is None:
                raise Refusal("is an operator through which channels cannot be followed")
            if any(True for _ in _subgraphs(node)):
                raise Refusal("has a graph inside")
            rule(p, node)
        except Refusal as refusal:
            _lock_all(p, node, f"{title(node)} {refusal}")
        track(p, node)
        for value in node.outputs:
            if value not in p.values and value.name:
                raise Broken(f"the rule of {title(node)} forgot the output {value.name}")
    for value in model.graph.outputs:
        for entry in p.sizes.get(value, ()):
            if isinstance(entry, np.ndarray):
                p.hold(entry, f"its size is the model's output {value.name}")
        if value in p.values or value.is_initializer():
            try:
                p.hold(p.axes(value), f"it is the model's output {value.name}")
            except Refusal:
                continue  # nothing is known of it, so nothing reaches it
    return p


def _lock_all(p: Propagation, node: ir.Node, reason: str) -> None:
    """Locks everything that the node, or a graph inside it, reads or gives."""
    read = list(node.inputs)
    for graph in _subgraphs(node):
        for inner in graph.all_nodes():
            read += list(inner.inputs)
        read += list(graph.outputs)
    for value in read:
        escape(p, value, node)
        if value is not None and (
            p.values.get(value) is not None or value.name in p.graph.initializers
        ):
            p.hold(p.axes(value), reason)
    for index, value in enumerate(node.outputs):
        shape = p.shapes.of(value)
        p.values[value] = (
            None
            if shape is None
            else [p.held(node, axis, reason, index) for axis in range(len(shape))]
        )


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()
