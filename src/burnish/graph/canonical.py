# SPDX-License-Identifier: Apache-2.0
"""Brings any graph to Burnish's form, which every other part may rely on.

One operator set; no functions; constants are initializers, and initializers are no
inputs; nodes sorted; every node and value has a name that no other has; types and
shapes inferred; no documentation and no tool's private notes; accepted by the ONNX
checker.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from burnish.core.errors import Misuse, Unsupported
from burnish.core.model import OPSET
from burnish.graph.opset import ONNX_ERRORS, to_opset
from burnish.graph.skeleton import skeleton, take_types

_IR_VERSION = 10  # the file format that goes with operator set 21


def canonical(graph: ir.Model, what: str) -> ir.Model:
    """Returns the graph in Burnish's form; `graph` itself is used up.

    `what` names the model in messages. Raises `Misuse` for a graph that breaks ONNX's
    rules, and `Unsupported` when an operator has no equal in operator set OPSET.
    """
    _one_default_domain(graph)
    _drop_notes(graph)
    _inline(graph, what)
    sort(graph, what)
    _release_inputs(graph)
    _drop_unused(graph)
    name_all(graph)
    version = graph.opset_imports[""]
    graph = to_opset(graph, what)
    _lift_constants(graph)
    _drop_unused(graph)
    sort(graph, what)
    _drop_notes(graph)
    name_all(graph)
    graph.ir_version = _IR_VERSION
    try:
        infer_types(graph, what)
        check(graph, what)
    except Misuse as error:
        if version > OPSET:  # sound in its own operator set, for all we know
            raise Unsupported(f"in operator set {OPSET} instead of {version}, {error}") from error
        raise
    return graph


def is_canonical(graph: ir.Model) -> bool:
    """Returns whether a graph that Burnish wrote needs no further work."""
    return (
        graph.opset_imports.get("") == OPSET
        and graph.ir_version == _IR_VERSION
        and bool(graph.graph.name)
        and not graph.functions
        and not any(value.is_initializer() for value in graph.graph.inputs)
        and not any(node.op_type == "Constant" for node in graph.graph)
    )


def sort(graph: ir.Model, what: str) -> None:
    """Sorts the nodes so that each comes after what it reads. Raises `Misuse` for a cycle."""
    try:
        graph.graph.sort()
    except ValueError as error:
        raise Misuse(f"{what} is not a sound ONNX model: its nodes form a cycle") from error


def infer_types(graph: ir.Model, what: str) -> None:
    """Sets the types and shapes of all values as far as they can be inferred.

    Raises `Misuse` when the graph contradicts itself.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(
            skeleton(graph), check_type=True, strict_mode=True, data_prop=True
        )
    except ONNX_ERRORS as error:
        raise Misuse(
            f"{what} is not a sound ONNX model: its shapes or types contradict each other: "
            f"{first_lines(error)}"
        ) from error
    take_types(graph, inferred)


def check(graph: ir.Model, what: str) -> None:
    """Raises `Misuse` with the ONNX checker's words when it rejects the graph."""
    try:
        onnx.checker.check_model(skeleton(graph))
    except ONNX_ERRORS as error:
        raise Misuse(f"{what} is not a sound ONNX model: {first_lines(error)}") from error


def first_lines(error: BaseException) -> str:
    """Returns the beginning of another library's message, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500] or type(error).__name__


def _one_default_domain(graph: ir.Model) -> None:
    """Writes the default domain in one way: "", not "ai.onnx"."""
    graph.opset_imports.setdefault("", graph.opset_imports.get("ai.onnx", OPSET))
    for imports in (graph.opset_imports, *(one.opset_imports for one in graph.functions.values())):
        version = imports.pop("ai.onnx", None)
        if version is not None:
            imports.setdefault("", version)
    bodies: list[ir.Graph | ir.Function] = [graph.graph, *graph.functions.values()]
    for body in bodies:
        for node in body.all_nodes():
            if node.domain == "ai.onnx":
                node.domain = ""


def _drop_notes(graph: ir.Model) -> None:
    """Removes documentation and other tools' metadata, except the model's own."""
    graph.doc_string = None
    kept = {key: text for key, text in graph.metadata_props.items() if key.startswith("burnish.")}
    graph.metadata_props.clear()
    graph.metadata_props.update(kept)
    for one in graph.graphs():
        one.doc_string = None
        one.metadata_props.clear()
        for value in (*one.inputs, *one.initializers.values(), *one.outputs):
            value.doc_string = None
            value.metadata_props.clear()
        for node in one:
            node.doc_string = None
            node.version = None
            node.metadata_props.clear()
            for value in node.outputs:
                value.doc_string = None
                value.metadata_props.clear()


def _inline(graph: ir.Model, what: str) -> None:
    if not graph.functions:
        return
    from onnx_ir.passes import PassError
    from onnx_ir.passes.common import InlinePass

    try:
        InlinePass()(graph)
    except (PassError, ValueError, KeyError) as error:
        raise Misuse(f"{what}: its functions cannot be inlined: {first_lines(error)}") from error
    graph.functions.clear()


def _release_inputs(graph: ir.Model) -> None:
    """Takes the initializers, which old files list as inputs too, out of the inputs."""
    for value in [one for one in graph.graph.inputs if one.is_initializer()]:
        graph.graph.inputs.remove(value)


def _lift_constants(graph: ir.Model) -> None:
    """Turns Constant nodes into initializers of the graph that they are in."""
    for one in graph.graphs():
        for node in list(one):
            tensor = _constant(node) if (node.domain, node.op_type) == ("", "Constant") else None
            if tensor is None or node.outputs[0].is_graph_output():
                continue
            old = node.outputs[0]
            value = ir.Value(
                name=old.name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.numpy().shape),
                const_value=tensor,
            )
            old.name = None
            old.replace_all_uses_with(value)
            one.remove(node, safe=True)
            one.register_initializer(value)


def _constant(node: ir.Node) -> ir.TensorProtocol | None:
    if len(node.attributes) != 1:
        return None
    attribute = next(iter(node.attributes.values()))
    value = attribute.value
    if attribute.name == "value":
        return value if isinstance(value, ir.TensorProtocol) else None
    if attribute.name in ("value_float", "value_floats"):
        return ir.tensor(np.asarray(value, dtype=np.float32))
    if attribute.name in ("value_int", "value_ints"):
        return ir.tensor(np.asarray(value, dtype=np.int64))
    return None


def _drop_unused(graph: ir.Model) -> None:
    """Removes nodes and initializers that no output depends on, and unused domains."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(graph)
    used = {node.domain for node in graph.graph.all_nodes()} | {""}
    for domain in set(graph.opset_imports) - used:
        del graph.opset_imports[domain]


def _values(graph: ir.Model) -> Iterator[tuple[ir.Value, str]]:
    """Yields every value that may be renamed, with the name it gets when it has none."""
    for one in graph.graphs():
        if one is not graph.graph:
            for value in one.inputs:
                yield value, "in"
        for value in one.initializers.values():
            yield value, "constant"
        for node in one:
            for position, value in enumerate(node.outputs):
                yield value, f"{node.name}.{position}" if position else f"{node.name}"


def name_all(graph: ir.Model) -> None:
    """Gives each node and value a name of its own; names that are unique already stay.

    A node without one is called after its operator and its place, as `Conv_12`.
    """
    for one in graph.graphs():
        one.name = one.name or "graph"
    taken: set[str] = set()
    for place, node in enumerate(graph.graph.all_nodes()):
        node.name = _free(node.name or f"{node.op_type}_{place}", taken)
        taken.add(node.name)
    fixed = {*graph.graph.inputs, *graph.graph.outputs}
    names = {value.name for value in fixed if value.name}
    for value, fallback in list(_values(graph)):
        if value in fixed:
            continue
        name = _free(value.name or fallback, names)
        names.add(name)
        if name != value.name:
            value.name = name


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    count = 1
    while f"{name}_{count}" in taken:
        count += 1
    return f"{name}_{count}"
