# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph as a PyTorch module: same numbers, and gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch

from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model, Signature
from burnish.core.technique import Skipped
from burnish.graph.lift.dtypes import as_tensor
from burnish.graph.lift.program import Program, build, refused
from burnish.graph.lift.registry import Frame
from burnish.graph.lift.roles import is_trained


def lift(model: Model | ir.Model) -> LiftedModule:
    """Returns a module in evaluation mode that computes what the graph computes.

    `model` is not changed, and weights are copied. Which initializers become parameters
    is said in `graph.lift.roles`. Raises `Unsupported` that names every node which has no
    form in PyTorch.
    """
    graph = model.edit() if isinstance(model, Model) else model.clone()
    signature = model.signature if isinstance(model, Model) else Model(graph).signature
    module = LiftedModule(build(graph.graph, _version(graph)), signature)
    module.eval()
    return module


def refusals(model: Model) -> tuple[Skipped, ...]:
    """Returns the nodes and values for which `lift` raises, and why; () when it lifts all."""
    graph = model.edit()
    return refused(graph.graph, _version(graph))


def _version(graph: ir.Model) -> int:
    return graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 1))


class LiftedModule(torch.nn.Module):  # type: ignore[misc]
    """A graph's values and steps as one `torch.nn.Module`.

    Initializers are held under their own names with "/" for "."; `initializer` takes the
    ONNX name. In training mode BatchNormalization normalizes with the batch's statistics
    and moves the running ones by `momentum` (PyTorch's: the share of the new), and Dropout
    drops.
    """

    signature: Signature

    def __init__(self, program: Program, signature: Signature, momentum: float = 0.1) -> None:
        super().__init__()
        self.signature = signature
        self.momentum = momentum
        self._program = program
        self._names: dict[str, str] = {}
        self._fixed: list[tuple[bool, str]] = []
        for value in program.fixed:
            self._hold(value)

    def _hold(self, value: ir.Value) -> None:
        assert value.const_value is not None
        tensor = as_tensor(value.const_value)
        known = str(value.name)
        name = known.replace(".", "/") or "_"
        while hasattr(self, name):  # another's name, or a method of the module
            name += "_"
        trained = is_trained(value)
        if trained:
            self.register_parameter(name, torch.nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)
        self._fixed.append((trained, name))
        self._names[known] = name

    def forward(self, inputs: Mapping[str, Any], keep: Collection[str] = ()) -> dict[str, Any]:
        """Returns the outputs by name, and the values named in `keep` by theirs.

        `inputs` are tensors by name, on the module's device. Raises `Misuse` for a missing
        input or an unknown name.
        """
        program = self._program
        names = [spec.name for spec in self.signature.inputs]
        if missing := [name for name in names if name not in inputs]:
            raise Misuse(f"the model takes {self.signature}; missing: {missing}")
        given = [inputs[name] for name in names]
        for name in keep:
            if name not in program.slots:
                raise unknown("value of the graph", name, program.slots)
        kept = frozenset(program.slots[name] for name in keep)
        parameters, buffers = self._parameters, self._buffers
        fixed = [(parameters if own else buffers)[name] for own, name in self._fixed]
        frame = Frame(self.training, self.momentum, self._device(given, fixed))
        values = program.run(frame, given, fixed, kept)
        found = {
            spec.name: program.tensor(values, slot, frame)
            for spec, slot in zip(self.signature.outputs, program.outputs, strict=True)
        }
        for name in keep:
            found[name] = program.tensor(values, program.slots[name], frame)
        return found

    def _device(self, given: list[Any], fixed: list[Any]) -> Any:
        for tensor in (*given, *fixed):
            return tensor.device
        return torch.device("cpu")

    def initializer(self, name: str) -> Any:
        """Returns the parameter or buffer of an ONNX initializer. Raises `Misuse`."""
        if name not in self._names:
            raise unknown("initializer", name, self._names)
        return getattr(self, self._names[name])

    def named_initializers(self) -> Iterator[tuple[str, Any]]:
        """Yields every initializer and constant: its ONNX name, and its tensor."""
        for name, own in self._names.items():
            yield name, getattr(self, own)

    def train_initializer(self, name: str, trained: bool = True) -> Any:
        """Makes an initializer a parameter, or a buffer, and returns it.

        For what the rule in `graph.lift.roles` leaves out (quantization scales) or takes
        in. Make the optimizer afterwards: it is another tensor object. Raises `Misuse` for
        an unknown name, or a tensor that cannot have a gradient.
        """
        old = self.initializer(name)
        own = self._names[name]
        if trained and not old.is_floating_point():
            raise Misuse(f"{name} {list(old.shape)} is {old.dtype}: only real numbers are trained")
        if trained and name in self._program.baked:
            raise Misuse(f"{name} cannot be trained: its operator read it once, as a number")
        if trained != (own in self._parameters):
            delattr(self, own)
            if trained:
                self.register_parameter(own, torch.nn.Parameter(old))
            else:
                self.register_buffer(own, old.detach())
            self._fixed = [(trained if one == own else was, one) for was, one in self._fixed]
        return getattr(self, own)

    def extra_repr(self) -> str:
        """Returns what `print` says of the module."""
        return f"{self.signature}, {len(self._program.steps)} steps"
