# SPDX-License-Identifier: Apache-2.0
"""Which function gives the PyTorch form of an ONNX operator.

An operator is one function from a `Site` (the node, read once) to the closure that runs
it. The closure takes the node's inputs in order, None for one that is left out, and
returns a tensor, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from burnish.graph.lift.dtypes import FLOATS, torch_dtype

Run = Callable[..., Any]


@dataclass(frozen=True)
class Operator:
    """How to lift one operator.

    `ints`: the inputs that arrive as Python integers (an int or a list), never as a
    tensor. `hosted`: the inputs that arrive so when they stem from shapes and constants
    (`host`), and as tensors otherwise. `framed`: the closure takes the call's `Frame`
    before the inputs.
    """

    name: str
    family: str
    prepare: Callable[[Site], Run]
    ints: frozenset[int]
    framed: bool
    hosted: frozenset[int] = frozenset()


@dataclass
class Frame:
    """What one call of the module fixes: mode, BatchNorm's momentum, and the device."""

    training: bool
    momentum: float
    device: Any


class Site:
    """A node as its operator's function sees it: attributes, version, which inputs are there."""

    def __init__(
        self, node: ir.Node, version: int, build: Callable[..., Any], baked: set[str]
    ) -> None:
        self.node = node
        self.version = version
        self.build = build  # makes the program of a body, with the values that it captures
        self.baked = baked  # the constants that closures hold as numbers

    def has(self, position: int) -> bool:
        """Returns whether the input is given."""
        return position < len(self.node.inputs) and self.node.inputs[position] is not None

    def wants(self, position: int) -> bool:
        """Returns whether the node has this output."""
        return position < len(self.node.outputs) and bool(self.node.outputs[position].name)

    def constant(self, position: int) -> NDArray[Any] | None:
        """Returns the array of an input that is constant, None otherwise."""
        if not self.is_constant(position):
            return None
        value = self.node.inputs[position]
        assert value is not None
        assert value.const_value is not None
        self.baked.add(str(value.name))
        return np.asarray(value.const_value.numpy())

    def is_constant(self, position: int) -> bool:
        """Returns whether the module holds an input (a Constant's output has its value too)."""
        value = self.node.inputs[position] if self.has(position) else None
        return value is not None and value.const_value is not None and not value.is_graph_input()

    def number(self, position: int) -> float | None:
        """Returns the number of an input that is a constant of one element, None otherwise."""
        array = self.constant(position)
        if array is None or array.size != 1 or array.dtype.kind not in "fiub":
            return None
        found: float = array.reshape(()).item()
        return found

    def dtype(self, position: int) -> Any:
        """Returns the torch type of an input, None where the graph does not say."""
        if not self.has(position):
            return None
        value = self.node.inputs[position]
        if value is None or value.dtype is None:
            return None
        return torch_dtype(value.dtype)

    def integer(self, name: str, default: int) -> int:
        """Returns an attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else int(found.as_int())

    def flag(self, name: str, default: int = 0) -> bool:
        """Returns an attribute that is 0 or 1."""
        return bool(self.integer(name, default))

    def real(self, name: str, default: float) -> float:
        """Returns an attribute, rounded as ONNX holds it: to 32 bits."""
        found = self.node.attributes.get(name)
        return float(np.float32(default if found is None else found.as_float()))

    def text(self, name: str, default: str) -> str:
        """Returns an attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else str(found.as_string())

    def integers(self, name: str) -> list[int] | None:
        """Returns an attribute, None when absent."""
        found = self.node.attributes.get(name)
        return None if found is None else [int(one) for one in found.as_ints()]

    def reals(self, name: str) -> list[float] | None:
        """Returns an attribute, None when absent."""
        found = self.node.attributes.get(name)
        return None if found is None else [float(one) for one in found.as_floats()]

    def tensor(self, name: str) -> ir.TensorProtocol | None:
        """Returns an attribute, None when absent."""
        found = self.node.attributes.get(name)
        return None if found is None else found.as_tensor()

    def consumers(self, position: int = 0) -> list[tuple[ir.Node, int]]:
        """Returns who reads an output, and at which of its inputs."""
        return [(use.node, use.idx) for use in self.node.outputs[position].uses()]


def constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    """Returns what a Constant node holds, None for text and sparse tensors."""
    name, found = next(iter(node.attributes.items()))
    if name == "value":
        tensor: ir.TensorProtocol = found.as_tensor()
        return tensor
    if name in ("value_float", "value_floats"):
        return ir.tensor(np.asarray(found.value, dtype=np.float32))
    if name in ("value_int", "value_ints"):
        return ir.tensor(np.asarray(found.value, dtype=np.int64))
    return None


_OPERATORS: dict[str, Operator] = {}


def operator(
    *names: str, ints: Sequence[int] = (), hosted: Sequence[int] = (), framed: bool = False
) -> Callable[[Callable[[Site], Run]], Callable[[Site], Run]]:
    """Registers the function below it as the lift of the operators named."""

    def register(prepare: Callable[[Site], Run]) -> Callable[[Site], Run]:
        family = prepare.__module__.rpartition(".")[2]
        for name in names:
            _OPERATORS[name] = Operator(
                name, family, prepare, frozenset(ints), framed, frozenset(hosted)
            )
        return prepare

    return register


def direct(family: str, **functions: Run) -> None:
    """Registers operators that one PyTorch function computes, whatever the node says."""
    for name, function in functions.items():
        _OPERATORS[name] = Operator(
            name, family.rpartition(".")[2], _always(function), frozenset(), False
        )


def _always(function: Run) -> Callable[[Site], Run]:
    return lambda site: chosen(site, function)


def chosen(site: Site, function: Run) -> Run:
    """Returns the function behind `elementwise.widened` where the types known need no widening."""
    plain = getattr(function, "plain", None)
    types = [site.dtype(position) for position in range(len(site.node.inputs))]
    return plain if plain is not None and types and all(t in FLOATS for t in types) else function


def find(node: ir.Node) -> Operator | None:
    """Returns how to lift a node's operator, None when nothing here can."""
    return _OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def operators() -> dict[str, Operator]:
    """Returns every operator that has a lift, by name."""
    return dict(sorted(_OPERATORS.items()))


def floats(tensor: Any) -> bool:
    """Returns whether a tensor holds real numbers."""
    return isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
