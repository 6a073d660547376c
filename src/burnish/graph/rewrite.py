# SPDX-License-Identifier: Apache-2.0
"""Applies rewrite rules to a graph until none applies.

A rule looks at one node, the last of its pattern, and answers with

1. a value, computed by nodes it put on the tape: it takes the place of the node's output;
2. a sentence: this is nearly its pattern, and why it must stay as it is;
3. None: this is not its pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.tape import Tape

Answer = ir.Value | str | None


@dataclass(frozen=True)
class Rule:
    """A rewrite: what it does in words, the operators it looks at, and the rule itself.

    `quiet` rules tidy up what has no weight of its own; their work is not reported.
    """

    title: str
    operators: frozenset[str]
    rewrite: Callable[[ir.Node, Tape], Answer]
    quiet: bool = False


def rewrite(graph: ir.Graph, rules: Sequence[Rule]) -> tuple[list[str], list[tuple[str, str]]]:
    """Applies the rules in place, those that come first before the others.

    Returns what was done, a sentence for each rewrite, and near matches that were not
    taken, as (operator and node, reason). Each rule makes the graph simpler, so it ends.
    """
    done: list[str] = []
    while True:
        passed: list[tuple[str, str]] = []
        changed = False
        for node in list(graph):
            if node.graph is not graph or node.domain != "":
                continue
            changed = _visit(graph, node, rules, done, passed) or changed
        _sweep(graph)
        if not changed:
            return done, passed


def _visit(
    graph: ir.Graph,
    node: ir.Node,
    rules: Sequence[Rule],
    done: list[str],
    passed: list[tuple[str, str]],
) -> bool:
    for rule in rules:
        if node.op_type not in rule.operators:
            continue
        tape = Tape()
        answer = rule.rewrite(node, tape)
        if isinstance(answer, str):
            passed.append((f"{node.op_type} {node.name}", f"{rule.title}: {answer}"))
        elif answer is not None and _replace(graph, node, answer, tape):
            if not rule.quiet:
                done.append(f"{node.op_type} {node.name}: {rule.title}")
            return True
    return False


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value, tape: Tape) -> bool:
    """Puts `value` in the place of the node's first output; returns whether it could."""
    old = node.outputs[0]
    if old.is_graph_output() and value.producer() not in tape.nodes:
        return False  # an input or another output would have to take a second name
    for initializer in tape.initializers:
        initializer.name = _free(str(initializer.name), graph)
        graph.register_initializer(initializer)
    for position, new in enumerate(tape.nodes):
        if value in new.outputs:
            new.name = node.name
        else:
            new.name = f"{node.name}.{position}"
            for output in new.outputs:
                output.name = f"{old.name}.{position}"
    graph.insert_before(node, tape.nodes)
    if value.producer() in tape.nodes:
        value.name, value.type, value.shape = old.name, old.type, old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return True


def _free(name: str, graph: ir.Graph) -> str:
    count = 1
    free = name
    while free in graph.initializers:
        free, count = f"{name}.{count}", count + 1
    return free


def _sweep(graph: ir.Graph) -> None:
    """Removes the nodes that nothing reads any more, so that uses are counted right."""
    for node in reversed(graph):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
