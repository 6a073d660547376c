# SPDX-License-Identifier: Apache-2.0
"""A graph as a list of steps: all analysis is done once, a call only runs closures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from burnish.core.errors import Unsupported
from burnish.core.technique import Skipped
from burnish.graph.lift import families, host
from burnish.graph.lift.dtypes import torch_dtype
from burnish.graph.lift.registry import Frame, Operator, Run, Site, constant_of, find

_LISTED = 20  # refusals in one message


@dataclass
class Step:
    """One node, ready to run: `run` reads the slots `inputs` and fills the slots `outputs`."""

    name: str
    run: Run
    framed: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...] = ()
    ints: tuple[tuple[int, Any], ...] = ()  # (position, constant or None): as Python integers
    hosts: tuple[tuple[int, Any], ...] = ()  # (position, type): integers to be tensors


@dataclass
class Program:
    """The steps of a graph and where its values live.

    Slot 0 always holds None: what an absent input reads. `fixed` are the values that the
    module holds (initializers and constants), which the caller of `run` passes in.
    """

    slots: dict[str, int]
    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    fixed: tuple[ir.Value, ...]
    fixed_slots: tuple[int, ...]
    captured: tuple[ir.Value, ...]
    steps: tuple[Step, ...] = ()
    types: Mapping[int, Any] = field(default_factory=dict)
    baked: frozenset[str] = frozenset()  # constants that closures hold as numbers

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # it never changes: copies of a module share it

    def run(
        self, frame: Frame, inputs: Sequence[Any], fixed: Sequence[Any], keep: frozenset[int]
    ) -> list[Any]:
        """Runs all steps and returns the values by slot; dead ones are None unless kept."""
        values: list[Any] = [None] * self.size
        for slot, value in zip(self.fixed_slots, fixed, strict=True):
            values[slot] = value
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        for step in self.steps:
            given = [values[slot] for slot in step.inputs]
            for position, known in step.ints:
                given[position] = integers(given[position]) if known is None else known
            for position, dtype in step.hosts:
                given[position] = on_device(given[position], dtype, frame.device)
            try:
                made = step.run(frame, *given) if step.framed else step.run(*given)
            except (RuntimeError, ValueError, IndexError) as error:
                error.add_note(f"in the node {step.name} of the lifted graph")
                raise
            if isinstance(made, tuple):
                for slot, value in zip(step.outputs, made, strict=False):
                    values[slot] = value
            else:
                values[step.outputs[0]] = made
            for slot in step.dead:
                if slot not in keep:
                    values[slot] = None
        return values

    def tensor(self, values: Sequence[Any], slot: int, frame: Frame) -> Any:
        """Returns a value as a tensor, whichever way it is held."""
        value = values[slot]
        if isinstance(value, torch.Tensor):
            return value
        return on_device(value, self.types.get(slot), frame.device)


def integers(value: Any) -> Any:
    """Returns a tensor of integers as an int or a list; integers as they are."""
    return value.tolist() if isinstance(value, torch.Tensor) else value


def on_device(value: Any, dtype: Any, device: Any) -> Any:
    """Returns integers as a tensor: a lone one stays on the CPU, where it goes with any other."""
    if isinstance(value, list):
        kind = torch.int64 if dtype is None and not value else dtype
        return torch.tensor(value, dtype=kind, device=device)
    return torch.tensor(value, dtype=dtype)


def build(graph: ir.Graph, version: int) -> Program:
    """Returns the program of a graph, or of a node's body.

    Raises `Unsupported` naming all nodes that have no lift.
    """
    return _made(graph, version).finish()


def refused(graph: ir.Graph, version: int) -> tuple[Skipped, ...]:
    """Returns the graph's nodes and values that have no lift, and why; `build` raises these."""
    return tuple(_made(graph, version).refused)


def _made(graph: ir.Graph, version: int) -> _Maker:
    families.load()
    maker = _Maker(graph, version)
    for node in graph:
        maker.add(node)
    return maker


class _Maker:
    def __init__(self, graph: ir.Graph, version: int) -> None:
        self.graph, self.version = graph, version
        self.slots: dict[ir.Value, int] = {}
        self.fixed: list[ir.Value] = []
        self.captured: list[ir.Value] = []
        self.host: dict[ir.Value, int] = {}  # values on the host: their rank
        self.types: dict[int, Any] = {}
        self.steps: list[Step] = []
        self.refused: list[Skipped] = []
        self.baked: set[str] = set()
        for value in graph.inputs:
            self._slot(value)
            self._admit(value)
        for value in graph.initializers.values():
            if value not in self.slots and value.const_value is not None and self._admit(value):
                self._fix(value)

    def _admit(self, value: ir.Value) -> bool:
        """Notes a refusal of an input or initializer whose elements PyTorch cannot hold."""
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            self.refused.append(Skipped(str(value.name), "it is no tensor"))
            return False
        try:
            torch_dtype(value.dtype if value.dtype is not None else ir.DataType.FLOAT)
        except Unsupported as error:
            self._slot(value)
            self.refused.append(Skipped(str(value.name), str(error)))
            return False
        return True

    def add(self, node: ir.Node) -> None:
        """Adds a node's step, or notes why there is none."""
        if (node.domain, node.op_type) == ("", "Constant"):
            tensor = constant_of(node)
            if tensor is not None and tensor.dtype != ir.DataType.STRING:
                node.outputs[0].const_value = tensor
                self._fix(node.outputs[0])
                return
        operator = find(node)
        if operator is None:
            for value in node.outputs:
                self._slot(value)
            self._refuse(node, "")
            return
        site = Site(node, self.version, self._body, self.baked)
        if node.op_type in ("Shape", "Size"):
            self._shape(site, operator)
        elif not self._on_host(site):
            self._on_device(site, operator)

    def _refuse(self, node: ir.Node, why: str) -> None:
        domain = f"{node.domain}::" if node.domain else ""
        kind = f"{domain}{node.op_type}"
        reason = f"{kind}: {why}" if why else f"no lift of the operator {kind}"
        self.refused.append(Skipped(node.name or "a nameless node", reason))

    def _body(self, graph: ir.Graph) -> Program:
        program = build(graph, self.version)
        self.baked |= program.baked
        return program

    def _slot(self, value: ir.Value | None) -> int:
        if value is None:
            return 0
        if value not in self.slots:
            self.slots[value] = len(self.slots) + 1
        return self.slots[value]

    def _read(self, value: ir.Value | None) -> int:
        """Returns the slot of an input; what nothing here has made comes from around the body."""
        if value is not None and value not in self.slots:
            self.captured.append(value)
        return self._slot(value)

    def _fix(self, value: ir.Value) -> None:
        self._slot(value)
        self.fixed.append(value)
        tensor = value.const_value
        assert tensor is not None
        small = len(tensor.shape) <= 1 and tensor.size <= host.LIMIT
        if small and tensor.dtype == ir.DataType.INT64:
            self.host[value] = len(tensor.shape)

    def _shape(self, site: Site, operator: Operator) -> None:
        node, run = site.node, operator.prepare(site)
        hosts = ((0, torch.int64),) if node.inputs[0] in self.host else ()
        self._step(node, run, node.inputs, hosts=hosts)
        self.host[node.outputs[0]] = 1 if node.op_type == "Shape" else 0

    def _on_host(self, site: Site) -> bool:
        """Adds the step of a node that can be computed on the host; says whether it did."""
        constant = host.integer(site)
        if constant is not None:
            self._step(site.node, lambda: constant, ())
            self.host[site.node.outputs[0]] = 0
            return True
        given = [value for value in site.node.inputs if value is not None]
        if not given or not all(value in self.host for value in given):
            return False
        ranks = [None if one is None else self.host[one] for one in site.node.inputs]
        run = host.find(site, ranks)
        if run is None:
            return False
        known = tuple(
            (position, self._known(value))
            for position, value in enumerate(site.node.inputs)
            if value is not None and self._known(value) is not None
        )
        self._step(site.node, run, site.node.inputs, ints=known)
        self.host[site.node.outputs[0]] = host.rank(site, ranks)
        return True

    def _known(self, value: ir.Value | None) -> Any:
        """Returns the integers of a constant, None for what is computed."""
        if value is None or value.const_value is None or value.is_graph_input():
            return None
        self.baked.add(str(value.name))
        return value.const_value.numpy().tolist()

    def _on_device(self, site: Site, operator: Operator) -> None:
        node = site.node
        try:
            run = operator.prepare(site)
        except Unsupported as error:
            for value in node.outputs:
                self._slot(value)
            self._refuse(node, str(error))
            return
        captures: tuple[ir.Value, ...] = getattr(run, "captures", ())
        for around in captures:  # a constant within a body is held by the module too
            if around.const_value is not None and around not in self.slots:
                self._fix(around)
        inputs = [*node.inputs, *captures]
        ints, hosts = [], []
        for position, one in enumerate(inputs):
            if one is None:
                continue
            if position in operator.ints:
                ints.append((position, self._known(one)))
            elif position in operator.hosted and one in self.host:
                if self._known(one) is not None:
                    ints.append((position, self._known(one)))
            elif one in self.host and self._known(one) is None:
                dtype = torch_dtype(one.dtype) if one.dtype is not None else None
                hosts.append((position, dtype))
        self._step(node, run, inputs, operator.framed, tuple(ints), tuple(hosts))

    def _step(
        self,
        node: ir.Node,
        run: Run,
        inputs: Sequence[ir.Value | None],
        framed: bool = False,
        ints: tuple[tuple[int, Any], ...] = (),
        hosts: tuple[tuple[int, Any], ...] = (),
    ) -> None:
        reads = tuple(map(self._read, inputs))
        self.steps.append(
            Step(
                node.name or node.op_type,
                run,
                framed,
                reads,
                tuple(map(self._slot, node.outputs)),
                (),
                ints,
                hosts,
            )
        )

    def finish(self) -> Program:
        """Returns the program, or raises `Unsupported` with every refusal."""
        if self.refused:
            more = len(self.refused) - _LISTED
            listed = "; ".join(f"{one.place}: {one.reason}" for one in self.refused[:_LISTED])
            listed += f"; and {more} more" if more > 0 else ""
            raise Unsupported(
                f"PyTorch has no form, known here, of {len(self.refused)} of the graph's nodes "
                f"or values: {listed}. "
                "docs/lift.md lists the operators that have one"
            )
        outputs = tuple(map(self._read, self.graph.outputs))
        fixed = tuple(self.slots[value] for value in self.fixed)
        last: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            for slot in (*step.inputs, *step.outputs):
                last[slot] = number
        for slot in (0, *outputs, *fixed):
            last.pop(slot, None)
        dead: dict[int, list[int]] = {}
        for slot, number in last.items():
            dead.setdefault(number, []).append(slot)
        for number, step in enumerate(self.steps):
            step.dead = tuple(dead.get(number, ()))
        return Program(
            {str(value.name): slot for value, slot in self.slots.items() if value.name},
            len(self.slots) + 1,
            tuple(
                self.slots[value]
                for value in (*self.graph.inputs, *self.captured)
                if value not in self.fixed
            ),
            outputs,
            tuple(self.fixed),
            fixed,
            tuple(self.captured),
            tuple(self.steps),
            {
                self.slots[value]: torch_dtype(value.dtype)
                for value in self.host
                if value.dtype is not None
            },
            frozenset(self.baked),
        )
