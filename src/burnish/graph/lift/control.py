# SPDX-License-Identifier: Apache-2.0
"""If, Loop and Scan: bodies are programs of their own, and Python runs them.

A body reads its own inputs, then the values around it that it captures. Which way an If
goes, and whether a Loop goes on, is read from the device at each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch

from burnish.core.errors import Unsupported
from burnish.graph.lift.registry import Frame, Run, Site, operator


class _Body:
    """A node's subgraph, ready to run."""

    def __init__(self, site: Site, name: str) -> None:
        graph = site.node.attributes[name].as_graph()
        self.program = site.build(graph)
        self.inputs = len(graph.inputs)
        self.captured: tuple[ir.Value, ...] = self.program.captured
        self.fixed: tuple[ir.Value, ...] = self.program.fixed

    def __call__(self, frame: Frame, inputs: Sequence[Any], around: Sequence[Any]) -> list[Any]:
        captured, fixed = around[: len(self.captured)], around[len(self.captured) :]
        values = self.program.run(frame, [*inputs, *captured], fixed, frozenset())
        return [self.program.tensor(values, slot, frame) for slot in self.program.outputs]


def _with(run: Callable[..., Any], *bodies: _Body) -> Run:
    """Returns the closure, with what its bodies read from around as further inputs."""
    run.captures = [  # type: ignore[attr-defined]
        value for body in bodies for value in (*body.captured, *body.fixed)
    ]
    return run


@operator("If", framed=True)
def branch(site: Site) -> Run:
    """If: runs one of two bodies."""
    yes, no = _Body(site, "then_branch"), _Body(site, "else_branch")
    count = len(yes.captured) + len(yes.fixed)

    def run(frame: Frame, condition: Any, *around: Any) -> Any:
        if bool(condition):
            return tuple(yes(frame, [], around[:count]))
        return tuple(no(frame, [], around[count:]))

    return _with(run, yes, no)


@operator("Loop", framed=True)
def loop(site: Site) -> Run:
    """Loop: carries values from turn to turn, and stacks what each turn gives besides."""
    body = _Body(site, "body")
    given = len(site.node.inputs)
    carried = given - 2

    def run(frame: Frame, *inputs: Any) -> Any:
        most, condition, *state = inputs[:given]
        around = inputs[given:]
        limit = None if most is None else int(most)
        going = condition is None or bool(condition)
        turn = 0
        rows: list[list[Any]] = []
        while going and (limit is None or turn < limit):
            made = body(frame, [torch.tensor(turn), torch.tensor(going), *state], around)
            going, state = bool(made[0]), made[1 : 1 + carried]
            rows.append(made[1 + carried :])
            turn += 1
        if not rows and len(site.node.outputs) > carried:
            raise Unsupported(f"{site.node.name} (Loop) made no turn: its outputs have no shape")
        scans = [torch.stack(column) for column in zip(*rows, strict=True)]
        return (*state, *scans)

    return _with(run, body)


@operator("Scan", framed=True)
def scan(site: Site) -> Run:
    """Scan: a Loop over the slices of its inputs."""
    body = _Body(site, "body")
    given, count = len(site.node.inputs), site.integer("num_scan_inputs", 1)
    batched = site.version < 9
    state_count = given - count - (1 if batched else 0)
    outputs = body_outputs = len(site.node.outputs) - state_count
    axes = site.integers("scan_input_axes") or [0] * count
    back = site.integers("scan_input_directions") or [0] * count
    out_axes = site.integers("scan_output_axes") or [0] * outputs
    out_back = site.integers("scan_output_directions") or [0] * outputs

    def sweep(frame: Frame, state: list[Any], inputs: list[Any], around: Sequence[Any]) -> Any:
        inputs = [x.movedim(axis, 0) for x, axis in zip(inputs, axes, strict=True)]
        inputs = [x.flip(0) if turn else x for x, turn in zip(inputs, back, strict=True)]
        rows: list[list[Any]] = []
        for step in range(len(inputs[0])):
            made = body(frame, [*state, *(x[step] for x in inputs)], around)
            state = made[:state_count]
            rows.append(made[state_count:])
        stacked = []
        for number in range(body_outputs):
            column = [row[number] for row in rows]
            column = column[::-1] if out_back[number] else column
            stacked.append(torch.stack(column).movedim(0, out_axes[number]))
        return (*state, *stacked)

    def run(frame: Frame, *inputs: Any) -> Any:
        own, around = list(inputs[:given]), inputs[given:]
        if not batched:
            return sweep(frame, own[:state_count], own[state_count:], around)
        own = own[1:]  # before opset 9: lengths first, and a batch axis on everything
        samples = [
            sweep(
                frame, [x[n] for x in own[:state_count]], [x[n] for x in own[state_count:]], around
            )
            for n in range(len(own[0]))
        ]
        return tuple(torch.stack(column) for column in zip(*samples, strict=True))

    return _with(run, body)
