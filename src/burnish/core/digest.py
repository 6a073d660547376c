# SPDX-License-Identifier: Apache-2.0
"""What a graph computes, as one hash.

Each value's hash is built from what produces it: an input's name and type, an
initializer's type and bytes, or a node's operator, attributes, input hashes and output
position. So the digest does not depend on the order of nodes, on the names of
temporaries and parameters, on dead nodes, or on documentation; it does depend on the
names, types and order of the model's inputs and outputs, and on operator versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir


def graph_digest(model: ir.Model) -> str:
    """Returns the SHA-256 of what the model computes, as 64 hexadecimal digits."""
    functions = {
        str(key): _graph(function, {}) for key, function in sorted(model.functions.items())
    }
    opsets = sorted(
        (domain, version)
        for domain, version in model.opset_imports.items()
        if domain in _domains(model)
    )
    return _hash("model", repr(opsets), repr(functions), _graph(model.graph, {}))


def _domains(model: ir.Model) -> set[str]:
    used = {node.domain for node in model.graph.all_nodes()}
    for function in model.functions.values():
        used |= {node.domain for node in function.all_nodes()}
    return used


def _graph(graph: ir.Graph | ir.Function, outer: Mapping[ir.Value, str]) -> str:
    known: dict[ir.Value, str] = dict(outer)
    nested = bool(outer)
    for position, value in enumerate(graph.inputs):
        name = str(position) if nested else value.name
        known[value] = _hash("input", str(name), str(value.dtype), str(value.shape))
    initializers = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
    for value in initializers:
        if value not in known:
            known[value] = _tensor(value.const_value)
    # An explicit stack, not recursion: a deep network is deeper than Python's call stack.
    # Nodes are visited in the order they are stored, which is topological in valid ONNX.
    for node in graph:
        inputs = [
            known.get(value, "unknown") if value is not None else "none" for value in node.inputs
        ]
        attributes = [
            f"{name}={_attribute(attribute, known)}"
            for name, attribute in sorted(node.attributes.items())
        ]
        base = _hash(node.domain, node.op_type, node.overload or "", *inputs, "|", *attributes)
        for position, value in enumerate(node.outputs):
            known[value] = _hash(base, str(position))
    outputs = [
        _hash("" if nested else str(value.name), str(value.dtype), str(value.shape), known[value])
        for value in graph.outputs
    ]
    inputs = [known[value] for value in graph.inputs]
    return _hash("graph", *inputs, "->", *outputs)


def _attribute(attribute: Any, known: Mapping[ir.Value, str]) -> str:
    if attribute.is_ref():
        return f"ref:{attribute.ref_attr_name}"
    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.TENSOR:
        return _tensor(value)
    if kind == ir.AttributeType.TENSORS:
        return _hash(*map(_tensor, value))
    if kind == ir.AttributeType.GRAPH:
        return _graph(value, known or {_NOWHERE: ""})
    if kind == ir.AttributeType.GRAPHS:
        return _hash(*(_graph(one, known or {_NOWHERE: ""}) for one in value))
    if kind == ir.AttributeType.FLOAT:  # held in 32 bits in a file, in 64 before
        return f"{kind}:{np.float32(value).tobytes().hex()}"
    if kind == ir.AttributeType.FLOATS:
        return f"{kind}:{np.asarray(value, dtype=np.float32).tobytes().hex()}"
    return f"{kind}:{tuple(value) if isinstance(value, list) else value!r}"


_NOWHERE = ir.Value(name="nowhere")


def _tensor(tensor: Any) -> str:
    if tensor is None:
        return "no value"
    # Streams the bytes: a model can be larger than memory when its weights are external.
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if tensor.dtype == ir.DataType.STRING:
        for text in tensor.numpy().ravel():
            digest.update(repr(text).encode())
    else:
        digest.update(memoryview(tensor.tobytes()))
    return digest.hexdigest()


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()
