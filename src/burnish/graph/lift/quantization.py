# SPDX-License-Identifier: Apache-2.0
"""Quantization: rounding that lets gradients through, and arithmetic on integers.

A QuantizeLinear that only DequantizeLinear reads gives its integers as floating-point
numbers, so that gradients pass; one that anything else reads gives integers, and none.
With v = x / s clipped to [lo − z, hi − z] and rounding whose gradient is taken as 1,

    y = s · round(v),   ∂y/∂x = 1 inside and 0 outside,
    ∂y/∂s = round(v) − x/s inside, and the limit outside.

Source: Bengio et al. 2013 (the straight-through estimator); Esser et al. 2020 (Learned
Step Size Quantization), equations 3 and 5; without their scaling of the step's gradient.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from burnish.graph.lift.convolution import convolution
from burnish.graph.lift.dtypes import torch_dtype
from burnish.graph.lift.registry import Run, Site, operator

_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool")


def limits(dtype: ir.DataType) -> tuple[int, int]:
    """Returns the least and the largest integer of a type that QuantizeLinear gives."""
    bits = dtype.bitwidth
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.is_signed() else (0, 2**bits - 1)


def rounded(x: Any) -> Any:
    """Returns x rounded, halves to even, with the gradient of x."""
    return x + (torch.round(x) - x).detach()


def _along(vector: Any, x: Any, axis: int, block: int) -> Any:
    """Returns a scale or zero point shaped to meet x: one for all, per slice, or per block."""
    if block:
        return vector.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if vector.numel() == 1:
        return vector.reshape(())
    if vector.dim() != 1:
        return vector
    return vector.reshape([-1 if one == axis % x.dim() else 1 for one in range(x.dim())])


def _is_trainable(site: Site) -> bool:
    """Returns whether only DequantizeLinear reads the output, perhaps moved first."""

    def only(value: ir.Value) -> bool:
        uses = value.uses()
        if value.is_graph_output() or not uses:
            return False
        return all(
            (use.idx == 0 and use.node.op_type == "DequantizeLinear")
            or (use.idx == 0 and use.node.op_type in _MOVES and only(use.node.outputs[0]))
            for use in uses
        )

    return only(site.node.outputs[0])


@operator("QuantizeLinear")
def quantize(site: Site) -> Run:
    """QuantizeLinear: saturated integers, per tensor, per axis or per block."""
    axis, block = site.integer("axis", 1), site.integer("block_size", 0)
    zero = site.node.inputs[2] if site.has(2) else None
    named = site.integer("output_dtype", 0)
    known: ir.DataType | None = ir.DataType(named) if named else ir.DataType.UINT8
    if zero is not None:
        known = zero.dtype
    if known is not None and known.is_floating_point():
        return _quantize_to_floats(torch_dtype(known), axis, block)
    passes = _is_trainable(site)
    fixed = None if known is None else (*limits(known), torch_dtype(known))

    def run(x: Any, scale: Any, zero_point: Any = None) -> Any:
        if fixed is None:  # the graph does not say the type; the zero point does
            held = zero_point.dtype
            low, high = torch.iinfo(held).min, torch.iinfo(held).max
        else:
            low, high, held = fixed
        scale = _along(scale, x, axis, block)
        # Under autocast x may be bfloat16, whose 8 bits are too few to round in.
        v = x.to(torch.promote_types(x.dtype, torch.float32)) / scale
        if zero_point is None:
            v = v.clamp(low, high)
            z: Any = 0
        else:
            z = _along(zero_point, x, axis, block).to(v.dtype)
            v = torch.minimum(torch.maximum(v, low - z), high - z)
        return rounded(v) + z if passes else (torch.round(v) + z).to(held)

    return run


def _quantize_to_floats(held: Any, axis: int, block: int) -> Run:
    """Returns the closure that saturates to a floating-point type of 8 bits."""
    largest = torch.finfo(held).max

    def run(x: Any, scale: Any, zero_point: Any = None) -> Any:
        return (x / _along(scale, x, axis, block)).clamp(-largest, largest).to(held)

    return run


@operator("DequantizeLinear")
def dequantize(site: Site) -> Run:
    """DequantizeLinear: (x − zero point) · scale, per tensor, per axis or per block."""
    axis, block = site.integer("axis", 1), site.integer("block_size", 0)
    named = site.integer("output_dtype", 0)
    made = torch_dtype(named) if named else None

    def run(x: Any, scale: Any, zero_point: Any = None) -> Any:
        scale = _along(scale, x, axis, block)
        wide = torch.promote_types(scale.dtype, torch.float32)
        y = x.to(wide)
        if zero_point is not None:
            y = y - _along(zero_point, x, axis, block).to(wide)
        return (y * scale).to(made or scale.dtype)

    return run


@operator("DynamicQuantizeLinear")
def dynamic(site: Site) -> Run:
    """DynamicQuantizeLinear: to uint8 over the range of x, which is made to hold 0."""

    def run(x: Any) -> Any:
        low, high = x.amin().clamp(max=0.0), x.amax().clamp(min=0.0)
        scale = (high - low) / 255.0
        zero = torch.round((-low / scale).clamp(0, 255))
        y = (torch.round(x / scale) + zero).clamp(0, 255)
        return y.to(torch.uint8), scale, zero.to(torch.uint8)

    return run


def _shift(x: Any, zero_point: Any, axis: int) -> Any:
    """Returns integers less their zero point in float64, which holds their sums exactly."""
    x = x.to(torch.float64)
    if zero_point is None:
        return x
    zero = zero_point.to(torch.float64)
    if zero.numel() == 1:
        return x - zero.reshape(())
    return x - (zero if zero.dim() != 1 else _along(zero, x, axis, 0))


@operator("MatMulInteger")
def integer_product(site: Site) -> Run:
    """MatMulInteger: the exact product of integers, as int32."""

    def run(a: Any, b: Any, za: Any = None, zb: Any = None) -> Any:
        return torch.matmul(_shift(a, za, a.dim() - 2), _shift(b, zb, -1)).to(torch.int32)

    return run


@operator("ConvInteger")
def integer_convolution(site: Site) -> Run:
    """ConvInteger: the exact convolution of integers, as int32."""
    conv = convolution(site)
    return lambda x, w, zx=None, zw=None: conv(_shift(x, zx, 1), _shift(w, zw, 0)).to(torch.int32)


def _requantize(y: Any, scale: Any, zero_point: Any) -> Any:
    info = torch.iinfo(zero_point.dtype)
    v = torch.round(y / scale.to(y.dtype)) + zero_point.to(y.dtype)
    return v.clamp(info.min, info.max).to(zero_point.dtype)


@operator("QLinearMatMul")
def quantized_product(site: Site) -> Run:
    """QLinearMatMul: the product of quantized matrices, quantized."""

    def run(a: Any, sa: Any, za: Any, b: Any, sb: Any, zb: Any, sy: Any, zy: Any) -> Any:
        y = torch.matmul(_shift(a, za, a.dim() - 2), _shift(b, zb, -1))
        rows = sa.to(y.dtype)
        rows = rows.reshape(-1, 1) if rows.dim() == 1 and rows.numel() > 1 else rows
        return _requantize(y * rows * sb.to(y.dtype), sy, zy)

    return run


@operator("QLinearConv")
def quantized_convolution(site: Site) -> Run:
    """QLinearConv: the convolution of quantized tensors, quantized."""
    conv = convolution(site)

    def run(
        x: Any, sx: Any, zx: Any, w: Any, sw: Any, zw: Any, sy: Any, zy: Any, bias: Any = None
    ) -> Any:
        held = None if bias is None else bias.to(torch.float64)
        y = conv(_shift(x, zx, 1), _shift(w, zw, 0), held)
        scale = _along(sx.to(y.dtype) * sw.to(y.dtype), y, 1, 0)
        return _requantize(y * scale, sy, zy)

    return run
