# SPDX-License-Identifier: Apache-2.0
"""The protocol's methods over the repository: the bytes of a request to those of its answer.

Nothing here knows of sockets: how long a client waits is an argument, and what goes wrong
is a `Fault` with an HTTP status.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version as installed_version
from typing import Any

from burnish.serving.asking import asked, labels_of
from burnish.serving.grpc_service import oip_pb2 as oip
from burnish.serving.grpc_service.messages import (
    parse,
    read_request,
    write_response,
    written,
)
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.metadata import EXTENSIONS, model_config, model_metadata, server_metadata
from burnish.serving.oip.response import respond
from burnish.serving.oip.statistics import statistics_document
from burnish.serving.repository import Repository
from burnish.serving.served_model import ServedModel
from burnish.serving.statistics_of import statistics_of

NAME = "inference.GRPCInferenceService"
FORBIDDEN = 403

Document = dict[str, Any]
Method = Callable[[bytes, float], Awaitable[bytes]]
"""Takes a request, and the milliseconds for which its client waits, from now."""


class Service:
    """What each method answers. Used on the repository's event loop."""

    def __init__(self, repository: Repository, repository_control: bool = False) -> None:
        """`repository_control`: whether clients may load and unload models."""
        self.repository = repository
        self.repository_control = repository_control
        self._version = installed_version("burnish")
        documents: dict[str, Callable[[Any], Awaitable[Document]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_model_load,
            "RepositoryModelUnload": self._repository_model_unload,
        }
        self.methods: Mapping[str, Method] = {
            "ModelInfer": self.model_infer,
            **{name: _method(name, answer) for name, answer in documents.items()},
        }
        """By the name in the service's definition."""

    async def model_infer(self, body: bytes, waits_ms: float) -> bytes:
        """Answers ModelInfer; cancelling it takes the request out of the queue."""
        began_ms = _now_ms()
        message = parse(oip.ModelInferRequest, body)
        request = read_request(message)
        timeout_ms, priority = asked(request.parameters)
        served = await self.repository.get(message.model_name, message.model_version or None)
        request.wanted(served.output_names)
        # A model that has to be opened first takes its time.
        left_ms = min(timeout_ms, waits_ms) - (_now_ms() - began_ms)
        inputs = {tensor.name: tensor.array for tensor in request.inputs}
        answer = await served.submit(inputs, left_ms, priority)
        answered_ms = _now_ms()
        labels = labels_of(answer, served)
        response = respond(request, answer.outputs, served.name, served.version, labels)
        answered = write_response(response, raw=request.binary_outputs)
        ended_ms = _now_ms()
        served.counts.stages["respond"].add(ended_ms - answered_ms)
        served.counts.stages["total"].add(ended_ms - began_ms)
        return answered

    async def _server_live(self, request: oip.ServerLiveRequest) -> Document:
        return {"live": True}

    async def _server_ready(self, request: oip.ServerReadyRequest) -> Document:
        return {"ready": self.repository.ready}

    async def _model_ready(self, request: oip.ModelReadyRequest) -> Document:
        versions = self.repository.versions(request.name)
        return {"ready": request.version in versions if request.version else bool(versions)}

    async def _server_metadata(self, request: oip.ServerMetadataRequest) -> Document:
        return server_metadata(self._version, (*EXTENSIONS, "model_repository"))

    async def _model_metadata(self, request: oip.ModelMetadataRequest) -> Document:
        served = await self._served(request.name, request.version)
        versions = self.repository.versions(request.name)
        return model_metadata(served.name, served.signature, versions)

    async def _model_config(self, request: oip.ModelConfigRequest) -> Document:
        served = await self._served(request.name, request.version)
        batch_size = served.max_batch_size if served.rows.batched else 0
        streams = served.batching.streams
        return {"config": model_config(served.name, served.signature, batch_size, streams)}

    async def _model_statistics(self, request: oip.ModelStatisticsRequest) -> Document:
        asked = [
            served
            for served in self.repository.models()
            if request.name in ("", served.name) and request.version in ("", served.version)
        ]
        if request.name and not asked:
            asked = [self.repository.find(request.name, request.version or None)]
        return statistics_document(
            statistics_of(served.name, served.version, served.counts) for served in asked
        )

    async def _repository_index(self, request: oip.RepositoryIndexRequest) -> Document:
        listed = self.repository.index()
        return {"models": [one for one in listed if not request.ready or one["state"] == "READY"]}

    async def _repository_model_load(self, request: oip.RepositoryModelLoadRequest) -> Document:
        self._check_control()
        if request.parameters:
            raise Fault("a model is loaded as the server's configuration says: give no parameters")
        await self.repository.load(request.model_name)
        return {}

    async def _repository_model_unload(self, request: oip.RepositoryModelUnloadRequest) -> Document:
        self._check_control()
        await self.repository.unload(request.model_name)
        return {}

    async def _served(self, name: str, version: str) -> ServedModel:
        return await self.repository.get(name, version or None)

    def _check_control(self) -> None:
        if not self.repository_control:
            raise Fault("this server does not let clients load or unload models", FORBIDDEN)


def _method(name: str, answer: Callable[[Any], Awaitable[Document]]) -> Method:
    """Returns a method whose answer is a document, in protobuf's JSON form."""
    asked_as, answered_as = getattr(oip, f"{name}Request"), getattr(oip, f"{name}Response")

    async def method(body: bytes, waits_ms: float) -> bytes:
        return written(answered_as, await answer(parse(asked_as, body)))

    return method


def _now_ms() -> float:
    return time.perf_counter() * 1e3
