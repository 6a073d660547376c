# SPDX-License-Identifier: Apache-2.0
"""PyTorch, running the user's own module eagerly: the source framework's baseline."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.engines.engine import Engine, Session
from burnish.engines.torch_settings import THREADS, use_threads


class TorchEager(Engine):
    """Runs one module in evaluation mode; module and thread count are put back afterwards.

    It is made from Python with the module, so it is not registered: the name "torch" stands
    for `engines.torch_lifted`, which runs any Model.

    Outputs are matched by position with the tensors in what the module returns (tuples,
    lists, dicts and dataclasses, in order). `open` takes a Model for its signature alone.
    """

    name = "torch"
    extra: ClassVar[str | None] = "train"

    def __init__(
        self, module: Any, input_names: Sequence[str], output_names: Sequence[str]
    ) -> None:
        self.module = module
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self._modes: list[tuple[Any, bool]] = []
        self._sessions = 0
        self._lock = threading.Lock()

    @classmethod
    def version(cls) -> str | None:
        """Returns the installed version, from the package's metadata."""
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            return None

    def refusals(self, model: Model) -> tuple[Skipped, ...]:
        """Returns what in the model's signature is not the module's."""
        wanted = {spec.name for spec in (*model.signature.inputs, *model.signature.outputs)}
        return tuple(
            Skipped(name, f"the module {type(self.module).__name__} has no such input or output")
            for name in sorted(wanted - {*self.input_names, *self.output_names})
        )

    def open(self, model: Model, setting: Setting) -> Session:
        """Returns a session of the module. Raises `Unsupported` when it is not on the CPU."""
        try:
            import torch
        except ImportError as error:
            raise Missing(f"the engine {self.name}", "torch", self.extra) from error
        if refused := self.refusals(model):
            raise Unsupported("; ".join(f"{one.place}: {one.reason}" for one in refused))
        for name, tensor in (*self.module.named_parameters(), *self.module.named_buffers()):
            if tensor.device.type != "cpu":
                raise Unsupported(
                    f"{self.identity} runs on the CPU, but {name} {list(tensor.shape)} is on "
                    f"{tensor.device}: move the module with module.cpu()"
                )
        with self._lock:
            if self._sessions == 0:
                self._modes = [(one, one.training) for one in self.module.modules()]
                self.module.eval()
            self._sessions += 1
        THREADS.hold(torch)
        return _TorchSession(self, model, setting, torch)

    def _closed(self, torch: Any) -> None:
        THREADS.release(torch)
        with self._lock:
            self._sessions -= 1
            if self._sessions == 0:
                for module, training in self._modes:
                    module.training = training
                self._modes = []


class _TorchSession(Session):
    def __init__(self, engine: TorchEager, model: Model, setting: Setting, torch: Any) -> None:
        self.engine = engine.identity
        self.signature = model.signature
        self.setting = setting
        self._torch = torch
        self._engine: TorchEager | None = engine
        parameters = inspect.signature(engine.module.forward).parameters.values()
        by_name = {one.name for one in parameters if one.kind is not one.POSITIONAL_ONLY}
        # Names that the user made up ("image" for forward(x)) are matched by position.
        self._by_name = by_name.issuperset(engine.input_names)

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        engine, torch = self._engine, self._torch
        if engine is None:
            raise Misuse(f"this {self.engine} session is closed: open another")
        use_threads(torch, self.setting.threads)
        tensors = {
            name: torch.from_numpy(array if array.flags.writeable else array.copy())
            for name, array in ((name, inputs[name]) for name in engine.input_names)
        }
        try:
            with torch.inference_mode():
                if self._by_name:
                    result = engine.module(**tensors)
                else:
                    result = engine.module(*tensors.values())
        except RuntimeError as error:
            raise Unsupported(f"{self.engine} cannot run the module: {error}") from error
        outputs = list(_tensors(result, torch.Tensor))
        if len(outputs) != len(engine.output_names):
            raise Misuse(
                f"{type(engine.module).__name__} gave {len(outputs)} tensors, but "
                f"{len(engine.output_names)} outputs are named: {list(engine.output_names)}"
            )
        # Copied, since a module may return its input or a buffer of its own.
        return {
            name: np.array(output.detach().numpy())
            for name, output in zip(engine.output_names, outputs, strict=True)
        }

    def close(self) -> None:
        if self._engine is not None:
            self._engine._closed(self._torch)
            self._engine = None


def _tensors(value: Any, kind: type) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
        return
    parts: Sequence[Any] = ()
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, tuple | list):
        parts = value
    elif dataclasses.is_dataclass(value):
        parts = [getattr(value, one.name) for one in dataclasses.fields(value)]
    for part in parts:
        yield from _tensors(part, kind)
