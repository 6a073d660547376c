# SPDX-License-Identifier: Apache-2.0
"""What an engine's refusal says to a user: which node, which operator, why."""

from __future__ import annotations

import re
from collections.abc import Collection

import onnx_ir as ir

from burnish.core.errors import Unsupported
from burnish.core.model import Model
from burnish.core.technique import Skipped

_LONGEST = 400


def foreign_nodes(model: Model, domains: Collection[str], engine: str) -> tuple[Skipped, ...]:
    """Returns the nodes whose operators are of none of `domains`, nor functions of the model.

    The default domain is written "" here; ONNX also calls it "ai.onnx".
    """
    graph = model.edit()
    return tuple(
        Skipped(
            node.name or str(node.op_type),
            f"{engine} has no operator {node.domain}::{node.op_type}",
        )
        for node in graph.graph.all_nodes()
        if node.domain not in domains
        and node.domain != "ai.onnx"
        and node.op_identifier() not in graph.functions
    )


def refusal(engine: str, model: Model, doing: str, error: Exception) -> Unsupported:
    """Returns the error for a runtime's message, with the node that it is about where known.

    `engine` is the engine's identity and `doing` what failed: "load" or "run".
    """
    text = "\n".join((str(error), *getattr(error, "__notes__", ())))
    node = _node(model, text)
    place = ""
    if node is not None:
        domain = f"{node.domain}::" if node.domain else ""
        place = f" at node {node.name!r} (operator {domain}{node.op_type})"
    return Unsupported(
        f"{engine} cannot {doing} this model{place}: {_reason(text)}. "
        "Use another engine, or keep this node out of the change that brought it"
    )


def _node(model: Model, text: str) -> ir.Node | None:
    """Returns the node that the message names, or else the only one with an operator it names."""
    nodes = list(model.edit().graph.all_nodes())
    words = set(re.findall(r"[^\s'\"(),:]+", text))
    named = [
        node
        for node in nodes
        if node.name and (f"'{node.name}'" in text or f'"{node.name}"' in text or _in(node, words))
    ]
    if named:
        # A short name can be part of a longer one: the longest is the one that was meant.
        return max(named, key=lambda node: len(node.name or ""))
    symbols = set(re.findall(r"\w+", text))
    return next((node for node in nodes if node.op_type in symbols), None)


def _in(node: ir.Node, words: Collection[str]) -> bool:
    # Plain words ("node", "add") occur in messages by chance; generated names have a mark.
    name = str(node.name)
    return name in words and re.search(r"[\d_./]", name) is not None


def _reason(text: str) -> str:
    """Returns the lines of a message that say something, without the places in C++ files."""
    for known in (r"No conversion rule found for operations: .*", r"Message: (.*)"):
        if found := re.search(known, text):
            return found[found.lastindex or 0].strip().rstrip(".")
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.strip())
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip()
        and not re.match(r"(Exception from |Check '.*' failed at |/|\S+\.\w+:\d+)", line)
    ]
    said = "; ".join(lines) or text.strip() or "no reason given"
    return (said if len(said) <= _LONGEST else said[:_LONGEST] + "…").rstrip(".")
