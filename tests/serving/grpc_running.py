# SPDX-License-Identifier: Apache-2.0
"""A gRPC server in this process, over small models on ONNX Runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as client
from onnx import TensorProto, helper
from small_models import make

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.engines.engine import Session
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.serving.admission import Limits
from burnish.serving.batching import Batching
from burnish.serving.grpc_service.server import GrpcServer
from burnish.serving.model_options import ModelOptions
from burnish.serving.repository import Repository
from burnish.serving.rows import Rows
from burnish.serving.served_model import ServedModel

ELEMENTS = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}  # fmt: skip
"""The datatypes that a model on ONNX Runtime can pass on, with ONNX's numbers for them."""


def identity(datatype: str) -> Model:
    """Returns a model that answers y = x, both (batch, 3)."""
    element = ELEMENTS[datatype]
    return make(
        [helper.make_node("Identity", ["x"], ["y"], "same")],
        [("x", element, ["batch", 3])],
        [("y", element, ["batch", 3])],
    )


def doubled() -> Model:
    """Returns a model with two outputs: scores = 2 x (batch, 3), and most (batch)."""
    return make(
        [
            helper.make_node("Add", ["x", "x"], ["scores"], "add"),
            helper.make_node("ArgMax", ["x"], ["most"], "most_of", axis=1, keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("scores", TensorProto.FLOAT, ["batch", 3]), ("most", TensorProto.INT64, ["batch"])],
    )


def example(datatype: str) -> np.ndarray:
    """Returns an array (2, 3) with the datatype's extremes."""
    if datatype == "BYTES":
        return np.array([["é".encode(), b"", b"a"], [b"abc", b"\xff\0", b"x" * 300]], object)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, True, True]])
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        dtype = ml_dtypes.bfloat16 if datatype == "BF16" else np.dtype(f"f{int(datatype[2:]) // 8}")
        return np.array([[0, -1.5, np.nan], [np.inf, 0.1, -0.0]]).astype(dtype)
    dtype = np.dtype(datatype.lower())
    limits = np.iinfo(dtype)
    return np.array([[0, 1, limits.max], [limits.min, 5, 7]], dtype)


class Held(Session):
    """A session whose runs wait until they are let go; `runs` counts them."""

    def __init__(self, inner: Session) -> None:
        self.signature, self.setting, self.engine = inner.signature, inner.setting, inner.engine
        self.go, self.began, self.runs = threading.Event(), threading.Event(), 0
        self._inner = inner

    def execute(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.runs += 1
        self.began.set()
        assert self.go.wait(30)
        return self._inner.execute(inputs)


class Failing(Session):
    """A session that fails with a detail that is nobody's business."""

    def __init__(self, inner: Session) -> None:
        self.signature, self.setting, self.engine = inner.signature, inner.setting, inner.engine

    def execute(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise ValueError("secret detail")


@dataclass
class Running:
    """The server with what it runs on."""

    url: str
    repository: Repository
    server: GrpcServer
    sessions: dict[str, Session]

    async def ask(self, question: Callable[[Any], Any], **options: Any) -> Any:
        """Returns what a blocking client answers to a question, asked on a thread."""

        def asked() -> Any:
            with client.InferenceServerClient(self.url, **options) as one:
                return question(one)

        return await asyncio.to_thread(asked)


@asynccontextmanager
async def running(
    models: Mapping[str, Model] | None = None,
    wrap: Mapping[str, Callable[[Session], Session]] | None = None,
    labels: tuple[str, ...] = (),
    table: Sequence[tuple[int, float]] = ((1, 1.0), (8, 2.0)),
    queue: int = 1024,
    **options: Any,
) -> AsyncIterator[Running]:
    """Serves models, as "name" or "name:version", while the block runs."""
    models = models or {"double": doubled()}
    sessions: dict[str, Session] = {}

    async def open_(one: ModelOptions) -> ServedModel:
        model = models.get(f"{one.name}:{one.version}") or models[one.name]
        session = OnnxRuntime().open(model, Setting(threads=1, streams=1))
        session = (wrap or {}).get(one.name, lambda inner: inner)(session)
        sessions[one.name] = session
        batching = Batching(streams=1, slo_ms=60_000.0, limits=Limits(queue))
        rows = Rows(session.signature)
        return ServedModel(one.name, one.version, session, rows, batching, list(table), 8, labels)

    configured = []
    for key in models:
        name, _, version = key.partition(":")
        configured.append(ModelOptions(Path(name), name, version or "1"))
    repository = Repository(configured, open_)
    await repository.start()
    server = GrpcServer(repository, "127.0.0.1", 0, **options)
    port = await server.start()
    try:
        yield Running(f"127.0.0.1:{port}", repository, server, sessions)
    finally:
        await server.stop(5.0)
        for session in sessions.values():
            if isinstance(session, Held):
                session.go.set()
        await repository.close()


def tensor(name: str, array: np.ndarray, datatype: str) -> Any:
    """Returns the client's input, its contents raw."""
    made = client.InferInput(name, list(array.shape), datatype)
    return made.set_data_from_numpy(array)


async def until(wanted: Callable[[], bool]) -> None:
    """Returns when something is so, within 10 seconds."""
    for _ in range(2000):
        if wanted():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about within 10 s")
