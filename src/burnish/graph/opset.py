# SPDX-License-Identifier: Apache-2.0
"""Brings a graph to the one version of the ONNX operator set that Burnish works in."""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from burnish.core.errors import Unsupported
from burnish.core.model import OPSET
from burnish.graph.skeleton import skeleton

_ONNXSCRIPT_FROM = 18  # below it, only the onnx package's own converter has adapters

# What the onnx package raises: its own errors, and bare ones out of its C++ code.
ONNX_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
)


def to_opset(graph: ir.Model, what: str) -> ir.Model:
    """Returns the graph in operator set OPSET; `graph` is used up. Functions must be inlined.

    Raises `Unsupported`, naming the operator, when there is no equal form.
    """
    version = graph.opset_imports.get("", OPSET)
    if version < _ONNXSCRIPT_FROM:
        graph = _raise_old(graph, version, what)
    elif version < OPSET:
        _raise(graph, version, what)
    elif version > OPSET:
        _lower(graph, version, what)
    graph.opset_imports[""] = OPSET
    return graph


def _raise(graph: ir.Model, version: int, what: str) -> None:
    from onnxscript import version_converter

    try:
        version_converter.convert_version(graph, OPSET, fallback=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _cannot(what, version, error) from error


def _raise_old(graph: ir.Model, version: int, what: str) -> ir.Model:
    """Returns the graph converted by the onnx package, on a file without the large weights."""
    try:
        proto = onnx.version_converter.convert_version(skeleton(graph), OPSET)
        raised = ir.from_proto(proto)
    except ONNX_ERRORS as error:
        raise _cannot(what, version, error) from error
    weights = graph.graph.initializers
    for value in list(raised.graph.inputs):
        if value.name is not None and value.name in weights:
            raised.graph.inputs.remove(value)
            value.const_value = weights[value.name].const_value
            raised.graph.register_initializer(value)
    raised.opset_imports.update(
        {domain: n for domain, n in graph.opset_imports.items() if domain not in ("", "ai.onnx")}
    )
    raised.metadata_props.update(graph.metadata_props)
    return raised


def _lower(graph: ir.Model, version: int, what: str) -> None:
    """Checks that every node means the same in OPSET, where it is left as it is.

    ONNX changes an operator's meaning only through its inputs and attributes: a new
    version that adds element types, or an attribute whose default keeps the old
    behaviour, means the same for a node that uses none of it. Whether the element types
    themselves exist in OPSET is for the checker, later.
    """
    faults = []
    for node in graph.graph.all_nodes():
        if node.domain == "":
            fault = _differs(node, version)
            if fault:
                faults.append(f"node {node.name!r} ({node.op_type}) {fault}")
        node.version = None
    if faults:
        raise Unsupported(
            f"{what} uses operator set {version} and Burnish works in {OPSET}: "
            + "; ".join(sorted(set(faults))[:8])
            + f"; export it with opset {OPSET}"
        )


def _differs(node: ir.Node, version: int) -> str | None:
    """Returns how the node depends on an operator set newer than OPSET, or None."""
    if not onnx.defs.has(node.op_type, OPSET, ""):
        return "is an operator that came later"
    old = onnx.defs.get_schema(node.op_type, OPSET, "")
    new = onnx.defs.get_schema(node.op_type, version, "")
    if old.since_version == new.since_version:
        return None
    for name in node.attributes:
        if name not in old.attributes and name in new.attributes:
            return f"has the attribute {name!r}, which came later"
    if len(node.inputs) > old.max_input or len(node.outputs) > old.max_output:
        return f"has {len(node.inputs)} inputs, of which some came later"
    defaults = {
        name
        for name, attribute in old.attributes.items()
        if name not in node.attributes
        and name in new.attributes
        and attribute.default_value != new.attributes[name].default_value
    }
    if defaults:
        return f"relies on new default values of {sorted(defaults)}"
    return None


def _cannot(what: str, version: int, error: Exception) -> Unsupported:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return Unsupported(
        f"{what} uses operator set {version} and cannot be brought to {OPSET}: {reason}; "
        f"export it with opset {OPSET}"
    )
