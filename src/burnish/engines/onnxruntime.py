# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse
from burnish.core.model import Model
from burnish.core.technique import Skipped
from burnish.engines.engine import Engine, Session
from burnish.engines.refusal import foreign_nodes, refusal

_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft"})
# The runtime is published under several names; each gives the same module.
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_ERROR_ONLY = 3
_SPIN_US = 2000


class OnnxRuntime(Engine):
    """Runs any Model on the CPU; one session serves all streams."""

    name = "onnxruntime"

    @classmethod
    def version(cls) -> str | None:
        """Returns the installed version, from the package's metadata."""
        for package in _PACKAGES:
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return None

    def refusals(self, model: Model) -> tuple[Skipped, ...]:
        """Returns the nodes of operator domains that the runtime does not have."""
        return foreign_nodes(model, _DOMAINS, self.name)

    def open(self, model: Model, setting: Setting) -> Session:
        """Returns a session. Raises `Unsupported`, naming node and operator where known."""
        try:
            import onnxruntime
        except ImportError as error:
            raise Missing(f"the engine {self.name}", "onnxruntime") from error
        # Elsewhere `burnish/__init__.py` has seen to it; on Windows only this does.
        onnxruntime.disable_telemetry_events()
        payload = model.payload()
        source = str(payload) if isinstance(payload, Path) else payload
        try:
            running = onnxruntime.InferenceSession(
                source, _options(setting), providers=["CPUExecutionProvider"]
            )
        except _errors() as error:
            raise refusal(self.identity, model, "load", error) from error
        return _OnnxRuntimeSession(self.identity, model, setting, running)


class _OnnxRuntimeSession(Session):
    def __init__(self, engine: str, model: Model, setting: Setting, running: Any) -> None:
        self.engine = engine
        self.signature = model.signature
        self.setting = setting
        self._model = model
        self._running = running
        self._names = [spec.name for spec in model.signature.outputs]
        self._errors = _errors()

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._running is None:
            raise Misuse(f"this {self.engine} session is closed: open another")
        try:
            outputs = self._running.run(self._names, dict(inputs))
        except self._errors as error:
            raise refusal(self.engine, self._model, "run", error) from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._running = None


def _options(setting: Setting) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERROR_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.inter_op_num_threads = 1
    # The calling thread is one of them; concurrent calls share the others.
    options.intra_op_num_threads = setting.threads
    # Workers that wait for the next operator may spin or sleep. Spinning makes one request
    # of a small network about 1.4 to 1.6 times as fast on 2 threads, but by default goes on
    # for some 30 ms after a request, and takes the core from whoever comes next. So it is
    # kept, and bounded. Several streams keep every core busy anyway: there it only harms.
    spins = setting.streams == 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    return options


def _errors() -> tuple[type[Exception], ...]:
    """Returns the runtime's exceptions, which share no parent but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.EPFail,
        state.EngineError,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        RuntimeError,  # raised by the binding, for types that numpy lacks
    )
