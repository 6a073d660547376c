# SPDX-License-Identifier: Apache-2.0
"""Activations that frameworks spell out in several operators, and engines have one kernel for.

    Relu(x) = Clip(x, 0) = Max(x, 0)
    HardSigmoid(x) = max(0, min(1, α x + β)) = Clip(α x + β, 0, 1) = Clip(x + 3, 0, 6) / 6
    HardSwish(x) = x · HardSigmoid(x; α = 1/6, β = 1/2)

Source: Howard et al. 2019 (arXiv:1905.02244), section 5.2, for the last.
"""

from __future__ import annotations

from math import isclose

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import made_by, number, private, sizes
from burnish.graph.rewrite import Answer, Rule

_HALF_OR_SINGLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_CLAMPING = ("Conv", "ConvTranspose", "Gemm")  # engines clamp within their kernels
_CLOSE = 1e-6  # constants are stored in single precision


def _relu(node: ir.Node, tape: Tape) -> Answer:
    x = node.inputs[0]
    if x is None or x.dtype not in _HALF_OR_SINGLE:
        return None
    if node.op_type == "Clip":
        least, most = _bounds(node)
        if least != 0.0 or most is None or most < float(np.finfo(x.dtype.numpy()).max):
            return None
    else:
        operand = _with_constant(node)
        if operand is None or operand[1] != 0.0:
            return None
        x = operand[0]
    return tape.op("Relu", [x])


def _hard_sigmoid(node: ir.Node, tape: Tape) -> Answer:
    """case 1: Clip(α x + β, 0, 1).  case 2: Clip(x + 3, 0, 6) / 6, or · 1/6."""
    if node.op_type == "Clip":
        if _bounds(node) != (0.0, 1.0):
            return None
        x, scale, shift = _affine(node.inputs[0])
        if scale == 1.0 and shift == 0.0:
            return None
    else:
        operand, factor = _scaled(node.outputs[0])
        clip = made_by(operand, "Clip")
        if clip is None or operand is node.outputs[0]:
            return None
        least, most = _bounds(clip)
        if least != 0.0 or most is None or not isclose(most * factor, 1.0, rel_tol=_CLOSE):
            return None
        x, scale, shift = _affine(clip.inputs[0])
        scale, shift = scale * factor, shift * factor
        if not private(clip.outputs[0]):
            return f"the output of Clip {clip.name} is used elsewhere too"
    if x is None or x.dtype not in _HALF_OR_SINGLE:
        return None
    return tape.op("HardSigmoid", [x], {"alpha": scale, "beta": shift})


def _hard_swish(node: ir.Node, tape: Tape) -> Answer:
    """case 1: x · HardSigmoid(x).  case 2: (x · Clip(x + 3, 0, 6)) / 6, or · 1/6."""
    product, factor = _scaled(node.outputs[0])
    multiply = made_by(product, "Mul")
    if multiply is None:
        return None
    for x, gate in (multiply.inputs, reversed(multiply.inputs)):
        inside = made_by(gate, "HardSigmoid", "Clip")
        if inside is None or x is None or gate is None:
            continue
        if inside.op_type == "HardSigmoid":
            source = inside.inputs[0]
            scale = inside.attributes.get_float("alpha", 0.2) * factor
            shift = inside.attributes.get_float("beta", 0.5) * factor
            bounded = factor == 1.0
        else:
            source, scale, shift = _affine(inside.inputs[0])
            scale, shift = scale * factor, shift * factor
            least, most = _bounds(inside)
            bounded = (
                least == 0.0 and most is not None and isclose(most * factor, 1.0, rel_tol=_CLOSE)
            )
        if source is not x or not bounded:
            continue
        if not (isclose(scale, 1 / 6, rel_tol=_CLOSE) and isclose(shift, 0.5, rel_tol=_CLOSE)):
            return f"its slope and offset are {scale:g} and {shift:g}, not 1/6 and 1/2"
        if not private(gate) or not (product is node.outputs[0] or private(product)):
            return "a part of it is used elsewhere too"
        if x.dtype not in _HALF_OR_SINGLE:
            return f"engines have it for float and float16, not {x.dtype}"
        return tape.op("HardSwish", [x])
    return None


def _before_concat(node: ir.Node, tape: Tape) -> Answer:
    """Clamps what is joined rather than the joined: each layer before it takes its clamp in."""
    joined = made_by(node.inputs[0], "Concat")
    if joined is None or node.inputs[0] is None or not private(node.inputs[0]):
        return None
    if not all(made_by(part, *_CLAMPING) and private(part) for part in joined.inputs if part):
        return None
    limits = list(node.inputs[1:])
    parts = [tape.op(node.op_type, [part, *limits]) for part in joined.inputs]
    return tape.op("Concat", parts, dict(joined.attributes))


def _bounds(clip: ir.Node) -> tuple[float | None, float | None]:
    """Returns the least and the most that a Clip lets through; None where it is computed."""
    ends: list[float | None] = []
    for position, without in ((1, -np.inf), (2, np.inf)):
        value = clip.inputs[position] if len(clip.inputs) > position else None
        ends.append(without if value is None else number(value))
    return ends[0], ends[1]


def _affine(value: ir.Value | None) -> tuple[ir.Value | None, float, float]:
    """Returns x, a and b such that the value is a x + b, where nothing else reads a part."""
    shift = 0.0
    added = made_by(value, "Add")
    if added is not None and value is not None and private(value):
        value, shift = _with_constant(added) or (value, 0.0)
    if value is None or not private(value):
        return value, 1.0, shift
    return (*_scaled(value), shift)


def _scaled(value: ir.Value) -> tuple[ir.Value, float]:
    """Returns x and a such that the value is a x, by a Mul or Div with one number."""
    node = made_by(value, "Mul", "Div")
    operand = _with_constant(node) if node is not None else None
    if node is None or operand is None or (node.op_type == "Div" and operand[1] == 0.0):
        return value, 1.0
    x, factor = operand
    return x, (1.0 / factor if node.op_type == "Div" else factor)


def _with_constant(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Returns the computed operand and the one number it meets, where the shape stays."""
    if len(node.inputs) != 2:
        return None
    pairs = [(node.inputs[0], node.inputs[1])]
    if node.op_type != "Div":
        pairs.append((node.inputs[1], node.inputs[0]))
    for x, other in pairs:
        value = number(other)
        if value is None or x is None or number(x) is not None:
            continue
        shape, constant = sizes(x), sizes(other)
        if shape is not None and constant is not None and len(constant) <= len(shape):
            return x, value
    return None


ACTIVATION = (
    Rule("to Relu", frozenset({"Clip", "Max"}), _relu),
    Rule("before Concat", frozenset({"Relu", "Clip"}), _before_concat),
    Rule("to HardSwish", frozenset({"Mul", "Div"}), _hard_swish),
    Rule("to HardSigmoid", frozenset({"Clip", "Mul", "Div"}), _hard_sigmoid),
)
