# SPDX-License-Identifier: Apache-2.0
"""A graph without its large weights, for the functions of the onnx package.

Those take a serialized file, which holds 2 GB at most; checking, shape inference and
version conversion need only small tensors (shapes, axes).
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

SMALL_BYTES = 1024


def skeleton(graph: ir.Model) -> onnx.ModelProto:
    """Returns a file of `graph` in which large initializers became further inputs, in order.

    `graph` stays as it is.
    """
    copy = graph.clone()
    for value in list(copy.graph.initializers.values()):
        tensor = value.const_value
        assert value.name is not None
        if tensor is None or tensor.nbytes > SMALL_BYTES:
            copy.graph.initializers.pop(value.name)
            copy.graph.inputs.append(value)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = in_memory(tensor)
    proto = ir.to_proto(copy)
    assert isinstance(proto, onnx.ModelProto)
    return proto


def in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    """Returns a copy of the tensor that does not depend on its file."""
    return ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


def take_types(graph: ir.Model, inferred: onnx.ModelProto) -> None:
    """Sets types and shapes of `graph`'s values, by name, to what was inferred.

    Inputs keep what they declare, and so do outputs whose shape is known already.
    """
    typed = ir.from_proto(inferred)
    known = {
        value.name: value
        for node in typed.graph.all_nodes()
        for value in node.outputs
        if value.name
    }
    declared = {value for value in graph.graph.outputs if value.shape is not None}
    for node in graph.graph.all_nodes():
        for value in node.outputs:
            if value.name not in known or (value in declared and value.dtype is not None):
                continue
            found = known[value.name]
            value.type = found.type if found.type is not None else value.type
            value.shape = found.shape if found.shape is not None else value.shape
