# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: what it says of itself, who may ask what, its limits, its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio_client
from certificates import own_certificate
from grpc_running import Held, Running, doubled, identity, running, tensor, until
from tritonclient.utils import InferenceServerException

import burnish
from burnish.core.errors import Misuse
from burnish.serving.grpc_service.server import GrpcServer

X = np.array([[1, 2, 3]], np.float32)
SERVICE = "/inference.GRPCInferenceService"


def infer(it: Any, **options: Any) -> Any:
    return it.infer("double", [tensor("x", X, "FP32")], **options)


async def code(one: Running, question: Any, **options: Any) -> str:
    """Returns the status code that a question is refused with."""
    with pytest.raises(InferenceServerException) as caught:
        await one.ask(question, **options)
    return str(caught.value.status()).removeprefix("StatusCode.")


def test_health() -> None:
    async def main() -> None:
        models = {"double:1": doubled(), "double:10": doubled()}
        async with running(models) as one, aio_client.InferenceServerClient(one.url) as it:
            assert await it.is_server_live()
            assert await it.is_server_ready()
            assert await it.is_model_ready("double")
            assert await it.is_model_ready("double", "10")
            assert not await it.is_model_ready("double", "2")
            assert not await it.is_model_ready("dubble")
            one.repository.ready = False
            assert await it.is_server_live()
            assert not await it.is_server_ready()

    asyncio.run(main())


def test_metadata_and_configuration() -> None:
    async def main() -> None:
        models = {"double:1": doubled(), "double:10": doubled(), "text": identity("BYTES")}
        async with running(models) as one:
            server = await one.ask(lambda it: it.get_server_metadata())
            assert (server.name, server.version) == ("burnish", burnish.__version__)
            assert "model_repository" in server.extensions
            model = await one.ask(lambda it: it.get_model_metadata("double"))
            assert (model.name, list(model.versions)) == ("double", ["1", "10"])
            assert [(x.name, x.datatype, list(x.shape)) for x in model.inputs] == [
                ("x", "FP32", [-1, 3])
            ]
            assert [(y.name, y.datatype, list(y.shape)) for y in model.outputs] == [
                ("scores", "FP32", [-1, 3]),
                ("most", "INT64", [-1]),
            ]
            config = (await one.ask(lambda it: it.get_model_config("text", "1"))).config
            assert (config.name, config.backend, config.max_batch_size) == ("text", "burnish", 8)
            types = client.model_config_pb2.DataType
            assert types.Name(config.input[0].data_type) == "TYPE_STRING"
            assert list(config.output[0].dims) == [3]
            kinds = client.model_config_pb2.ModelInstanceGroup.Kind
            assert kinds.Name(config.instance_group[0].kind) == "KIND_CPU"
            for question in ("get_model_metadata", "get_model_config"):
                asked = lambda it, q=question: getattr(it, q)("double", "3")  # noqa: E731
                assert await code(one, asked) == "NOT_FOUND"

    asyncio.run(main())


def test_statistics() -> None:
    async def main() -> None:
        async with running({"double:1": doubled(), "double:2": doubled()}) as one:
            for _ in range(3):
                await one.ask(infer)
            found = await one.ask(lambda it: it.get_inference_statistics("double", "2"))
            (model,) = found.model_stats
            assert (model.name, model.version) == ("double", "2")
            assert (model.inference_count, model.execution_count) == (3, 3)
            counted = model.inference_stats
            for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
                assert getattr(counted, stage).count == 3
            assert 0 < counted.compute_infer.ns < counted.success.ns
            assert [(row.batch_size, row.compute_infer.count) for row in model.batch_stats] == [
                (1, 3)
            ]
            for name, n in (("", 2), ("double", 2)):
                both = await one.ask(lambda it, name=name: it.get_inference_statistics(name))
                assert len(both.model_stats) == n
            unknown = lambda it: it.get_inference_statistics("dubble")  # noqa: E731
            assert await code(one, unknown) == "NOT_FOUND"

    asyncio.run(main())


def test_the_repository() -> None:
    async def main() -> None:
        models = {"double": doubled(), "other": doubled()}
        async with running(models, repository_control=True) as one:

            async def index() -> list[tuple[str, str, str]]:
                found = await one.ask(lambda it: it.get_model_repository_index())
                return [(x.name, x.version, x.state) for x in found.models]

            assert await index() == [("double", "1", "READY"), ("other", "1", "READY")]
            await one.ask(lambda it: it.unload_model("double"))
            assert await index() == [("double", "1", "UNAVAILABLE"), ("other", "1", "READY")]
            assert await code(one, infer) == "UNAVAILABLE"
            assert not await one.ask(lambda it: it.is_model_ready("double"))
            await one.ask(lambda it: it.load_model("double"))
            await one.ask(infer)
            assert await code(one, lambda it: it.load_model("dubble")) == "NOT_FOUND"
            changed = lambda it: it.load_model("double", config="{}")  # noqa: E731
            assert await code(one, changed) == "INVALID_ARGUMENT"

    asyncio.run(main())


def test_control_of_the_repository_has_to_be_allowed() -> None:
    async def main() -> None:
        async with running() as one:
            for question in ("load_model", "unload_model"):
                asked = lambda it, q=question: getattr(it, q)("double")  # noqa: E731
                assert await code(one, asked) == "PERMISSION_DENIED"
            await one.ask(infer)

    asyncio.run(main())


def test_tokens() -> None:
    async def main() -> None:
        async with running(tokens=("first", "second")) as one:
            assert await one.ask(lambda it: it.is_server_live())
            assert await one.ask(lambda it: it.is_server_ready())
            assert await one.ask(lambda it: it.is_model_ready("double"))
            for token in ("Bearer first", "bearer second"):
                await one.ask(lambda it, t=token: infer(it, headers={"authorization": t}))
            for headers in ({}, {"authorization": "Bearer firs"}, {"authorization": "first"}):
                asked = lambda it, h=headers: infer(it, headers=h)  # noqa: E731
                assert await code(one, asked) == "UNAUTHENTICATED"
            for method in ("get_server_metadata", "get_model_repository_index"):
                asked = lambda it, m=method: getattr(it, m)()  # noqa: E731
                assert await code(one, asked) == "UNAUTHENTICATED"

    asyncio.run(main())


def test_calls_a_second() -> None:
    async def main() -> None:
        async with running(rate_per_s=2.0) as one, grpc.aio.insecure_channel(one.url) as channel:
            asked = channel.unary_unary(f"{SERVICE}/ServerMetadata")
            live = channel.unary_unary(f"{SERVICE}/ServerLive")
            await asked(b"")
            await asked(b"")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asked(b"")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            wait_ms = int(dict(caught.value.trailing_metadata())["retry-after-ms"])
            assert 0 < wait_ms <= 500
            await live(b"")

    asyncio.run(main())


def test_tls(tmp_path: Path) -> None:
    key, certificate = own_certificate(tmp_path)

    async def main() -> None:
        async with running(certificate=certificate, key=key) as one:
            one.url = one.url.replace("127.0.0.1", "localhost")
            await one.ask(infer, ssl=True, root_certificates=str(certificate))
            with pytest.raises(InferenceServerException):
                await one.ask(lambda it: it.is_server_live(client_timeout=5.0))

    asyncio.run(main())


def test_tls_needs_both_files_and_reads_them(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="both"):
        GrpcServer(None, certificate=tmp_path)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(Misuse, match="cannot read"):
            async with running(certificate=tmp_path / "a.pem", key=tmp_path / "b.pem"):
                pass

    asyncio.run(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        async with running() as one:
            taken = GrpcServer(one.repository, "127.0.0.1", one.server.port)
            with pytest.raises(Misuse, match="grpc_port"):
                await taken.start()

    asyncio.run(main())


def test_connections_are_bounded() -> None:
    async def main() -> None:
        async with running(max_connections=2) as one:
            own = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(one.url, own) for _ in range(3)]
            for channel in channels[:2]:
                await asyncio.wait_for(channel.channel_ready(), 10)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(channels[2].channel_ready(), 0.5)
            for channel in channels:
                await channel.close()

    asyncio.run(main())


def test_calls_are_bounded() -> None:
    async def main() -> None:
        async with running(wrap={"double": Held}, max_calls=1) as one:
            first = asyncio.create_task(one.ask(infer))
            await until(lambda: one.repository.find("double").in_flight == 1)
            assert await code(one, infer) == "RESOURCE_EXHAUSTED"
            one.sessions["double"].go.set()  # type: ignore[attr-defined]
            await first

    asyncio.run(main())


def test_stopping_answers_what_is_under_way() -> None:
    async def main() -> None:
        async with running(wrap={"double": Held}) as one:
            first = asyncio.create_task(one.ask(infer))
            await until(lambda: one.repository.find("double").in_flight == 1)
            stopping = asyncio.create_task(one.server.stop(10.0))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            assert await code(one, lambda it: infer(it, client_timeout=2.0)) in (
                "UNAVAILABLE",
                "DEADLINE_EXCEEDED",
            )
            one.sessions["double"].go.set()  # type: ignore[attr-defined]
            answer = await first
            assert answer.as_numpy("scores").tolist() == (X * 2).tolist()
            await asyncio.wait_for(stopping, 5)
            await one.server.stop()  # again, as it may be

    asyncio.run(main())


def test_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop", reason="needs uvloop")

    async def main() -> None:
        async with running() as one:
            for _ in range(20):
                await one.ask(infer)

    uvloop.run(main())
