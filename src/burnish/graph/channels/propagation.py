# SPDX-License-Identifier: Apache-2.0
"""What a rule of an operator reads and writes while atoms are followed through a graph.

Each axis of each value is a vector of atoms. A rule joins atoms that can only be cut
together, locks those that must stay, gives the outputs their axes, says which weights make
or read channels, and says what else in the node depends on the number of channels.

The invariant that every rule keeps: an element of an output whose atoms all stay depends
only on elements whose atoms all stay, except through products with weights that were
declared as consumers. So what is cut could as well have been there, with those weights at
zero, and nothing that stays would change.

Source: the dependency graph of DepGraph (Fang et al. 2023, arXiv:2301.12900, section 3),
taken to single positions, so that parts of an axis may differ in what they depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.graph.channels.atoms import Atoms, Ids
from burnish.graph.channels.shapes import Shapes
from burnish.graph.constants import constant, integers, made_by

Axis = Ids | None
"""The atoms along an axis; None when its size is not known, and nothing in it can be cut."""

Role = Literal["producer", "consumer", "elementwise"]


class Refusal(Exception):
    """Why a node cannot be followed; all that it touches is locked."""


@dataclass(frozen=True)
class Use:
    """An axis of an initializer in which a node makes, or reads, channels."""

    initializer: ir.Value
    axis: int
    role: Role
    node: ir.Node


@dataclass(frozen=True)
class Choice:
    """One of several ways to cut through a node, and the atoms that it left free."""

    key: tuple[str, int]
    ids: Ids


Entry = int | None | Ids
"""An entry of a shape: a number, one that is computed, or the size of the axis of these atoms."""

Sources = tuple[tuple[ir.Value, int], ...]
Survives = Callable[[Ids], NDArray[np.bool_]]
Repair = Callable[[Survives], None]


def title(node: ir.Node) -> str:
    """Returns how messages call a node: its operator and its name."""
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{kind} {node.name}"


class Propagation:
    """The atoms of one graph; `rejected` holds choices that led nowhere, and why."""

    def __init__(
        self, graph: ir.Graph, shapes: Shapes, rejected: Mapping[tuple[str, int], str]
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.rejected = rejected
        self.atoms = Atoms()
        self.values: dict[ir.Value, list[Axis] | None] = {}
        self.uses: list[Use] = []
        self.choices: list[Choice] = []
        self.repairs: list[Repair] = []
        # The entries of values that hold sizes (`channels.sizes`).
        self.sizes: dict[ir.Value, list[Entry]] = {}
        # The initializers that a value is made of by moving, and their axes along each of its.
        self.origins: dict[ir.Value, tuple[Sources, ...]] = {}

    # What a rule reads

    def axes(self, value: ir.Value | None) -> list[Axis]:
        """Returns the atoms along each axis. Raises `Refusal` when the rank is unknown."""
        if value is None:
            raise Refusal("lacks an input")
        if value not in self.values and value.is_initializer():
            array_shape = value.const_value.shape.numpy() if value.const_value is not None else ()
            self.values[value] = [self.atoms.new(size) for size in array_shape]
            self.origins[value] = tuple(((value, axis),) for axis in range(len(array_shape)))
        known = self.values.get(value)
        if known is None:
            raise Refusal(f"reads {value.name}, whose shape is not known")
        return list(known)

    def fixed(self, value: ir.Value | None) -> list[int] | None:
        """Returns the integers of a constant input; its own atoms stay."""
        numbers = integers(value)
        if value is not None:
            self.hold(self.axes(value), f"{value.name} is a setting")
        return numbers

    def entries(self, value: ir.Value | None) -> list[Entry] | None:
        """Returns the entries of a shape; None when not even their number is known."""
        found = integers(value)
        if found is not None:
            return list(found)
        if value is None or value in self.sizes:
            return None if value is None else list(self.sizes[value])
        node = made_by(value, "Concat")
        if node is None:
            shape = self.shapes.of(value)
            if shape is None or len(shape) > 1 or None in shape:
                return None
            return [None] * (shape[0] or 0 if shape else 1)
        entries: list[Entry] = []
        for piece in node.inputs:
            more = self.entries(piece)
            if more is None:
                return None
            entries += more
        return entries

    def writable(self, value: ir.Value | None) -> list[bool]:
        """Returns for each entry of a shape whether `set_entries` can write it."""
        found = integers(value)
        if found is not None:
            return [True] * len(found)
        node = made_by(value, "Concat")
        result: list[bool] = []
        for piece in node.inputs if node is not None else ():
            count = len(self.entries(piece) or ())
            result += [count == 1 or integers(piece) is not None] * count
        return result

    # What a rule says

    def give(self, node: ir.Node, axes: Sequence[Axis], output: int = 0) -> None:
        """Sets the atoms of an output. Raises `Refusal` when they do not fit its shape."""
        value = node.outputs[output]
        shape = self.shapes.of(value)
        if shape is not None:
            if len(shape) != len(axes):
                raise Refusal(f"gives {value.name} of an unexpected rank")
            for axis, size in zip(axes, shape, strict=True):
                if axis is not None and size is not None and axis.size != size:
                    raise Refusal(f"gives {value.name} of an unexpected shape")
        self.values[value] = list(axes)

    def held(self, node: ir.Node, axis: int, reason: str, output: int = 0) -> Axis:
        """Returns new atoms that stay, as many as that axis of an output is long."""
        shape = self.shapes.of(node.outputs[output])
        size = shape[axis] if shape is not None and axis < len(shape) else None
        if size is None:
            return None
        ids = self.atoms.new(size)
        self.atoms.lock(ids, reason)
        return ids

    def hold(self, axes: Axis | Sequence[Axis], reason: str) -> None:
        """Locks one or several axes."""
        for ids in [axes] if isinstance(axes, np.ndarray) or axes is None else axes:
            if ids is not None:
                self.atoms.lock(ids, reason)

    def join(self, node: ir.Node, one: Axis, other: Axis) -> Axis:
        """Joins two axes of equal length and returns one of them."""
        if one is None or other is None:
            self.hold([one, other], f"{title(node)} meets a size that is not known")
            return None
        if one.size != other.size:
            raise Refusal(f"meets sizes {one.size} and {other.size}")
        self.atoms.join(one, other)
        return one

    def broadcast(self, node: ir.Node, operands: Sequence[Sequence[Axis]]) -> list[Axis]:
        """Joins the operands' axes as numpy broadcasts them; returns the result's axes."""
        rank = max(len(one) for one in operands)
        result: list[Axis] = []
        for axis in range(-rank, 0):
            meeting = [one[axis] for one in operands if len(one) >= -axis]
            known = [ids for ids in meeting if ids is not None]
            if len(known) < len(meeting):
                self.hold(known, f"{title(node)} meets a size that is not known")
                result.append(None)
                continue
            size = max((ids.size for ids in known if ids.size != 1), default=1)
            if any(ids.size not in (1, size) for ids in known):
                raise Refusal(f"meets sizes {[ids.size for ids in known]}")
            whole = [ids for ids in known if ids.size == size]
            if size != 1:
                alone = [ids for ids in known if ids.size == 1]
                self.hold(alone, f"{title(node)} repeats it along an axis")
            for ids in whole[1:]:
                self.atoms.join(whole[0], ids)
            result.append(whole[0])
        return result

    def use(self, node: ir.Node, value: ir.Value, axis: int, role: Role) -> None:
        """Says that the node makes or reads channels in that axis of its weights."""
        self.uses += [Use(*source, role, node) for source in self.origins[value][axis]]

    def is_weight(self, value: ir.Value) -> bool:
        """Returns whether a value is made of initializers alone, by moving or rounding."""
        return value in self.origins

    def move_origin(self, node: ir.Node, axes: Sequence[int | None] | None = None) -> None:
        """Says that the output is made of the inputs, their axes taken in the order given."""
        sources = [self.origins.get(value) for value in node.inputs[:1] if value is not None]
        if node.op_type == "Concat":
            sources = [self.origins.get(value) for value in node.inputs if value is not None]
        known = [one for one in sources if one is not None]
        if not known or len(known) < len(sources):
            return
        order = range(len(known[0])) if axes is None else axes
        self.origins[node.outputs[0]] = tuple(
            ()
            if one is None
            else tuple(dict.fromkeys(pair for each in known for pair in each[one]))
            for one in order
        )

    # What is changed when channels go

    def set_input(self, node: ir.Node, index: int, numbers: Sequence[int]) -> None:
        """Gives the node a constant of its own."""
        old = node.inputs[index] if index < len(node.inputs) else None
        array = constant(old)
        dtype = np.int64 if array is None else array.dtype
        shape = (len(numbers),) if array is None or array.ndim else ()
        value = self._constant(f"{node.name}.{index}", np.asarray(numbers, dtype).reshape(shape))
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def set_entries(self, node: ir.Node, index: int, entries: Sequence[Entry]) -> None:
        """Gives the node a shape with these numbers; entries that are none stay computed."""
        value = node.inputs[index]
        source = made_by(value, "Concat")
        if integers(value) is not None or source is None:
            self.set_input(node, index, [one for one in entries if isinstance(one, int)])
            return
        pieces: list[ir.Value | None] = []
        place = 0
        for piece in source.inputs:
            count = len(self.entries(piece) or ())
            numbers = [one for one in entries[place : place + count] if isinstance(one, int)]
            place += count
            if len(numbers) == count and numbers != integers(piece):
                name = f"{node.name}.{index}.{place}"
                pieces.append(self._constant(name, np.asarray(numbers, np.int64)))
            else:
                pieces.append(piece)
        concat = ir.node("Concat", pieces, {"axis": 0}, name=f"{node.name}.shape")
        concat.outputs[0].name = _free(f"{node.name}.shape", self.graph)
        self.graph.insert_before(node, concat)
        node.replace_input_with(index, concat.outputs[0])

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        name = _free(name, self.graph)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            const_value=tensor,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
        )
        self.graph.register_initializer(value)
        return value


def _free(name: str, graph: ir.Graph) -> str:
    taken = set(graph.initializers) | {str(value.name) for value in graph.inputs}
    taken.update(str(value.name) for node in graph for value in node.outputs)
    count, free = 1, name
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    return free
