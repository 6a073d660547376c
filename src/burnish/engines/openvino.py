# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU.

A compiled model of a fixed batch size is 11 to 16 % faster at batch 1 than one of any
batch size (small and mid-size CNNs), and 2 to 5 % at batch 8. So each batch size gets a
compiled model of its own when it is first seen, up to `_BATCH_SIZES` of them, since each
holds its own copy of the weights; later ones share a single dynamic one.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse
from burnish.core.model import Model, Signature
from burnish.core.technique import Skipped
from burnish.engines.engine import Engine, Session
from burnish.engines.refusal import foreign_nodes, refusal

_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "org.openvinotoolkit"})
_BATCH_SIZES = 8
_DYNAMIC = 0


class OpenVino(Engine):
    """Runs any Model on the CPU, one inference request for each stream."""

    name = "openvino"
    extra: ClassVar[str | None] = "openvino"

    @classmethod
    def version(cls) -> str | None:
        """Returns the installed version, from the package's metadata."""
        try:
            return metadata.version("openvino")
        except metadata.PackageNotFoundError:
            return None

    def refusals(self, model: Model) -> tuple[Skipped, ...]:
        """Returns the nodes of operator domains that the runtime does not have."""
        return foreign_nodes(model, _DOMAINS, self.name)

    def open(self, model: Model, setting: Setting) -> Session:
        """Returns a session, compiled for batch size 1 where the batch size is free.

        Raises `Unsupported`, naming node and operator where known.
        """
        package = _import_openvino(self)
        core = package.Core()
        payload = model.payload()
        source = str(payload) if isinstance(payload, Path) else payload
        try:
            graph = core.read_model(source)
        except (RuntimeError, TypeError, ValueError) as error:
            raise refusal(self.identity, model, "load", error) from error
        return _OpenVinoSession(self.identity, model, setting, package, core, graph)


class _OpenVinoSession(Session):
    def __init__(
        self, engine: str, model: Model, setting: Setting, package: Any, core: Any, graph: Any
    ) -> None:
        self.engine = engine
        self.signature = model.signature
        self.setting = setting
        self._model = model
        self._tensor = package.Tensor
        self._core = core
        self._graph = graph
        self._outputs = list(enumerate(spec.name for spec in model.signature.outputs))
        self._names = [spec.name for spec in model.signature.inputs]
        self._batched = _only_batch_is_free(model.signature)
        self._pools: dict[int, queue.SimpleQueue[Any]] = {}
        self._compiling = threading.Lock()
        # Compiling is the real test of whether the model can be run.
        self._pool(1 if self._batched else _DYNAMIC)

    def execute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self._core is None:
            raise Misuse(f"this {self.engine} session is closed: open another")
        arrays = [_borrowable(inputs[name]) for name in self._names]
        batch = arrays[0].shape[0] if self._batched else _DYNAMIC
        pool = self._pools.get(batch) or self._pool(batch)
        request = pool.get()
        try:
            # The request reads the arrays where they are; they live until it has run.
            for position, array in enumerate(arrays):
                request.set_input_tensor(position, self._tensor(array, shared_memory=True))
            request.infer()
            return {
                name: np.array(request.get_output_tensor(position).data)
                for position, name in self._outputs
            }
        except RuntimeError as error:
            raise refusal(self.engine, self._model, "run", error) from error
        finally:
            pool.put(request)

    def close(self) -> None:
        self._pools = {}
        self._core = self._graph = None

    def _pool(self, batch: int) -> queue.SimpleQueue[Any]:
        """Returns the requests for a batch size, compiling the model when there are none."""
        with self._compiling:
            if batch not in self._pools and len(self._pools) >= _BATCH_SIZES:
                batch = _DYNAMIC
            if batch not in self._pools:
                self._pools[batch] = self._compile(batch)
            return self._pools[batch]

    def _compile(self, batch: int) -> queue.SimpleQueue[Any]:
        graph = self._graph
        try:
            if batch != _DYNAMIC:
                graph = graph.clone()
                graph.reshape(
                    {
                        position: [batch, *(int(size or 0) for size in spec.shape[1:])]
                        for position, spec in enumerate(self.signature.inputs)
                    }
                )
            compiled = self._core.compile_model(graph, "CPU", _properties(self.setting))
            pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(self.setting.streams):
                pool.put(compiled.create_infer_request())
        except RuntimeError as error:
            raise refusal(self.engine, self._model, "load", error) from error
        return pool


_IMPORTING = threading.Lock()


def _import_openvino(engine: OpenVino) -> Any:
    """Returns the package, imported so that it does not report home.

    Importing it sends an event through its telemetry package, and it has no switch for
    that; but it goes without the package when that cannot be found.
    """
    with _IMPORTING:
        hidden = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
        if hidden:
            sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import openvino
        except ImportError as error:
            raise Missing(f"the engine {engine.name}", "openvino", engine.extra) from error
        finally:
            if hidden:
                del sys.modules["openvino_telemetry"]
        return openvino


def _properties(setting: Setting) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": setting.streams,
        # All streams together; each gets its share.
        "INFERENCE_NUM_THREADS": setting.threads * setting.streams,
        # Without this, a CPU with AMX or native fp16 lowers float models in silence.
        "INFERENCE_PRECISION_HINT": "f32",
        # Pinning gained nothing measurable, and two processes that each pin their first
        # thread to the first core would share it while the others idle.
        "ENABLE_CPU_PINNING": False,
    }


def _only_batch_is_free(signature: Signature) -> bool:
    """Returns whether every input has a free first dimension, one for all, and no other."""
    firsts = {spec.shape[0] if spec.shape else 0 for spec in signature.inputs}
    rest = [size for spec in signature.inputs for size in spec.shape[1:]]
    free = all(not isinstance(first, int) for first in firsts)
    return bool(firsts) and len(firsts) == 1 and free and all(isinstance(s, int) for s in rest)


def _borrowable(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the array itself when the runtime can read it in place, else a copy."""
    if array.flags.c_contiguous and array.flags.writeable:
        return array
    return array.copy(order="C")
