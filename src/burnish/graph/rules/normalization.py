# SPDX-License-Identifier: Apache-2.0
"""Local response normalization, which PyTorch's exporter spells out in eight operators.

    y = x / (k + α · mean over a window of n channels of x²) ^ β

The mean is taken by pooling over channels: x² becomes (n, 1, channels, …), is padded with
zeros and average-pooled with a kernel of (n, 1, 1). ONNX's LRN has the same α and n, and
a window of ⌊(n − 1) / 2⌋ channels before and ⌈(n − 1) / 2⌉ after.

Source: Krizhevsky et al. 2012, section 3.3.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import integers, made_by, number, private, sizes
from burnish.graph.rewrite import Answer, Rule

_VIEWS = ("Reshape", "Unsqueeze", "Squeeze")


def _local_response(node: ir.Node, tape: Tape) -> Answer:
    x = node.inputs[0]
    power = made_by(node.inputs[1], "Pow")
    total = made_by(power.inputs[0], "Add") if power is not None else None
    if x is None or power is None or total is None:
        return None
    beta = number(power.inputs[1])
    scaled, bias = _constant_operand(total)
    product = made_by(scaled, "Mul")
    if beta is None or bias is None or product is None:
        return None
    mean, alpha = _constant_operand(product)
    inside = [power.outputs[0], total.outputs[0], product.outputs[0]]
    mean = _through(mean, _VIEWS, inside)
    pool = made_by(mean, "AveragePool")
    pad = made_by(pool.inputs[0], "Pad") if pool is not None else None
    if alpha is None or pool is None or pad is None:
        return None
    inside += [pool.outputs[0], pad.outputs[0]]
    view = pad.inputs[0]
    square = made_by(_through(view, _VIEWS, inside), "Mul", "Pow")
    if view is None or square is None or not _squares(square, x):
        return None
    inside.append(square.outputs[0])
    if x.dtype != ir.DataType.FLOAT:
        return f"engines have it for float, not {x.dtype}"
    if not all(private(value) for value in inside):
        return "a part of it is used elsewhere too"
    window = _window(pool, pad, view, x)
    if isinstance(window, str):
        return window
    if sizes(node.outputs[0]) != sizes(x):
        return "its result does not have the shape of its input"
    attributes = {"alpha": alpha, "beta": beta, "bias": bias, "size": window}
    return tape.op("LRN", [x], attributes)


def _window(pool: ir.Node, pad: ir.Node, view: ir.Value, x: ir.Value) -> int | str:
    """Returns over how many channels the pool averages, or why it is no such window."""
    shape, original = sizes(view), sizes(x)
    kernel = list(pool.attributes.get_ints("kernel_shape") or ())
    if shape is None or original is None or len(shape) < 4 or len(kernel) != len(shape) - 2:
        return "its shapes are not known"
    channels = original[1]
    if channels is None or shape[1:3] != [1, channels]:
        return "it does not pool over the channels"
    added = made_by(view, "Unsqueeze")
    simple = added is not None and added.inputs[0] is not None and len(shape) == len(original) + 1
    if not simple and (
        None in original[2:] or None in shape[3:] or _count(original[2:]) != _count(shape[3:])
    ):
        return "the size of its picture is not fixed, or not kept"
    if (
        any(size != 1 for size in kernel[1:])
        or any(step != 1 for step in pool.attributes.get_ints("strides") or ())
        or any(pool.attributes.get_ints("pads") or ())
        or any(step != 1 for step in pool.attributes.get_ints("dilations") or ())
        or pool.attributes.get_int("ceil_mode", 0)
        or pool.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        return "it pools over more than channels"
    amounts = integers(pad.inputs[1])
    zero = len(pad.inputs) < 3 or pad.inputs[2] is None or number(pad.inputs[2]) == 0.0
    if (
        amounts is None
        or not zero
        or pad.attributes.get_string("mode", "constant") != "constant"
        or (len(pad.inputs) > 3 and pad.inputs[3] is not None)
        or len(amounts) != 2 * len(shape)
    ):
        return "it does not pad with a fixed number of zeros"
    size = kernel[0]
    before, after = (size - 1) // 2, size // 2
    expected = [0] * (2 * len(shape))
    expected[2], expected[len(shape) + 2] = before, after
    if amounts != expected:
        return (
            f"its window has {amounts[2]} channels before and {amounts[len(shape) + 2]} after, "
            f"where LRN of size {size} has {before} and {after}"
        )
    return size


def _count(shape: list[int | None]) -> int:
    count = 1
    for size in shape:
        count *= size or 0
    return count


def _through(
    value: ir.Value | None, operators: tuple[str, ...], inside: list[ir.Value]
) -> ir.Value | None:
    """Returns what a chain of views starts from, and adds the views to `inside`."""
    while (node := made_by(value, *operators)) is not None and value is not None:
        inside.append(value)
        value = node.inputs[0]
    return value


def _constant_operand(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    one, other = node.inputs[0], node.inputs[1]
    return (other, number(one)) if number(one) is not None else (one, number(other))


def _squares(node: ir.Node, x: ir.Value) -> bool:
    if node.op_type == "Mul":
        return node.inputs[0] is x and node.inputs[1] is x
    return node.inputs[0] is x and number(node.inputs[1]) == 2.0


NORMALIZATION = (Rule("to LRN", frozenset({"Div"}), _local_response),)
