# SPDX-License-Identifier: Apache-2.0
"""A model that answers: each request has its own rows' answer, whatever it ran with."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import small_models
from hypothesis import given
from hypothesis import strategies as st
from serving_models import close_to, eventually, images, served

from burnish.core.candidate import Setting
from burnish.core.errors import Unsupported
from burnish.engines.engine import by_name
from burnish.serving.oip.faults import Fault
from burnish.serving.refusals import Refused
from burnish.serving.shape_buckets import Padding, fitting


def expected(inputs: dict, model: object = None) -> dict:
    """Returns what the engine itself says."""
    with by_name("onnxruntime").open(model or small_models.convolutional(), Setting(1)) as session:
        return session.run(inputs)


def test_requests_that_wait_run_together_and_each_gets_its_own_rows() -> None:
    async def run() -> None:
        model, session = served()
        session.gate.clear()
        asked = [images(rows, seed) for seed, rows in enumerate((1, 2, 1, 3))]
        futures = [model.submit(one) for one in asked]
        session.gate.set()
        answers = await asyncio.gather(*futures)
        for inputs, answer in zip(asked, answers, strict=True):
            assert close_to(answer.outputs["logits"], expected(inputs)["logits"])
        assert session.batches == [1, 6]
        assert model.counts.batches == {1: 1, 6: 1}
        assert (model.counts.answered, model.counts.rows) == (4, 7)
        await model.retire()
        assert session.closed

    asyncio.run(run())


def test_a_request_larger_than_the_largest_batch_is_split_and_joined() -> None:
    async def run() -> None:
        model, session = served(max_batch_size=4)
        inputs = images(11)
        answer = await model.submit(inputs)
        assert close_to(answer.outputs["logits"], expected(inputs)["logits"])
        assert sum(session.batches) == 11
        assert max(session.batches) <= 4
        await model.retire()

    asyncio.run(run())


@pytest.mark.parametrize("streams", [1, 3])
def test_a_thousand_requests_at_once_each_get_their_own_answer(streams: int) -> None:
    async def run() -> None:
        model, _ = served(streams=streams)
        asked = [images(1 + seed % 3, seed) for seed in range(300)]
        answers = await asyncio.gather(*(model.submit(one) for one in asked))
        together = {key: np.concatenate([one[key] for one in asked]) for key in asked[0]}
        whole = expected(together)["logits"]
        given = np.concatenate([answer.outputs["logits"] for answer in answers])
        assert close_to(given, whole)
        assert model.in_flight == 0
        await model.retire()

    asyncio.run(run())


def test_sequences_are_padded_to_their_bucket_and_answered_as_if_alone() -> None:
    model = small_models.two_inputs()

    async def run() -> None:
        one, session = served(model, padding={"length": (4, 16)})
        session.gate.clear()
        asked = [
            small_models.random_inputs(model, 1, seed, length)
            for seed, length in enumerate((3, 2, 4, 9, 16))
        ]
        futures = [one.submit(inputs) for inputs in asked]
        session.gate.set()
        for inputs, future in zip(asked, futures, strict=True):
            outputs = (await future).outputs
            assert close_to(outputs["pooled"], expected(inputs, model)["pooled"])
        assert {shape["ids"][1] for shape in session.shapes[1:]} <= {4, 16}
        with pytest.raises(Fault, match=r"length.* at most 16, got 17"):
            one.submit(small_models.random_inputs(model, 1, 0, 17))
        await one.retire()

    asyncio.run(run())


def test_outputs_lose_the_padding_of_their_axes() -> None:
    from onnx import TensorProto, helper

    model = small_models.make(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [("x", TensorProto.FLOAT, ["batch", "length"])],
        [("y", TensorProto.FLOAT, ["batch", "length"])],
    )

    async def run() -> None:
        one, session = served(model, padding={"length": (16, 64)})
        session.gate.clear()
        asked = [np.arange(-2, end, dtype=np.float32)[None] for end in (3, 4, 9)]
        futures = [one.submit({"x": x}) for x in asked]
        session.gate.set()
        for x, future in zip(asked, futures, strict=True):
            np.testing.assert_array_equal((await future).outputs["y"], np.maximum(x, 0))
        alone, together = (shape["x"] for shape in session.shapes)
        assert alone == (1, 5)
        assert together == (2, 12), "11 of at most 16, to the next multiple of 4"
        await one.retire()

    asyncio.run(run())


@given(st.lists(st.integers(1, 200), min_size=1, max_size=9))
def test_a_batch_is_padded_to_what_meets_in_it(sizes: list[int]) -> None:
    declared = (16, 100, 200)
    padding = Padding({"length": declared})
    bucket = padding.bucket((("length", max(sizes)),))
    ((_, padded),) = fitting(bucket, [(("length", size),) for size in sizes])
    assert max(sizes) <= padded <= bucket[0][1]
    assert padded < max(sizes) + 4
    if len(sizes) == 1:
        assert padded == sizes[0]
    elif padded != bucket[0][1]:
        assert padded % 4 == 0


def test_an_engine_that_fails_fails_the_requests_of_its_batch_only() -> None:
    async def run() -> None:
        model, session = served()
        session.error = Unsupported("onnxruntime cannot run node 'head'")
        with pytest.raises(Fault, match="head") as caught:
            await model.submit(images(1))
        assert caught.value.status == 500
        session.error = RuntimeError("a secret of the server")
        with pytest.raises(Fault, match="the model failed to run") as caught:
            await model.submit(images(1))
        assert "secret" not in str(caught.value)
        session.error = None
        await model.submit(images(1))
        assert (model.counts.failed, model.counts.answered) == (2, 1)
        await model.retire()

    asyncio.run(run())


def test_a_cancelled_request_leaves_the_queue_and_the_others_stay_right() -> None:
    async def run() -> None:
        model, session = served()
        session.gate.clear()
        first = model.submit(images(1, 1))
        asked = [images(2, seed) for seed in range(2, 6)]
        futures = [model.submit(one) for one in asked]
        futures[1].cancel()
        await eventually(lambda: model.counts.cancelled == 1)
        session.gate.set()
        await first
        for number in (0, 2, 3):
            outputs = (await futures[number]).outputs
            assert close_to(outputs["logits"], expected(asked[number])["logits"])
        assert session.batches == [1, 6]
        await model.retire()

    asyncio.run(run())


def test_a_request_cancelled_while_it_runs_is_never_answered() -> None:
    async def run() -> None:
        model, session = served()
        session.gate.clear()
        first = model.submit(images(1))
        await asyncio.sleep(0.01)
        first.cancel()
        session.gate.set()
        await eventually(lambda: model.in_flight == 0 and bool(session.batches))
        assert model.counts.answered == 0
        await model.submit(images(1))
        await model.retire()

    asyncio.run(run())


def test_what_cannot_be_in_time_is_refused_at_once_with_when_to_ask_again() -> None:
    async def run() -> None:
        model, session = served(slo_ms=10.0, table=[(1, 4.0), (8, 4.5)])
        session.gate.clear()
        futures = [model.submit(images(1, seed)) for seed in range(2)]
        refused = []
        for seed in range(200):
            try:
                futures.append(model.submit(images(1, seed)))
            except Refused as error:
                refused.append(error)
        assert refused
        assert {error.status for error in refused} == {429}
        assert all(error.retry_after_ms and error.retry_after_ms > 0 for error in refused)
        session.gate.set()
        await asyncio.gather(*futures, return_exceptions=True)
        assert model.counts.rejections["deadline"] + model.counts.rejections["displacing"] == len(
            refused
        )
        await model.retire()

    asyncio.run(run())


def test_a_deadline_that_passes_in_the_queue_is_told_without_another_event() -> None:
    async def run() -> None:
        model, session = served(table=[(1, 1.0), (8, 1.0)])
        session.gate.clear()
        first = model.submit(images(1))
        second = model.submit(images(1), timeout_ms=50.0)
        with pytest.raises(Refused) as caught:
            await asyncio.wait_for(second, 5)
        assert caught.value.status == 504
        session.gate.set()
        await first
        await model.retire()

    asyncio.run(run())


def test_a_full_queue_refuses_and_an_empty_one_takes_again() -> None:
    async def run() -> None:
        model, session = served(queue=2)
        session.gate.clear()
        futures = [model.submit(images(1)) for _ in range(3)]  # one runs, two wait
        with pytest.raises(Refused, match="queue full") as caught:
            model.submit(images(1))
        assert caught.value.status == 429
        session.gate.set()
        await asyncio.gather(*futures)
        await model.submit(images(1))
        await model.retire()

    asyncio.run(run())


def test_urgent_requests_run_first() -> None:
    async def run() -> None:
        model, session = served(max_batch_size=1)
        session.gate.clear()
        order: list[str] = []
        futures = [model.submit(images(1))]
        for name, priority in (("late", 2), ("early", 1)):
            future = model.submit(images(1), priority=priority)
            future.add_done_callback(lambda _, name=name: order.append(name))
            futures.append(future)
        session.gate.set()
        await asyncio.gather(*futures)
        assert order == ["early", "late"]
        await model.retire()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing input image"),
        ({**images(1), "other": np.zeros(1)}, "unknown input 'other'"),
        ({"image": np.zeros((1, 3, 16, 16))}, "dtype float32, got float64"),
        ({"image": np.zeros((1, 3, 16, 17), np.float32)}, "shape"),
        ({"image": np.zeros((3, 16, 16), np.float32)}, "shape"),
        ({"image": np.zeros((0, 3, 16, 16), np.float32)}, "shape"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_was_expected(
    inputs: dict, message: str
) -> None:
    async def run() -> None:
        model, session = served()
        with pytest.raises(Fault, match=message) as caught:
            model.submit(inputs)
        assert caught.value.status == 400
        assert not session.batches
        await model.retire()

    asyncio.run(run())


def test_a_model_that_is_retired_answers_what_it_took_and_takes_no_more() -> None:
    async def run() -> None:
        model, session = served()
        session.gate.clear()
        futures = [model.submit(images(1, seed)) for seed in range(5)]
        retiring = asyncio.create_task(model.retire())
        await asyncio.sleep(0.01)
        with pytest.raises(Refused, match="unloaded"):
            model.submit(images(1))
        assert not session.closed
        session.gate.set()
        await asyncio.gather(*futures)
        await retiring
        assert session.closed

    asyncio.run(run())


def test_a_model_of_a_fixed_batch_runs_one_request_at_a_time() -> None:
    from onnx import TensorProto, helper

    model = small_models.make(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [("x", TensorProto.FLOAT, [2, 3])],
        [("y", TensorProto.FLOAT, [2, 3])],
    )

    async def run() -> None:
        one, session = served(model)
        asked = [np.full((2, 3), seed - 5, np.float32) for seed in range(10)]
        answers = await asyncio.gather(*(one.submit({"x": x}) for x in asked))
        for x, answer in zip(asked, answers, strict=True):
            np.testing.assert_array_equal(answer.outputs["y"], np.maximum(x, 0))
        assert session.batches == [2] * 10
        await one.retire()

    asyncio.run(run())


def test_tensors_that_lie_unaligned_or_strided_in_memory_are_read_right() -> None:
    async def run() -> None:
        model, _ = served()
        plain = images(2)["image"]
        raw = bytearray(plain.nbytes + 1)
        raw[1:] = plain.tobytes()
        strided = np.asfortranarray(plain)
        shifted = np.frombuffer(memoryview(raw)[1:], np.dtype("<f4")).reshape(plain.shape)
        for inputs in (strided, shifted):
            answer = await model.submit({"image": inputs})
            assert close_to(answer.outputs["logits"], expected({"image": plain})["logits"])
        await model.retire()

    asyncio.run(run())


def test_strings_run_together_as_text_and_what_is_no_text_is_refused() -> None:
    from onnx import TensorProto, helper

    model = small_models.make(
        [helper.make_node("Identity", ["x"], ["y"], "same")],
        [("x", TensorProto.STRING, ["batch", 2])],
        [("y", TensorProto.STRING, ["batch", 2])],
    )

    async def run() -> None:
        one, session = served(model)
        session.gate.clear()
        asked = [np.array([["zürich".encode(), b"b%d" % seed]], object) for seed in range(4)]
        futures = [one.submit({"x": x}) for x in asked]
        session.gate.set()
        for seed, future in enumerate(futures):
            assert (await future).outputs["y"].tolist() == [["zürich", f"b{seed}"]]
        assert session.batches == [1, 3]
        with pytest.raises(Fault, match="UTF-8"):
            one.submit({"x": np.array([[b"\xff", b""]], object)})
        await one.retire()

    asyncio.run(run())
