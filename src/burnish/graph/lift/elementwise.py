# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparison, logic and rounding, element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from burnish.graph.lift.dtypes import FLOATS, torch_dtype
from burnish.graph.lift.registry import Run, Site, chosen, direct, floats, operator

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # PyTorch has little arithmetic for them


_E4M3_ROUNDS_AWAY = 464.0  # half way from 448, the largest, to what would come next


def widened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function for unsigned integers too: computed in int64, which holds their bits."""

    def run(*tensors: Any) -> Any:
        unsigned = [getattr(one, "dtype", None) in _UNSIGNED for one in tensors]
        if not any(unsigned):
            return function(*tensors)
        wide = (t.to(torch.int64) if u else t for t, u in zip(tensors, unsigned, strict=True))
        made = function(*wide)
        return made.to(tensors[0].dtype) if made.dtype == torch.int64 else made

    run.plain = function  # type: ignore[attr-defined]
    return run


def _divide(a: Any, b: Any) -> Any:
    return a / b if floats(a) or floats(b) else torch.div(a, b, rounding_mode="trunc")


direct(
    __name__,
    Add=widened(torch.add),
    Sub=widened(torch.sub),
    Mul=widened(torch.mul),
    Div=widened(_divide),
    Neg=torch.neg,
    Abs=widened(torch.abs),
    Reciprocal=torch.reciprocal,
    Sqrt=torch.sqrt,
    Exp=torch.exp,
    Log=torch.log,
    Floor=torch.floor,
    Ceil=torch.ceil,
    Round=torch.round,  # both round halves to even
    Erf=torch.erf,
    Sin=torch.sin,
    Cos=torch.cos,
    Tan=torch.tan,
    Asin=torch.asin,
    Acos=torch.acos,
    Atan=torch.atan,
    Sinh=torch.sinh,
    Cosh=torch.cosh,
    Tanh=torch.tanh,
    Asinh=torch.asinh,
    Acosh=torch.acosh,
    Atanh=torch.atanh,
    Equal=widened(torch.eq),
    Less=widened(torch.lt),
    LessOrEqual=widened(torch.le),
    Greater=widened(torch.gt),
    GreaterOrEqual=widened(torch.ge),
    And=torch.logical_and,
    Or=torch.logical_or,
    Xor=torch.logical_xor,
    Not=torch.logical_not,
    BitwiseAnd=widened(torch.bitwise_and),
    BitwiseOr=widened(torch.bitwise_or),
    BitwiseXor=widened(torch.bitwise_xor),
    BitwiseNot=widened(torch.bitwise_not),
    IsNaN=torch.isnan,
    Det=torch.linalg.det,
)


@operator("Sign")
def sign(site: Site) -> Run:
    """Sign: −1, 0 or 1; of what is not a number, itself."""

    def run(x: Any) -> Any:
        return torch.where(torch.isnan(x), x, torch.sign(x)) if floats(x) else torch.sign(x)

    return chosen(site, widened(run))


@operator("Identity")
def identity(site: Site) -> Run:
    """Identity, of tensors."""
    return lambda x: x


@operator("Sum")
def total(site: Site) -> Run:
    """Sum of any number of tensors."""
    return lambda *tensors: functools.reduce(torch.add, tensors)


@operator("Mean")
def mean(site: Site) -> Run:
    """Mean of any number of tensors."""
    return lambda *tensors: functools.reduce(torch.add, tensors) / len(tensors)


@operator("Max")
def largest(site: Site) -> Run:
    """Largest of any number of tensors."""
    return chosen(site, widened(lambda *tensors: functools.reduce(torch.maximum, tensors)))


@operator("Min")
def smallest(site: Site) -> Run:
    """Smallest of any number of tensors."""
    return chosen(site, widened(lambda *tensors: functools.reduce(torch.minimum, tensors)))


@operator("Pow")
def power(site: Site) -> Run:
    """Pow, in the type of the base.

    A constant exponent is a Python number: cheaper, and its gradient has no logarithm.
    """
    exponent = site.number(1)
    constant = site.constant(1)
    if exponent is not None and constant is not None and constant.ndim == 0:
        return lambda x, _: torch.pow(x, exponent).to(x.dtype)

    def run(x: Any, y: Any) -> Any:
        wide = x.to(torch.float64) if not floats(x) and floats(y) else x
        y = y.to(torch.int64) if y.dtype in _UNSIGNED else y
        return torch.pow(wide, y).to(x.dtype)

    return run


@operator("Mod")
def modulo(site: Site) -> Run:
    """Mod: the remainder has the divisor's sign, or with `fmod` the dividend's."""
    return chosen(site, widened(torch.fmod if site.flag("fmod") else torch.remainder))


@operator("Clip")
def clip(site: Site) -> Run:
    """Clip to limits that are attributes (before opset 11) or inputs, either of which may lack."""
    if site.version < 11:
        low, high = site.real("min", -3.4028234e38), site.real("max", 3.4028234e38)
        return lambda x: torch.clamp(x, low, high)
    lowest, highest = site.number(1), site.number(2)
    known = (lowest is not None or not site.has(1)) and (highest is not None or not site.has(2))
    if known and (lowest is not None or highest is not None) and site.dtype(0) in FLOATS:
        return lambda x, *_: torch.clamp(x, lowest, highest)

    def run(x: Any, low: Any = None, high: Any = None) -> Any:
        # Not clamp(low, high): where low > high, ONNX lets the upper limit win, as here.
        x = x if low is None else torch.maximum(x, low.to(x.dtype))
        return x if high is None else torch.minimum(x, high.to(x.dtype))

    return chosen(site, widened(run))


@operator("Where")
def where(site: Site) -> Run:
    """Where: the first tensor's elements where the condition holds, else the second's."""
    return lambda condition, a, b: torch.where(condition, a, b)


@operator("Cast")
def cast(site: Site) -> Run:
    """Cast; 8-bit floats clip to their range unless `saturate` is 0."""
    return _converter(torch_dtype(site.integer("to", 1)), site.flag("saturate", 1))


@operator("CastLike")
def cast_like(site: Site) -> Run:
    """CastLike: Cast to the type of the second input."""
    saturate = site.flag("saturate", 1)
    return lambda x, like: _convert(x, like.dtype, saturate)


def _converter(dtype: Any, saturate: bool) -> Run:
    return lambda x: _convert(x, dtype, saturate)


def _convert(x: Any, dtype: Any, saturate: bool) -> Any:
    if x.dtype == dtype:
        return x
    if not (dtype.is_floating_point and dtype.itemsize == 1 and floats(x)):
        return x.to(dtype)
    wide, limit = x.to(torch.float32), torch.finfo(dtype).max
    if saturate:
        return wide.clamp(-limit, limit).to(dtype)
    if dtype == torch.float8_e4m3fn:  # PyTorch saturates; what rounds above 448 has no place
        wide = torch.where(wide.abs() > _E4M3_ROUNDS_AWAY, torch.nan, wide)
    return wide.to(dtype)


@operator("BitCast")
def bit_cast(site: Site) -> Run:
    """BitCast: the same bits as another type of the same width."""
    dtype = torch_dtype(site.integer("to", 1))
    return lambda x: x.view(dtype)


@operator("IsInf")
def is_infinite(site: Site) -> Run:
    """IsInf, of either sign or both."""
    negative, positive = site.flag("detect_negative", 1), site.flag("detect_positive", 1)
    if negative and positive:
        return lambda x: torch.isinf(x.float() if x.dtype.itemsize == 1 else x)
    if not negative and not positive:
        return lambda x: torch.zeros_like(x, dtype=torch.bool)
    function: Run = torch.isposinf if positive else torch.isneginf
    return function


@operator("BitShift")
def shift(site: Site) -> Run:
    """BitShift of unsigned integers."""
    if site.text("direction", "") == "LEFT":
        return widened(torch.bitwise_left_shift)
    return widened(torch.bitwise_right_shift)
