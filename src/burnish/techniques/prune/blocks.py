# SPDX-License-Identifier: Apache-2.0
"""Drops whole residual blocks: branches that are added back to their own input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Misuse, Unsupported, unknown
from burnish.core.model import Model
from burnish.core.technique import Context, Skipped
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.canonical import infer_types
from burnish.graph.cost import cost
from burnish.measuring.machine import machine
from burnish.techniques.prune.latency_table import Bench, Served
from burnish.techniques.prune.pruning import (
    Chosen,
    Pruning,
    Removal,
    need_macs,
    refuse_quantized,
)
from burnish.techniques.quantize.observe import fitting
from burnish.techniques.train.trained import training_samples
from burnish.techniques.train.training import number, whole

Amount = Literal["blocks", "macs", "parameters", "size", "latency"]

_BATCH = 32
_NAMES = "blocks"


@dataclass(frozen=True)
class Block:
    """A branch and the sum that ends it: named after the sum's node, with the branch's nodes."""

    name: str
    start: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class PruneBlocks(Pruning):
    """Drops residual blocks, those first that change the outputs least.

    A block is a branch that is added back to its own input, of equal shape; without it the
    input goes on alone. Candidates are dropped one at a time, and the outputs on `samples`
    training samples (labels are not needed) compared with the whole model's; the block of
    the least squared change goes, and the rest are ranked anew.

    `amount` is the number that goes with `of` "blocks", else the share, 0 to below 1, of
    "macs", "parameters", "size", or "latency" (of the int8 form, one sample, measured on
    `engine` with `threads`, 0 for every core, `seconds` for each race). `keep`: blocks to
    leave, by the name of the node that adds. A dropped block costs accuracy: recover it,
    with `distill` or in `prune_iteratively`. Source: Veit et al. 2016 (arXiv:1605.06431)
    for dropping residual blocks.
    """

    amount: float = 1
    of: Amount = "blocks"
    keep: tuple[str, ...] = ()
    samples: int = 256
    engine: str = "onnxruntime"
    threads: int = 1
    seconds: float = 10.0
    name: ClassVar[str] = "prune_blocks"

    def __post_init__(self) -> None:
        faults = []
        if self.of not in get_args(Amount):
            faults.append(str(unknown("of", str(self.of), get_args(Amount))))
        elif self.of == "blocks" and not whole(self.amount, 0):
            faults.append(f"amount must be a whole number of blocks from 0, got {self.amount!r}")
        elif self.of != "blocks" and not number(self.amount, 0, 1):
            faults.append(f"amount must be a number from 0 to below 1, got {self.amount!r}")
        for name, least in (("samples", 1), ("threads", 0)):
            if not whole(getattr(self, name), least):
                faults.append(
                    f"{name} must be a whole number from {least}, got {getattr(self, name)!r}"
                )
        if not number(self.seconds, 0.1, float("inf")):
            faults.append(f"seconds must be a number from 0.1, got {self.seconds!r}")
        if not isinstance(self.keep, tuple) or not all(isinstance(one, str) for one in self.keep):
            faults.append(f"keep must be a list of names, got {self.keep!r}")
        if faults:
            raise Misuse("; ".join(faults))

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` for a quantized model, without data, or for an unknown block."""
        refuse_quantized(self.name, model)
        task = context.need_task(self.name)
        training_samples(task)
        if self.of == "latency":
            task.split("calibration")
        known = [block.name for block in residual_blocks(model)]
        for one in self.keep:
            if one not in known:
                raise unknown("residual block in keep", one, known)

    def choose(self, model: Model, context: Context) -> Chosen:
        """Returns the blocks that go, in the order in which they were dropped."""
        skipped = [Skipped(name, "it is in keep") for name in self.keep]
        if self.of == "macs":
            skipped += need_macs(self.name, cost(model))
        gone: list[str] = []
        words: list[str] = []
        current = model
        while not self._reached(model, current, gone, context):
            left = [one for one in residual_blocks(current) if one.name not in self.keep]
            if not left:
                reason = "no residual block is left to drop: no branch is added to its own input"
                skipped.append(Skipped(f"{self.amount:g} of the {self.of}", reason))
                break
            changes = self._changes(model, current, left, context)
            best = min(left, key=lambda one: changes[one.name])
            gone.append(best.name)
            current = Model(drop(current, [best.name]))
            words.append(
                f"dropped {best.name} ({len(best.nodes)} nodes): outputs are "
                f"{100 * changes[best.name]:.2g} % away (squared, relative)"
            )
        return Chosen({_NAMES: gone} if gone else {}, tuple(words), tuple(skipped))

    def remove(self, model: Model, removal: Removal) -> ir.Model:
        """Returns the graph without these blocks."""
        return drop(model, removal.get(_NAMES, []))

    def merged(self, first: Removal, then: Removal) -> Removal:
        """Returns the blocks of both."""
        return {_NAMES: [*first.get(_NAMES, []), *then.get(_NAMES, [])]}

    def plain(self, removal: Removal) -> dict[str, Any]:
        """Returns the names of the blocks."""
        return dict(removal)

    def part(self, now: float, before: float, start: Model, current: Model) -> Self | None:
        """Returns the step that brings `current` to `now` of the whole amount."""
        if self.of == "blocks":
            more = round(self.amount * now) - round(self.amount * before)
            return dataclasses.replace(self, amount=more) if more else None
        reached = self.amount * before
        if self.of != "latency" and _count(self.of, start):
            reached = 1 - _count(self.of, current) / _count(self.of, start)
        target = self.amount * now
        if target <= reached:
            return None
        return dataclasses.replace(self, amount=1 - (1 - target) / (1 - reached))

    def _reached(self, model: Model, current: Model, gone: list[str], context: Context) -> bool:
        if self.of == "blocks":
            return len(gone) >= self.amount
        if self.amount == 0:
            return True
        if not gone:
            return False
        if self.of == "latency":
            ratio = self._latency_ratio(model, current, context)
        else:
            ratio = _count(self.of, current) / _count(self.of, model)
        return ratio <= 1 - self.amount

    def _latency_ratio(self, model: Model, current: Model, context: Context) -> float:
        bench = Bench(self.engine, self.threads, self.seconds)

        def measure() -> float:
            models = {
                key: Served(one, context).at({}) for key, one in (("a", model), ("b", current))
            }
            speedup = bench.race(models, context)["b"].speedup
            if speedup is None:
                raise Broken("the race gave no ratio for the network without blocks")
            return 1 / speedup.value

        if context.store is None:
            return measure()
        key = bench.key(model, current.digest)
        return float(context.store.json("latency_blocks", key, measure))

    def _changes(
        self, model: Model, current: Model, blocks: list[Block], context: Context
    ) -> dict[str, float]:
        """Returns for each block the relative squared change of the outputs without it."""
        data, _ = training_samples(context.need_task(self.name))
        limit = min(self.samples, len(data))
        setting = Setting(threads=machine().cores)
        error = {block.name: 0.0 for block in blocks}
        scale = 0.0
        opened = {}
        try:
            for block in blocks:
                opened[block.name] = OnnxRuntime().open(Model(drop(current, [block.name])), setting)
            with OnnxRuntime().open(model, setting) as reference:
                done = 0
                for inputs in fitting(model, data, _BATCH, limit):
                    wanted = reference.run(inputs)
                    floats = [name for name, one in wanted.items() if one.dtype.kind == "f"]
                    if not floats:
                        raise Unsupported(f"{self.name} needs an output of real numbers to compare")
                    wide = {name: wanted[name].astype(np.float64) for name in floats}
                    scale += sum(float((one**2).sum()) for one in wide.values())
                    for name, session in opened.items():
                        got = session.run(inputs)
                        error[name] += sum(
                            float(((got[output] - one) ** 2).sum()) for output, one in wide.items()
                        )
                    done = min(done + _BATCH, limit)
                    context.progress("dropping blocks", done, limit)
        finally:
            for session in opened.values():
                session.close()
        return {name: one / (scale or 1.0) for name, one in error.items()}


def residual_blocks(model: Model) -> tuple[Block, ...]:
    """Returns the branches that are added back to their own input, in the graph's order."""
    graph = model.edit()
    infer_types(graph, "the model")
    outputs = set(graph.graph.outputs)
    found = []
    for node in graph.graph:
        if node.op_type != "Add" or node.domain or node.outputs[0] in outputs:
            continue
        for start, end in (node.inputs, reversed(node.inputs)):
            if start is None or end is None or start.is_initializer() or end.is_initializer():
                continue
            if not _alike(start, end, node.outputs[0]):
                continue
            branch = _branch(start, end, node)
            if branch:
                names = tuple(str(one.name) for one in graph.graph if one in branch)
                found.append(Block(str(node.name), str(start.name), names))
    return tuple(found)


def _alike(*values: ir.Value) -> bool:
    shapes = [value.shape for value in values]
    if any(shape is None for shape in shapes):
        return False
    sizes = {
        tuple(size if isinstance(size, int) else size.value for size in shape or ())
        for shape in shapes
    }
    return len(sizes) == 1 and None not in next(iter(sizes))


def _branch(start: ir.Value, end: ir.Value, add: ir.Node) -> set[ir.Node]:
    """Returns the nodes that only the branch from start to end needs; empty when there is none."""
    reaches = _between(start, end)
    if not reaches:
        return set()
    # What is read elsewhere as well stays, and so does what it needs.
    alone: set[ir.Node] = set()
    waiting = [end.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in alone or node is start.producer():
            continue
        users = {use.node for value in node.outputs for use in value.uses()}
        if any(value.is_graph_output() for value in node.outputs) or users - alone - {add}:
            continue
        alone.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None]
    return alone


def _between(start: ir.Value, end: ir.Value) -> bool:
    """Returns whether `start` is read on the way to `end`."""
    seen: set[ir.Node] = set()
    waiting = [end.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if start in node.inputs:
            return True
        waiting += [value.producer() for value in node.inputs if value is not None]
    return False


def drop(model: Model, names: list[str]) -> ir.Model:
    """Returns the graph without the blocks that end in these nodes. Raises `Misuse`."""
    graph = model.edit()
    known = {block.name: block for block in residual_blocks(model)}
    nodes = {str(node.name): node for node in graph.graph}
    for name in names:
        if name not in known:
            raise unknown("residual block", name, known)
        node = nodes[name]
        (start,) = (one for one in node.inputs if one is not None and one.name == known[name].start)
        ended = [*(again.outputs[0] for again in _repeated_relu(node, start)), node.outputs[0]]
        for value in ended:
            ir.convenience.replace_all_uses_with(value, start)
        for other, block in known.items():  # a later block may begin where this one ended
            if block.start in {value.name for value in ended}:
                known[other] = dataclasses.replace(block, start=str(start.name))
    common.RemoveUnusedNodesPass()(graph)
    infer_types(graph, "the model without blocks")
    return graph


def _repeated_relu(add: ir.Node, start: ir.Value) -> Iterator[ir.Node]:
    """Yields each Relu of the sum when what is left of it is a Relu's output already."""
    made = start.producer()
    if made is None or made.op_type != "Relu":
        return
    for use in tuple(add.outputs[0].uses()):
        if use.node.op_type == "Relu" and not use.node.outputs[0].is_graph_output():
            yield use.node


def _count(of: str, model: Model) -> float:
    if of == "size":
        return float(model.size_bytes)
    counted = cost(model)
    return float(counted.macs if of == "macs" else counted.parameters)
