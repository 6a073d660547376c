# SPDX-License-Identifier: Apache-2.0
"""Turns a PyTorch module into a Model, and checks that the two agree.

The exporter's own optimizer is off, so that BatchNormalization stays and parameters
keep their names; only constants that no parameter enters are folded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.core.model import OPSET, Lineage, Model
from burnish.graph.canonical import canonical
from burnish.graph.importers.agreement import Agreement, compare, random_like
from burnish.graph.importers.export_errors import explain, reason
from burnish.graph.importers.interface import apart, name_interface

_log = logging.getLogger(__name__)
_BATCH = "batch"
_PREFIX = "network."  # what the wrapper below puts before parameter names
_BATCHES_CHECKED = (1, 3)
_NOISE = 1e-6  # an absolute difference below it is rounding, whatever the output's scale


def import_torch(
    module: Any,
    example_inputs: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    tolerance: float | None = None,
    check: bool = True,
    source: str | None = None,
) -> Model:
    """Returns the model of an `nn.Module`, which itself stays as it is.

    `example_inputs`: a tensor or numpy array, a tuple of them, or a dict by the names of
    `forward`'s parameters; the first axis of each is the batch. Inputs are named after
    `forward`'s parameters; outputs after the keys or fields of what it returns, else
    "output" or "output_0", "output_1"… When the batch cannot vary, the model keeps the
    example's, with a warning and the note "static_batch" in its lineage.

    `check` runs both on random inputs (batches of 1 and 3) and notes the largest
    differences in the lineage. `tolerance` is the largest accepted difference, as a share
    of the output's largest magnitude; by default 1e-4, for half precision 1e-2.

    Raises `Missing` without PyTorch, `Misuse` for wrong arguments, `Unsupported` when the
    module cannot be exported or the export disagrees with it.
    """
    try:
        import torch
    except ImportError as error:
        raise Missing("importing a PyTorch module", "torch", "train") from error
    if not isinstance(module, torch.nn.Module):
        raise Misuse(f"expected a torch.nn.Module, got {type(module).__name__}")
    what = source or type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise Unsupported(f"{what} is a ScriptModule: give the plain nn.Module it was made from")
    call = _Call(module, example_inputs, what)
    names = _given(input_names, call.names, "input_names")
    with _undisturbed(module), _quiet():
        outputs = _given(output_names, apart(call.output_names(), names), "output_names")
        if set(outputs) & set(names):
            raise Misuse(f"inputs {names} and outputs {outputs} must have different names")
        examples = {name: _array(one) for name, one in zip(names, call.tensors, strict=True)}
        model, notes = None, {"exporter": f"torch {torch.__version__}"}
        if dynamic_batch:
            fixed = call.why_static() or None
            if fixed is None:
                try:
                    model = _export(call, names, outputs, True, what)
                    if check:
                        notes |= _verify(model, call, examples, _BATCHES_CHECKED, tolerance, what)
                except _BatchFixed as error:
                    model, fixed = None, str(error)
            if fixed is not None:
                notes["static_batch"] = fixed
                _log.warning("static batch model=%s reason=%s", what, fixed)
        if model is None:
            model = _export(call, names, outputs, False, what)
            if check:
                notes |= _verify(model, call, examples, (None,), tolerance, what)
    return Model(model.edit(), Lineage(source=what, notes=notes))


class _BatchFixed(Exception):
    """The module, or its export, takes no other batch than the example's."""


class _Call:
    """A module with its example inputs as a flat list, and its outputs as a flat dict."""

    def __init__(self, module: Any, example_inputs: Any, what: str) -> None:
        import torch

        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if isinstance(example_inputs, Mapping):
            kwargs = dict(example_inputs)
        elif isinstance(example_inputs, tuple | list):
            args = tuple(example_inputs)
        else:
            args = (example_inputs,)
        self.module, self.what = module, what
        try:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise Misuse(f"the example inputs do not fit {what}.forward: {error}") from error
        self._n_args = len(args)
        self._keys = list(kwargs)
        self._labels = _labels(bound)
        device = next((one.device for one in module.parameters()), torch.device("cpu"))
        self._values = [_tensor(one, device) for one in (*args, *kwargs.values())]
        self._places = [i for i, one in enumerate(self._values) if isinstance(one, torch.Tensor)]
        self.tensors = [self._values[i] for i in self._places]
        if not self.tensors:
            raise Misuse(f"the example inputs of {what} hold no tensor")
        by_value = {id(raw): label for label, raw in self._labels}
        raws = (*args, *kwargs.values())
        self.names = [by_value.get(id(raws[i]), f"input_{i}") for i in self._places]
        if len(set(self.names)) < len(self.names):  # the same array was given twice
            self.names = [label for i, (label, _) in enumerate(self._labels) if i in self._places]
        for name, tensor in zip(self.names, self.tensors, strict=True):
            if tensor.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
                raise Unsupported(
                    f"input {name!r} has dtype {tensor.dtype}; it must be one that numpy knows"
                )

    def why_static(self) -> str:
        """Returns why the first axes cannot be one batch; "" when they can."""
        sizes = {int(one.shape[0]) for one in self.tensors if one.ndim}
        if len(sizes) == 1 and 0 not in sizes:
            return ""
        shapes = [tuple(one.shape) for one in self.tensors]
        return f"the inputs have no common batch: their shapes are {shapes}"

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """Returns the outputs by name; runs the module."""
        values = list(self._values)
        for place, tensor in zip(self._places, tensors, strict=True):
            values[place] = tensor
        kwargs = dict(zip(self._keys, values[self._n_args :], strict=True))
        found = dict(_flat("", self.module(*values[: self._n_args], **kwargs), self.what))
        if not found:
            raise Unsupported(f"{self.what} returns no tensor")
        return found

    def output_names(self) -> list[str]:
        """Returns the names of the outputs. Raises `Misuse` when the module cannot run."""
        import torch

        try:
            with torch.no_grad():
                return list(self(*self.tensors))
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            raise Misuse(f"{self.what} fails on the example inputs: {reason(error)}") from error

    def arrays(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Returns the outputs, in order, for numpy inputs in the order of the tensors."""
        import torch

        device = self.tensors[0].device
        with torch.no_grad():
            outputs = self(*(torch.from_numpy(one.copy()).to(device) for one in inputs.values()))
        return [_array(one) for one in outputs.values()]


def _labels(bound: inspect.BoundArguments) -> list[tuple[str, Any]]:
    labels: list[tuple[str, Any]] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            labels += [(f"{name}_{i}", one) for i, one in enumerate(value)]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            labels += list(value.items())
        else:
            labels.append((name, value))
    return labels


def _flat(name: str, value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """Yields the tensors in what a module returned, each with a name."""
    import torch

    parts: list[tuple[str, Any]]
    if isinstance(value, torch.Tensor):
        yield name or "output", value
        return
    if value is None:
        return
    if isinstance(value, Mapping):
        parts = [(str(key), one) for key, one in value.items()]
    elif hasattr(value, "_asdict"):
        parts = list(value._asdict().items())
    elif dataclasses.is_dataclass(value):
        parts = [(one.name, getattr(value, one.name)) for one in dataclasses.fields(value)]
    elif isinstance(value, tuple | list):
        parts = [(f"{name or 'output'}_{i}", one) for i, one in enumerate(value)]
        name = ""
    else:
        raise Unsupported(
            f"{what} returns {type(value).__name__} as {name or 'output'!r}; outputs must be "
            "tensors, or dicts, tuples or dataclasses of them"
        )
    for key, one in parts:
        yield from _flat(f"{name}_{key}" if name else key, one, what)


def _tensor(value: Any, device: Any) -> Any:
    import torch

    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(value.copy())
        except TypeError as error:
            raise Misuse(f"an example input has dtype {value.dtype}: {error}") from error
    if isinstance(value, torch.Tensor):
        return value.detach().to(device)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Misuse(
        f"an example input is a {type(value).__name__}: give tensors or numpy arrays, in a "
        "tuple or a dict"
    )


def _array(tensor: Any) -> NDArray[Any]:
    import torch

    plain = tensor.detach().cpu()
    return np.array((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())


def _given(names: Sequence[str] | None, derived: list[str], argument: str) -> list[str]:
    if names is None:
        return derived
    if isinstance(names, str) or len(names) != len(derived) or len(set(names)) != len(names):
        raise Misuse(f"{argument} must be {len(derived)} different names, got {names!r}")
    return list(names)


def _export(
    call: _Call,
    input_names: list[str],
    output_names: list[str],
    dynamic: bool,
    what: str,
) -> Model:
    """Returns the exported model. Raises `_BatchFixed` when only a dynamic batch fails."""
    import torch

    class Flat(torch.nn.Module):  # type: ignore[misc]
        """Tensors in, tuple of tensors out."""

        def __init__(self) -> None:
            super().__init__()
            self.network = call.module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return tuple(call(*tensors).values())

    tensors = tuple(call.tensors)
    shapes = None
    if dynamic:
        # An example batch of 1 would be taken for a constant.
        tensors = tuple(
            torch.cat([one, one]) if one.ndim and len(one) == 1 else one for one in tensors
        )
        batch = torch.export.Dim(_BATCH, min=1)
        shapes = (tuple({0: batch} if one.ndim else None for one in tensors),)
    try:
        program = torch.onnx.export(
            Flat().train(False),
            tensors,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=shapes,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        if dynamic:
            raise _BatchFixed(f"the exporter could not vary the batch: {reason(error)}") from error
        raise Unsupported(f"{what} cannot be exported to ONNX: {explain(error)}") from error
    graph = _own(program.model)
    name_interface(graph.graph, input_names, output_names)
    model = Model(canonical(graph, what))
    if dynamic and any(spec.shape[:1] not in ((), (_BATCH,)) for spec in model.signature.inputs):
        raise _BatchFixed(f"the exporter took the batch for a constant: {model.signature}")
    return model


def _own(graph: ir.Model) -> ir.Model:
    """Makes the graph independent of the module: own weights, own names, constants folded."""
    from onnxscript import optimizer

    parameters = set()
    for value in list(graph.graph.initializers.values()):
        if value.const_value is not None:
            copy = np.array(value.const_value.numpy())
            value.const_value = ir.Tensor(copy, dtype=value.const_value.dtype)
        assert value.name is not None
        value.name = value.name.removeprefix(_PREFIX)
        parameters.add(value)

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(value in parameters for value in node.inputs) else None

    optimizer.fold_constants(graph, should_fold=should_fold)
    return graph


def _verify(
    model: Model,
    call: _Call,
    examples: Mapping[str, NDArray[Any]],
    batches: Sequence[int | None],
    tolerance: float | None,
    what: str,
) -> dict[str, Any]:
    """Returns the notes on the agreement, or raises `Unsupported` with the figures."""
    names = [spec.name for spec in model.signature.outputs]
    samples = [
        random_like(examples, model.signature, size, seed=i) for i, size in enumerate(batches)
    ]
    expected: dict[int, dict[str, NDArray[Any]]] = {}
    for sample in samples:
        try:
            expected[id(sample)] = dict(zip(names, call.arrays(sample), strict=True))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = {name: one.shape for name, one in sample.items()}
            fault = f"{what} itself fails on random inputs of shapes {shapes}: {reason(error)}"
            if batches == _BATCHES_CHECKED:
                raise _BatchFixed(fault) from error
            raise Unsupported(f"{fault}; pass check=False if these inputs mean nothing") from error
    agreement: Agreement = compare(model, lambda sample: expected[id(sample)], samples)
    half = any(one.dtype == np.float16 for one in examples.values())
    limit = tolerance if tolerance is not None else (1e-2 if half else 1e-4)
    if agreement.max_rel > limit and agreement.max_abs > _NOISE:
        raise Unsupported(
            f"the exported model disagrees with {what}: output {agreement.worst!r} differs by "
            f"{agreement.max_rel:.3g} of its largest magnitude ({agreement.max_abs:.3g} in "
            f"absolute terms; {limit:.3g} is accepted); is the module random or stateful when "
            "it runs? A larger tolerance accepts it"
        )
    return {
        "export_max_abs_difference": agreement.max_abs,
        "export_max_rel_difference": agreement.max_rel,
    }


@contextlib.contextmanager
def _undisturbed(module: Any) -> Iterator[None]:
    """Puts the module in evaluation mode, and afterwards everything back as it was."""
    import torch

    modes = [(one, one.training) for one in module.modules()]
    buffers = [(one, one.detach().clone()) for one in module.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            module.train(False)
            yield
    finally:
        for one, mode in modes:
            one.training = mode
        with torch.no_grad():
            for one, before in buffers:
                one.copy_(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's warnings and notes about itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
