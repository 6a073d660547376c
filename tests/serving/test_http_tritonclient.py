# SPDX-License-Identifier: Apache-2.0
"""Triton's own clients against the server, unmodified: blocking, asynchronous, and in numbers."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from grpc_running import ELEMENTS, doubled, example
from shelf import Shelf, X, shelf
from small_models import two_inputs

from burnish.core.candidate import Setting
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.serving.http.policy import Policy

client = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
aio = pytest.importorskip("tritonclient.http.aio", reason="needs tritonclient[http]")
from tritonclient.utils import InferenceServerException  # noqa: E402


@pytest.fixture(scope="module")
def served() -> Iterator[Shelf]:
    with shelf(policy=Policy(repository_control=True)) as one:
        yield one


@pytest.fixture
def it(served: Shelf) -> Iterator[Any]:
    with client.InferenceServerClient(served.server.address, concurrency=4) as one:
        yield one


def given(array: np.ndarray, datatype: str, name: str = "x", binary: bool = True) -> Any:
    tensor = client.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def test_health_and_metadata(it: Any) -> None:
    assert it.is_server_live()
    assert it.is_server_ready()
    assert it.is_model_ready("double")
    assert it.is_model_ready("double", "9")
    assert not it.is_model_ready("double", "7")
    assert not it.is_model_ready("nope")
    assert it.get_server_metadata()["name"] == "burnish"
    assert it.get_model_metadata("double", "9")["versions"] == ["1", "9", "10"]
    assert it.get_model_config("pair")["input"][1]["data_type"] == "TYPE_BOOL"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", list(ELEMENTS))
def test_every_datatype(it: Any, datatype: str, binary: bool) -> None:
    array = example(datatype)
    if datatype == "BYTES":
        array = np.array([["é".encode(), b"", b"a"], [b"abc", b"\0z", b"x" * 300]], object)
    if datatype.startswith("FP") and not binary:
        array = np.nan_to_num(array, nan=2.0, posinf=1.0)
    wanted = client.InferRequestedOutput("y", binary_data=binary)
    result = it.infer(
        datatype.lower(), [given(array, datatype, binary=binary)], outputs=[wanted], request_id="é7"
    )
    got = result.as_numpy("y")
    assert got.dtype == array.dtype
    if datatype == "BYTES" and not binary:
        array = np.array([[one.decode() for one in row] for row in array], object)
    np.testing.assert_array_equal(got, array)
    assert result.get_response()["id"] == "é7"
    assert result.get_output("y")["datatype"] == datatype


def test_several_inputs_and_outputs(it: Any) -> None:
    ids, mask = np.array([[1, 2, 3]]), np.array([[True, False, True]])
    expected = OnnxRuntime().open(two_inputs(), Setting(1, 1)).run({"ids": ids, "mask": mask})
    inputs = [given(ids, "INT64", "ids"), given(mask, "BOOL", "mask", binary=False)]
    result = it.infer("pair", inputs)
    np.testing.assert_allclose(result.as_numpy("pooled"), expected["pooled"], rtol=1e-5)
    np.testing.assert_array_equal(result.as_numpy("answer"), expected["answer"])
    assert result.as_numpy("nope") is None


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("rows", [1, 3000])
def test_compression(
    it: Any, request_coding: str | None, response_coding: str | None, rows: int
) -> None:
    array = np.random.default_rng(0).random((rows, 3), np.float32)
    result = it.infer(
        "double",
        [given(array, "FP32")],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    np.testing.assert_array_equal(result.as_numpy("scores"), 2 * array)


def test_classification(it: Any) -> None:
    for binary in (True, False):
        wanted = client.InferRequestedOutput("scores", binary_data=binary, class_count=2)
        got = it.infer("double", [given(X, "FP32")], outputs=[wanted]).as_numpy("scores")
        texts = [one.decode() if isinstance(one, bytes) else one for one in got[0]]
        assert texts == ["10.0:1:dog", "6.0:2:owl"]


def test_parameters(it: Any) -> None:
    it.infer("double", [given(X, "FP32")], priority=3, timeout=10**7, parameters={"mine": "x"})
    with pytest.raises(InferenceServerException, match="reserved"):
        it.infer("double", [given(X, "FP32")], parameters={"timeout": 1})


@pytest.mark.parametrize(
    ("model", "version", "array", "datatype", "status", "text"),
    [
        ("nope", "", X, "FP32", "404", "unknown model"),
        ("double", "7", X, "FP32", "404", "no version '7'"),
        ("double", "", X.astype(np.int64), "INT64", "400", "must have dtype float32"),
        ("double", "", X[:, :2], "FP32", "400", "must have shape"),
    ],
)
def test_errors(
    it: Any, model: str, version: str, array: np.ndarray, datatype: str, status: str, text: str
) -> None:
    """The client reads status and text of what is refused, and goes on."""
    with pytest.raises(InferenceServerException, match=text) as caught:
        it.infer(model, [given(array, datatype)], version)
    assert caught.value.status() == status
    assert it.infer("double", [given(X, "FP32")]).as_numpy("most").tolist() == [1]


def test_statistics(it: Any) -> None:
    def count(document: Any) -> int:
        (one,) = document["model_stats"]
        return int(one["inference_stats"]["success"]["count"])

    before = count(it.get_inference_statistics("double", "9"))
    it.infer("double", [given(X, "FP32")], "9")
    assert count(it.get_inference_statistics("double", "9")) == before + 1
    assert len(it.get_inference_statistics()["model_stats"]) > 10


def test_what_it_has_not(it: Any) -> None:
    """Extensions that the server does not name are refused as what is not there."""
    for ask in (it.get_trace_settings, it.get_log_settings, it.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException):
            ask()


def test_repository(it: Any) -> None:
    """Index, unload and load; a model that is not loaded is not ready, and answers 503."""

    def state() -> str:
        return str({one["name"]: one["state"] for one in it.get_model_repository_index()}["fp64"])

    assert state() == "READY"
    it.unload_model("fp64")
    assert state() == "UNAVAILABLE"
    assert not it.is_model_ready("fp64")
    assert it.is_server_ready()
    array = example("FP64")
    with pytest.raises(InferenceServerException, match="unloaded") as caught:
        it.infer("fp64", [given(array, "FP64")])
    assert caught.value.status() == "503"
    it.load_model("fp64")
    assert state() == "READY"
    it.load_model("fp64")  # a swap
    got = it.infer("fp64", [given(array, "FP64")]).as_numpy("y")
    np.testing.assert_array_equal(got, array)
    for ask in (it.load_model, it.unload_model):
        with pytest.raises(InferenceServerException, match="unknown model"):
            ask("nope")


def test_many_at_once(it: Any, served: Shelf) -> None:
    """async_infer: every answer is that of its own request; nothing stays in flight."""
    waiting = [
        (i, it.async_infer("double", [given(X + i, "FP32")], request_id=str(i))) for i in range(200)
    ]
    for i, one in waiting:
        result = one.get_result()
        assert result.get_response()["id"] == str(i)
        np.testing.assert_array_equal(result.as_numpy("scores"), 2 * (X + i))
    assert served.served("double").in_flight == 0


def test_load_while_others_ask(it: Any, served: Shelf) -> None:
    """Swaps under load lose and mix up nothing."""
    waiting = []
    with client.InferenceServerClient(served.server.address) as other:
        for i in range(60):
            waiting.append((i, it.async_infer("double", [given(X + i, "FP32")])))
            if i % 20 == 10:
                other.load_model("double")
    for i, one in waiting:
        np.testing.assert_array_equal(one.get_result().as_numpy("scores"), 2 * (X + i))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves connections to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_asynchronous_client(served: Shelf) -> None:
    """tritonclient.http.aio: health, metadata, inference in numbers, errors, the repository."""

    async def main() -> None:
        async with aio.InferenceServerClient(served.server.address) as it:
            assert await it.is_server_live()
            assert await it.is_server_ready()
            assert await it.is_model_ready("double", "9")
            assert (await it.get_server_metadata())["name"] == "burnish"
            assert (await it.get_model_metadata("double"))["name"] == "double"
            assert (await it.get_model_config("double"))["name"] == "double"
            assert (await it.get_inference_statistics("double"))["model_stats"]
            asks = [
                it.infer(
                    "double",
                    [given(X + i, "FP32", binary=i % 2 == 0)],
                    request_id=str(i),
                    request_compression_algorithm="gzip" if i % 3 == 0 else None,
                    response_compression_algorithm="deflate" if i % 5 == 0 else None,
                )
                for i in range(100)
            ]
            for i, result in enumerate(await asyncio.gather(*asks)):
                assert result.get_response()["id"] == str(i)
                np.testing.assert_array_equal(result.as_numpy("scores"), 2 * (X + i))
            text = np.array([["é".encode(), b"", b"abc"]], object)
            result = await it.infer("bytes", [given(text, "BYTES")])
            assert result.as_numpy("y").tolist() == text.tolist()
            with pytest.raises(InferenceServerException, match="unknown model"):
                await it.infer("nope", [given(X, "FP32")])
            await it.unload_model("fp16")
            assert not await it.is_model_ready("fp16")
            await it.load_model("fp16")
            assert await it.is_model_ready("fp16")

    asyncio.run(main())
    gc.collect()


def test_a_full_queue_is_429() -> None:
    """What there is no room for is refused with 429, and the rest is answered."""
    with shelf({"double:1": doubled()}, queue=2) as one:
        gate = one.sessions["double"]
        gate.hold()
        with client.InferenceServerClient(one.server.address, concurrency=8) as it:
            first = it.async_infer("double", [given(X, "FP32")])
            while not gate.began.wait(0.01):  # gevent sends in the foreground only
                client_turn()
            others = [it.async_infer("double", [given(X, "FP32")]) for _ in range(6)]
            while one.served("double").counts.rejections.total() < 4:
                client_turn()
            gate.open.set()
            outcomes = []
            for ask in (first, *others):
                try:
                    outcomes.append(str(ask.get_result().as_numpy("most").tolist()))
                except InferenceServerException as error:
                    outcomes.append(str(error.status()))
    assert sorted(outcomes) == ["429"] * 4 + ["[1]"] * 3


def client_turn() -> None:
    """Lets the client's greenlets get on."""
    import gevent

    gevent.sleep(0.005)
