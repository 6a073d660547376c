# SPDX-License-Identifier: Apache-2.0
"""Inference over gRPC, asked by unmodified clients of the public protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio_client
from grpc_running import (
    ELEMENTS,
    Failing,
    Held,
    Running,
    doubled,
    example,
    identity,
    running,
    tensor,
    until,
)
from oip_messages import same
from tritonclient.grpc import service_pb2 as public
from tritonclient.utils import InferenceServerException

from burnish.engines.engine import Session

X = np.array([[1, 2, 3], [6, 5, 4]], np.float32)
METHOD = "/inference.GRPCInferenceService/ModelInfer"


async def call(one: Running, message: Any, **options: Any) -> Any:
    """Returns the answer to a message of the public protocol."""
    async with grpc.aio.insecure_channel(one.url) as channel:
        method = channel.unary_unary(
            METHOD,
            request_serializer=public.ModelInferRequest.SerializeToString,
            response_deserializer=public.ModelInferResponse.FromString,
        )
        return await method(message, **options)


def typed(**fields: Any) -> Any:
    contents = {"fp32_contents": X.ravel().tolist()}
    x = {"name": "x", "datatype": "FP32", "shape": X.shape, "contents": contents}
    return public.ModelInferRequest(**{"model_name": "double", "inputs": [x]} | fields)


async def refused(one: Running, code: str, **asked: Any) -> str:
    """Returns the message of what is refused with this status code."""
    asked = {"model_name": "double", "inputs": [tensor("x", X, "FP32")]} | asked
    with pytest.raises(InferenceServerException) as caught:
        await one.ask(lambda it: it.infer(**asked))
    assert caught.value.status() == f"StatusCode.{code}"
    return str(caught.value.message())


@pytest.mark.parametrize("datatype", [one for one in ELEMENTS if one != "BYTES"])
def test_every_datatype(datatype: str) -> None:
    async def main() -> None:
        async with running({"same": identity(datatype)}) as one:
            sent = example(datatype)
            got = await one.ask(lambda it: it.infer("same", [tensor("x", sent, datatype)]))
            assert same(got.as_numpy("y"), sent)

    asyncio.run(main())


class Echo(Session):
    """A session that answers y = x, whatever x is."""

    def __init__(self, inner: Session) -> None:
        self.signature, self.setting, self.engine = inner.signature, inner.setting, inner.engine

    def execute(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"]}


def test_bytes() -> None:
    """Any bytes, as far as the session; what engines take is for them to say."""

    async def main() -> None:
        async with running({"same": identity("BYTES")}, wrap={"same": Echo}) as one:
            sent = example("BYTES")[:1]
            got = await one.ask(lambda it: it.infer("same", [tensor("x", sent, "BYTES")]))
            assert got.as_numpy("y").tolist() == sent.tolist()

    asyncio.run(main())


def test_raw_and_typed_contents_give_the_same() -> None:
    async def main() -> None:
        async with running() as one:
            raw = await one.ask(lambda it: it.infer("double", [tensor("x", X, "FP32")]))
            assert same(raw.as_numpy("scores"), X * 2)
            assert raw.as_numpy("most").tolist() == [2, 0]
            answer = client.InferResult(await call(one, typed()))
            assert same(answer.as_numpy("scores"), X * 2)
            wanted = {"binary_data_output": public.InferParameter(bool_param=False)}
            answer = await call(one, typed(parameters=wanted))
            assert not answer.raw_output_contents
            assert list(answer.outputs[0].contents.fp32_contents) == (X * 2).ravel().tolist()
            assert list(answer.outputs[1].contents.int64_contents) == [2, 0]

    asyncio.run(main())


def test_id_version_and_requested_outputs() -> None:
    async def main() -> None:
        async with running({"double:1": doubled(), "double:2": doubled()}) as one:
            x, most = [tensor("x", X, "FP32")], [client.InferRequestedOutput("most")]
            got = await one.ask(lambda it: it.infer("double", x, outputs=most, request_id="é7"))
            answer = got.get_response()
            assert [output.name for output in answer.outputs] == ["most"]
            assert (answer.id, answer.model_name, answer.model_version) == ("é7", "double", "2")
            got = await one.ask(lambda it: it.infer("double", x, "1"))
            assert got.get_response().model_version == "1"

    asyncio.run(main())


def test_classification() -> None:
    async def main() -> None:
        async with running(labels=("cat", "dog", "eel")) as one:
            top = [client.InferRequestedOutput("scores", class_count=2)]
            x = [tensor("x", X, "FP32")]
            got = await one.ask(lambda it: it.infer("double", x, outputs=top))
            assert got.as_numpy("scores").tolist() == [
                [b"6.0:2:eel", b"4.0:1:dog"],
                [b"12.0:0:cat", b"10.0:1:dog"],
            ]
            four = [client.InferRequestedOutput("scores", class_count=4)]
            assert "at most 3" in await refused(one, "INVALID_ARGUMENT", outputs=four)

    asyncio.run(main())


def test_what_is_refused() -> None:
    async def main() -> None:
        async with running(max_message_bytes=100_000) as one:
            assert "unknown model" in await refused(one, "NOT_FOUND", model_name="dubble")
            assert "no version" in await refused(one, "NOT_FOUND", model_version="9")
            wide = [tensor("x", np.zeros((2, 4), np.float32), "FP32")]
            assert "shape" in await refused(one, "INVALID_ARGUMENT", inputs=wide)
            whole = [tensor("x", X.astype(np.int64), "INT64")]
            assert "dtype float32" in await refused(one, "INVALID_ARGUMENT", inputs=whole)
            assert "missing input" in await refused(one, "INVALID_ARGUMENT", inputs=[])
            other = [client.InferRequestedOutput("z")]
            assert "scores, most" in await refused(one, "INVALID_ARGUMENT", outputs=other)
            large = [tensor("x", np.zeros((10_000, 3), np.float32), "FP32")]
            assert "larger" in await refused(one, "RESOURCE_EXHAUSTED", inputs=large)
            assert "timeout" in await refused(one, "INVALID_ARGUMENT", timeout=-1)
            long = [tensor("é" * 5000, X, "FP32")]
            assert "é" in await refused(one, "INVALID_ARGUMENT", inputs=long)
            with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
                async with grpc.aio.insecure_channel(one.url) as channel:
                    await channel.unary_unary(METHOD.replace("ModelInfer", "ModelFly"))(b"")
            assert one.repository.find("double").counts.answered == 0

    asyncio.run(main())


def test_a_failure_gives_no_detail() -> None:
    async def main() -> None:
        async with running(wrap={"double": Failing}) as one:
            said = await refused(one, "INTERNAL")
            assert "secret" not in said
            assert one.repository.find("double").counts.failed == 1

    asyncio.run(main())


def test_the_models_latency_bounds_the_deadline() -> None:
    """A timeout, or the call's own deadline, that cannot be met is refused at once."""

    async def main() -> None:
        async with running(table=[(1, 5_000.0)]) as one:
            began_s = time.monotonic()
            said = await refused(one, "DEADLINE_EXCEEDED", timeout=1_000_000)
            assert "deadline" in said
            said = await refused(one, "DEADLINE_EXCEEDED", client_timeout=3.0)
            assert "too short even without a queue" in said
            assert time.monotonic() - began_s < 2.5
            await one.ask(lambda it: it.infer("double", [tensor("x", X[:1], "FP32")], timeout=0))

    asyncio.run(main())


def test_a_full_queue_says_when_to_ask_again() -> None:
    async def main() -> None:
        async with running(wrap={"double": Held}, queue=1) as one:
            model = one.repository.find("double")
            waiting = [asyncio.create_task(call(one, typed())) for _ in range(3)]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            (over,) = done
            error = over.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert int(dict(error.trailing_metadata())["retry-after-ms"]) >= 0
            assert model.counts.rejections == {"count": 1}
            one.sessions["double"].go.set()  # type: ignore[attr-defined]
            await asyncio.gather(*(set(waiting) - done))

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_who_goes_away_leaves_the_queue(how: str) -> None:
    async def main() -> None:
        async with running(wrap={"double": Held}) as one:
            model, session = one.repository.find("double"), one.sessions["double"]
            first = asyncio.create_task(call(one, typed()))
            await until(lambda: session.runs == 1)
            limit = {"timeout": 0.5} if how == "deadline" else {}
            second = asyncio.create_task(call(one, typed(), **limit))
            await until(lambda: model.in_flight == 2)
            if how == "cancel":
                second.cancel()
            await until(lambda: model.in_flight == 1 and model.waiting == 0)
            with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)) as caught:
                await second
            if how == "deadline":
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            session.go.set()
            await first
            assert session.runs == 1
            assert model.counts.cancelled + model.counts.rejections.total() == 1

    asyncio.run(main())


def test_many_at_once_share_batches() -> None:
    """The asynchronous client; each gets its own rows."""

    async def main() -> None:
        async with running() as one, aio_client.InferenceServerClient(one.url) as it:
            arrays = [np.full((1 + i % 3, 3), i, np.float32) for i in range(60)]
            answers = await asyncio.gather(
                *(it.infer("double", [async_tensor(array)]) for array in arrays)
            )
            for array, answer in zip(arrays, answers, strict=True):
                assert same(answer.as_numpy("scores"), array * 2)
            counts = one.repository.find("double").counts
            assert counts.answered == counts.stages["total"].n == counts.stages["respond"].n == 60
            assert counts.batches.total() < 120  # the rows

    asyncio.run(main())


def async_tensor(array: np.ndarray) -> Any:
    return aio_client.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
