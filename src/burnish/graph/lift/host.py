# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on shapes, in Python integers.

Graphs compute sizes with tensors: Shape → Gather → Mul → Concat → Reshape. What stems
from Shape and constants alone is computed here on an `int`, a `bool` or a flat list of
them, so that it costs no kernel, never waits for a device, and `torch.compile` sees
ordinary sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from burnish.graph.lift.registry import Site

LIMIT = 64  # elements of a constant that may still be a shape


def _gather(site: Site) -> Callable[..., Any]:
    def run(values: Any, index: Any) -> Any:
        return [values[one] for one in index] if isinstance(index, list) else values[index]

    return run


def _concat(site: Site) -> Callable[..., Any]:
    return lambda *parts: [one for part in parts for one in part]


def _slice(site: Site) -> Callable[..., Any]:
    def run(values: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
        step = steps[0] if steps else 1
        start, end = starts[0], ends[0]
        if step < 0:  # a start before the beginning is moved to it
            start = max(start, -len(values))
            end = None if end < -len(values) else end
        return values[start:end:step]

    return run


def _squeeze(site: Site) -> Callable[..., Any]:
    return lambda values, axes=None: values[0] if isinstance(values, list) else values


def _reshape(site: Site) -> Callable[..., Any]:
    def run(values: Any, sizes: Any) -> Any:
        flat = values if isinstance(values, list) else [values]
        return flat if sizes else flat[0]

    return run


def _unsqueeze(site: Site) -> Callable[..., Any]:
    return lambda values, axes=None: [values]


def _pairwise(function: Callable[[Any, Any], Any]) -> Callable[[Site], Callable[..., Any]]:
    def two(a: Any, b: Any) -> Any:
        if not isinstance(a, list) and not isinstance(b, list):
            return function(a, b)
        left = a if isinstance(a, list) else [a]
        right = b if isinstance(b, list) else [b]
        length = max(len(left), len(right)) if left and right else 0
        left = left * length if len(left) == 1 else left
        right = right * length if len(right) == 1 else right
        return [function(x, y) for x, y in zip(left, right, strict=True)]

    def prepare(site: Site) -> Callable[..., Any]:
        def run(first: Any, *rest: Any) -> Any:
            for one in rest:
                first = two(first, one)
            return first

        return run

    return prepare


def _quotient(a: Any, b: Any) -> Any:
    """ONNX divides integers towards zero, Python downwards."""
    if a < 0:
        return -_quotient(-a, b)
    return -_quotient(a, -b) if b < 0 else a // b


def _where(site: Site) -> Callable[..., Any]:
    def run(condition: Any, a: Any, b: Any) -> Any:
        parts = [one if isinstance(one, list) else [one] for one in (condition, a, b)]
        if not any(isinstance(one, list) for one in (condition, a, b)):
            return a if condition else b
        length = max(map(len, parts))
        full = [one * length if len(one) == 1 else one for one in parts]
        return [x if c else y for c, x, y in zip(*full, strict=True)]

    return run


def _prod(site: Site) -> Callable[..., Any]:
    keep = site.flag("keepdims", 1)

    def run(values: Any, axes: Any = None) -> Any:
        found = math.prod(values) if isinstance(values, list) else values
        return [found] if keep and isinstance(values, list) else found

    return run


def _cast(site: Site) -> Callable[..., Any]:
    convert = {ir.DataType.INT64: int, ir.DataType.BOOL: bool}[ir.DataType(site.integer("to", 0))]

    def one(value: Any) -> Any:
        # A symbolic size stays one: int() would fix it.
        return convert(value) if convert is bool or isinstance(value, bool) else value

    return lambda values: [one(v) for v in values] if isinstance(values, list) else one(values)


_HOST: dict[str, Callable[[Site], Callable[..., Any]]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Identity": lambda site: lambda x: x,
    "Add": _pairwise(lambda a, b: a + b),
    "Sub": _pairwise(lambda a, b: a - b),
    "Mul": _pairwise(lambda a, b: a * b),
    "Div": _pairwise(_quotient),
    "Mod": _pairwise(lambda a, b: a % b),
    "Min": _pairwise(min),
    "Max": _pairwise(max),
    "Equal": _pairwise(lambda a, b: a == b),
    "Less": _pairwise(lambda a, b: a < b),
    "Greater": _pairwise(lambda a, b: a > b),
    "And": _pairwise(lambda a, b: a and b),
    "Or": _pairwise(lambda a, b: a or b),
    "Where": _where,
    "ReduceProd": _prod,
    "Cast": _cast,
}


def find(site: Site, ranks: list[int | None]) -> Callable[..., Any] | None:
    """Returns how to compute a node on the host, None when that is not for it.

    `ranks` are those of the inputs, all of which are on the host: 0 or 1, None if absent.
    """
    name, node = site.node.op_type, site.node
    if name not in _HOST or node.domain not in ("", "ai.onnx"):
        return None
    first = ranks[0]
    if name == "Cast":
        to = ir.DataType(site.integer("to", 0))
        return _cast(site) if to in (ir.DataType.INT64, ir.DataType.BOOL) else None
    if name in ("Gather", "Slice", "Concat") and first != 1:
        return None
    if name == "Mod" and site.flag("fmod"):
        return None
    if name == "Unsqueeze":
        axes = site.constant(1) if site.has(1) else site.integers("axes")
        if first != 0 or axes is None or len(axes) != 1:
            return None
    if name == "ReduceProd" and first == 1 and site.flag("noop_with_empty_axes"):
        return None
    if name == "Reshape":
        target = site.constant(1)
        if target is None or target.size > 1:
            return None
    if name == "Squeeze" and first == 1:
        value = node.inputs[0]
        known = value.shape if value is not None else None
        if not site.has(1) and (known is None or known[0] != 1):
            return None
    return _HOST[name](site)


def rank(site: Site, ranks: list[int | None]) -> int:
    """Returns the rank of what `find`'s function gives: 0 or 1."""
    name = site.node.op_type
    given = [one for one in ranks if one is not None]
    if name == "Gather":
        return given[1]
    if name in ("Concat", "Slice", "Unsqueeze"):
        return 1
    if name == "Squeeze":
        return 0
    if name == "Reshape":
        target = site.constant(1)
        return 1 if target is not None and target.size else 0
    if name == "ReduceProd":
        return given[0] if site.flag("keepdims", 1) else 0
    if name == "Cast":
        return given[0]
    return max(given)


def integer(site: Site) -> int | None:
    """Returns what a CastLike of a constant to int64 gives: so exporters write Range's limits."""
    node = site.node
    if node.op_type != "CastLike" or node.outputs[0].dtype != ir.DataType.INT64:
        return None
    array = site.constant(0)
    return int(array) if array is not None and array.ndim == 0 else None
