# SPDX-License-Identifier: Apache-2.0
"""PyTorch, running any Model through its lifted module.

On a CPU it is there to be asked for by name and is not raced by default: PyTorch takes
seconds to import and about twice the memory, dispatches each node from Python, and runs an
int8 graph as floats that are rounded, so each race would spend its budget on an engine that
is no one's choice for serving. On a CUDA device nothing else here competes, so there
"torch:cuda" is offered; eager and in float32 alone, since compiling a large network takes
minutes, and bfloat16 would make the baseline, the fastest run of the original, inexact.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import Any, ClassVar, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse, Unsupported, unknown
from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.engines.engine import Engine, Session
from burnish.engines.hardware import hardware
from burnish.engines.refusal import refusal
from burnish.engines.torch_settings import TF32, THREADS, use_tf32, use_threads

# What may follow the name, the default first: "torch:cuda:compiled:bfloat16".
_OPTIONS = {
    "device": ("cpu", "cuda"),
    "mode": ("eager", "compiled"),
    "precision": ("float32", "bfloat16"),
}
_FAILURES = (RuntimeError, ValueError, IndexError, TypeError)


class TorchLifted(Engine):
    """Runs any Model in PyTorch, as `torch`, `torch:cuda`, `torch:cuda:compiled:bfloat16`, ….

    `mode` "compiled" is torch.compile: it compiles at the first run, and again for the
    first other batch size, which then serves them all. `precision` "bfloat16" is
    autocast: products and convolutions in bfloat16, the rest as the graph says.
    "float32" computes in full, never in TF32. On "cuda" the threads of a setting are those
    of the work that stays on the host. Raises `Misuse` for an unknown option.
    """

    name = "torch"
    extra: ClassVar[str | None] = "train"

    def __init__(
        self, mode: str = "eager", device: str = "cpu", precision: str = "float32"
    ) -> None:
        given = {"device": device, "mode": mode, "precision": precision}
        for option, word in given.items():
            if word not in _OPTIONS[option]:
                raise unknown(f"{option} of the engine torch", word, _OPTIONS[option])
        self.mode, self.device, self.precision = mode, device, precision
        words = [word for option, word in given.items() if word != _OPTIONS[option][0]]
        self.name = ":".join([type(self).name, *words])

    @classmethod
    def version(cls) -> str | None:
        """Returns the installed version, from the package's metadata."""
        try:
            return metadata.version("torch")
        except metadata.PackageNotFoundError:
            return None

    @classmethod
    def variant(cls, words: Sequence[str]) -> Self:
        """Returns the engine with the options of these words, in any order.

        Raises `Misuse` for a word that is no option's, or two of one option.
        """
        given: dict[str, str] = {}
        for word in words:
            option = next((one for one, known in _OPTIONS.items() if word in known), None)
            if option is None:
                known = [one for words in _OPTIONS.values() for one in words]
                raise unknown("variant of the engine torch", word, known)
            if option in given:
                raise Misuse(
                    f"the engine torch has one {option}, got {given[option]!r} and {word!r}"
                )
            given[option] = word
        return cls(**given)

    @classmethod
    def offered(cls) -> Sequence[Engine]:
        """Returns "torch:cuda" where there is a CUDA device that PyTorch can use."""
        if not hardware().gpus:  # known without importing PyTorch, which takes seconds
            return ()
        import torch

        return (cls(device="cuda"),) if torch.cuda.is_available() else ()

    @property
    def identity(self) -> str:
        """Name, version, device, mode and precision, as recorded with every measurement."""
        return f"{self.name} {self.version()} ({self.device}, {self.mode}, {self.precision})"

    def refusals(self, model: Model) -> tuple[Skipped, ...]:
        """Returns the nodes and values that the lift does not know. Raises `Missing`."""
        _import_torch(self)
        from burnish.graph.lift.module import refusals

        return refusals(model)

    def open(self, model: Model, setting: Setting) -> Session:
        """Returns a session.

        Raises `Missing` without PyTorch, and `Unsupported`: naming the nodes that have no
        lift, without a CUDA device for "cuda", or without what "compiled" compiles with.
        """
        torch = _import_torch(self)
        from burnish.graph.lift.module import lift

        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unsupported(
                f"{self.identity} needs a CUDA device, and PyTorch {torch.__version__} sees "
                "none: install NVIDIA's driver and a CUDA build of PyTorch, or use another engine"
            )
        if self.mode == "compiled":
            self._need_compiler()
        try:
            module = lift(model).requires_grad_(False).to(self.device)
            return _LiftedSession(self, model, setting, torch, module)
        except _FAILURES as error:
            raise refusal(self.identity, model, "load", error) from error

    def _need_compiler(self) -> None:
        """Raises `Unsupported` without what torch.compile makes its programs with."""
        if self.device == "cuda":
            if find_spec("triton") is None:
                raise Unsupported(
                    f"{self.identity} needs the package 'triton', which is not installed: "
                    "pip install triton, or leave out 'compiled'"
                )
            if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
                raise Unsupported(
                    f"{self.identity} needs a C compiler, and neither gcc nor clang is found: "
                    "install one, name one in the variable CC, or leave out 'compiled'"
                )
            return
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        compiler = os.environ.get("CXX") or usual
        if shutil.which(compiler) is None:
            raise Unsupported(
                f"{self.identity} needs a C++ compiler, and {compiler!r} is not found: "
                "install it, name another in the variable CXX, or leave out 'compiled'"
            )


class _LiftedSession(Session):
    def __init__(
        self, engine: TorchLifted, model: Model, setting: Setting, torch: Any, module: Any
    ) -> None:
        from burnish.graph.lift.dtypes import torch_dtype

        self.engine = engine.identity
        self.signature = model.signature
        self.setting = setting
        self._model = model
        self._torch = torch
        self._device = engine.device
        self._half = engine.precision == "bfloat16"
        self._outputs = [
            (spec.name, one, torch_dtype(one))
            for spec in model.signature.outputs
            for one in [ir.DataType.from_numpy(np.dtype(spec.dtype))]
        ]
        self._call: Any = _compiled(torch, module) if engine.mode == "compiled" else module
        self._held = [TF32, THREADS] if engine.device == "cuda" else [THREADS]
        for one in self._held:
            one.hold(torch)

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        call, torch = self._call, self._torch
        if call is None:
            raise Misuse(f"this {self.engine} session is closed: open another")
        from burnish.graph.lift.dtypes import as_array

        use_threads(torch, self.setting.threads)
        if self._device == "cuda":
            use_tf32(torch, (False, False))
        half = torch.autocast(self._device, torch.bfloat16) if self._half else _AS_IT_IS
        try:
            with torch.inference_mode(), half:
                given = {name: self._tensor(array) for name, array in inputs.items()}
                made = call(given)
                # Copied, since an output may be an input or a constant of the graph.
                return {
                    name: as_array(made[name].to(kind), dtype)
                    for name, dtype, kind in self._outputs
                }
        except _FAILURES as error:
            raise refusal(self.engine, self._model, "run", error) from error

    def close(self) -> None:
        if self._call is None:
            return
        self._call = None
        for one in self._held:
            one.release(self._torch)
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def _tensor(self, array: NDArray[Any]) -> Any:
        if array.dtype.isbuiltin == 1:
            ready = np.require(array, requirements=("C", "W"))
            return self._torch.from_numpy(ready).to(self._device)
        from burnish.graph.lift.dtypes import as_tensor

        return as_tensor(ir.tensor(array)).to(self._device)


_AS_IT_IS = contextlib.nullcontext()


def _compiled(torch: Any, module: Any) -> Any:
    """Returns the module compiled, on a code object of its own.

    torch.compile keeps what it compiles with the function's code, a few versions of each:
    sessions that shared the code would use up that number, and outlive their closing.
    """

    def run(inputs: Any) -> Any:
        return module(inputs)

    run.__code__ = run.__code__.replace()
    return torch.compile(run)


def _import_torch(engine: TorchLifted) -> Any:
    try:
        import torch
    except ImportError as error:
        raise Missing(f"the engine {engine.name}", "torch", engine.extra) from error
    return torch
