# SPDX-License-Identifier: Apache-2.0
"""Local response normalization, which PyTorch's exporter spells out in eight operators.

    y = x / (k + α · mean over a window of n channels of x²) ^ β

The mean is taken by pooling over channels: x² becomes (n, 1, channels, …), is padded with
zeros and average-pooled with a kernel of (n, 1, 1). Two rules write it as

1. "sums": x² shifted by 0 … n − 1 channels and added, and roots for the common powers.
   Faster than what the exporter gives on every engine here, by 2.5 times or more.
2. "operator": ONNX's LRN, of the same α and n, for odd n. The fastest form on OpenVINO,
   and slower than the exporter's on ONNX Runtime, whose kernel takes a power of each number.

Source: Krizhevsky et al. 2012, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from burnish.graph.constants import integers, made_by, number, private, sizes
from burnish.graph.rewrite import Answer, Rule

Form = Literal["sums", "operator"]
_VIEWS = ("Reshape", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class _LocalResponse:
    x: ir.Value
    channels: int
    before: int
    after: int
    alpha: float
    beta: float
    bias: float

    @property
    def size(self) -> int:
        return self.before + 1 + self.after


def _operator(node: ir.Node, tape: Tape) -> Answer:
    found = _match(node)
    if not isinstance(found, _LocalResponse):
        return found
    size, half = found.size, (found.size - 1) // 2
    if size % 2 == 0:
        return f"ONNX Runtime has no LRN with an even window of {size} channels"
    if found.before != half:
        return (
            f"its window has {found.before} channels before and {found.after} after, "
            f"where LRN has {half} and {half}"
        )
    attributes = {"alpha": found.alpha, "beta": found.beta, "bias": found.bias, "size": size}
    return tape.op("LRN", [found.x], attributes)


def _sums(node: ir.Node, tape: Tape) -> Answer:
    found = _match(node)
    if not isinstance(found, _LocalResponse):
        return found

    def constant(name: str, value: object, dtype: type = np.int64) -> ir.Value:
        full = f"{node.name}.{name}"
        return tape.initializer(ir.tensor(np.array(value, dtype), name=full), full)

    square = tape.op("Mul", [found.x, found.x])
    axes = constant("axes", [1])
    # The constant goes on the square, so that the sum is α times the mean.
    weighted = tape.op("Mul", [square, constant("alpha", found.alpha / found.size, np.float32)])
    # With pads for all axes, since types are not inferred through a Pad of some.
    rank = len(sizes(found.x) or ())
    pads = [0, found.before, *[0] * (rank - 2), 0, found.after, *[0] * (rank - 2)]
    padded = tape.op("Pad", [weighted, constant("pads", pads)])
    shifted = [
        tape.op(
            "Slice",
            [padded, constant(f"start{k}", [k]), constant(f"end{k}", [k + found.channels]), axes],
        )
        for k in range(found.size)
    ]
    total = tape.op("Sum", [*shifted, constant("bias", found.bias, np.float32)])
    return tape.op("Div", [found.x, _power(tape, total, found.beta, constant)])


def _power(
    tape: Tape, value: ir.Value, beta: float, constant: Callable[[str, object, type], ir.Value]
) -> ir.Value:
    """Returns value ^ beta, by roots where that is possible: they cost a tenth of a power."""
    if beta == 1.0:
        return value
    if beta not in (0.5, 0.75):
        return tape.op("Pow", [value, constant("beta", beta, np.float32)])
    root = tape.op("Sqrt", [value])
    return root if beta == 0.5 else tape.op("Mul", [root, tape.op("Sqrt", [root])])


def _match(node: ir.Node) -> _LocalResponse | str | None:
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
    channels = (sizes(x) or [None, None])[1]
    assert channels is not None  # _window has seen it
    return _LocalResponse(x, channels, *window, alpha, beta, bias)


def _window(pool: ir.Node, pad: ir.Node, view: ir.Value, x: ir.Value) -> tuple[int, int] | str:
    """Returns how many channels before and after its own the pool averages, or why it does not."""
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
        or pool.attributes.get_int("ceil_mode", 0) != 0
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
    before, after = amounts[2], amounts[len(shape) + 2]
    others = amounts[:2] + amounts[3 : len(shape) + 2] + amounts[len(shape) + 3 :]
    if any(others) or min(before, after) < 0 or before + 1 + after != kernel[0]:
        return f"it pads by {amounts}, which does not suit its window of {kernel[0]} channels"
    return before, after


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


NORMALIZATION: dict[Form, tuple[Rule, ...]] = {
    "sums": (Rule("local response normalization to sums", frozenset({"Div"}), _sums),),
    "operator": (Rule("local response normalization to LRN", frozenset({"Div"}), _operator),),
}
