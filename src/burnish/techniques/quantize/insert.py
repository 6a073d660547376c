# SPDX-License-Identifier: Apache-2.0
"""Writes quantization into a graph, as QuantizeLinear and DequantizeLinear nodes.

An activation becomes a pair Q → DQ that all its readers share; a weight becomes int8
data and one DQ; a bias stays float32 (engines quantize it as they need). No engine needs
anything else, and the file is as small as it can be.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.techniques.quantize.grid import Grid


class Inserter:
    """Changes one graph in place; equal constants are stored once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        values = (value for node in graph.all_nodes() for value in node.outputs)
        self._taken = {
            *(value.name for value in (*graph.inputs, *values)),
            *graph.initializers,
            *(node.name for node in graph.all_nodes()),
        }

    def activation(self, value: ir.Value, grid: Grid) -> None:
        """Puts Q → DQ between a tensor and all its readers."""
        scale, zero = self._constant(grid.scale, "scale"), self._constant(grid.zero_point, "zero")
        uses = list(value.uses())
        quantize = ir.node(
            "QuantizeLinear",
            [value, scale, zero],
            name=self._free(f"{value.name}.quantize"),
            num_outputs=1,
        )
        quantize.outputs[0].name = self._free(f"{value.name}.q")
        dequantize = ir.node(
            "DequantizeLinear",
            [quantize.outputs[0], scale, zero],
            name=self._free(f"{value.name}.dequantize"),
            num_outputs=1,
        )
        out = dequantize.outputs[0]
        out.name, out.shape, out.type = self._free(f"{value.name}.dq"), value.shape, value.type
        for use in uses:
            use.node.replace_input_with(use.idx, out)
        producer = value.producer()
        if producer is None:
            first = next(iter(self._graph))
            self._graph.insert_before(first, [quantize, dequantize])
        else:
            self._graph.insert_after(producer, [quantize, dequantize])
        self._absorb_clamp(quantize, grid)

    def weight(
        self, node: ir.Node, integers: NDArray[np.integer], grid: Grid, axis: int | None
    ) -> None:
        """Replaces a node's weight (input 1) by int8 data and a DQ node."""
        old = node.inputs[1]
        name = str(old.name) if old is not None else f"{node.name}.weight"
        data = self._constant(integers, f"{name}.q")
        scale = self._constant(grid.scale, f"{name}.scale")
        attributes = {} if axis is None else {"axis": axis}
        dequantize = ir.node(
            "DequantizeLinear",
            [data, scale],
            attributes,
            name=self._free(f"{name}.dequantize"),
            num_outputs=1,
        )
        out = dequantize.outputs[0]
        out.name = self._free(f"{name}.dq")
        out.shape = ir.Shape(integers.shape)
        out.type = ir.TensorType(ir.DataType.FLOAT)
        self._graph.insert_before(node, dequantize)
        node.replace_input_with(1, out)

    def bias(self, node: ir.Node, bias: NDArray[np.float32]) -> None:
        """Sets a node's bias (input 2)."""
        value = self._initializer(f"{node.name}.bias", bias)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, value)

    def _absorb_clamp(self, quantize: ir.Node, grid: Grid) -> None:
        """Drops a Relu or Clip right before Q when the grid's own range clamps the same."""
        clamped = quantize.inputs[0]
        clamp = clamped.producer() if clamped is not None else None
        if (
            clamped is None
            or clamp is None
            or len(clamped.uses()) != 1
            or clamped.is_graph_output()
        ):
            return
        if clamp.op_type not in ("Relu", "Clip") or int(grid.zero_point) != grid.low:
            return
        if clamp.op_type == "Clip":
            low, high = (_number(clamp, position) for position in (1, 2))
            top = float(grid.scale) * (grid.high - int(grid.zero_point))
            # Some ulp of slack: the top level may stand for the bound itself.
            if low != 0.0 or not (high is None or top <= high * (1 + 1e-6)):
                return
        quantize.replace_input_with(0, clamp.inputs[0])
        self._graph.remove(clamp, safe=True)

    def _constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()
        key = (array.dtype.str, array.shape, content)
        if key not in self._constants:
            self._constants[key] = self._initializer(name, array)
        return self._constants[key]

    def _initializer(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        unique = self._free(name)
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=unique)
        value = ir.Value(
            name=unique,
            const_value=tensor,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
        )
        self._graph.register_initializer(value)
        return value

    def _free(self, name: str) -> str:
        """Returns the name, or it with a number when it is taken, and takes it."""
        count, free = 0, name
        while free in self._taken:
            count += 1
            free = f"{name}.{count}"
        self._taken.add(free)
        return free


def _number(node: ir.Node, position: int) -> float | None:
    """Returns a constant input, None when there is none, or NaN when it is computed."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        return None
    return math.nan if value.const_value is None else float(value.const_value.numpy().item())
