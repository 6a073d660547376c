# SPDX-License-Identifier: Apache-2.0
"""Tensors go out and come back bit for bit, from either client."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
from client_asking import Asker, Clock, X, answer, echo, in_turn, ok
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_messages import DTYPES, TEXT, arrays, same

from burnish.core.errors import Misuse
from burnish.serving.client.ask import Inference, pieces
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import HEADER
from burnish.serving.oip.request import decode_request


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def ask(request: Any) -> Asker:
    return Asker(request.param)


def some(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([[b"", b"\x00\xff"], [b"caf\xc3\xa9", b"x" * 300]], object)
    values = np.random.default_rng(0).integers(0, 2 if datatype == "BOOL" else 100, (2, 3))
    return values.astype(DTYPES[datatype])


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_round_trips(ask: Asker, datatype: str) -> None:
    sent = some(datatype)
    (got,) = ask(echo, "infer", {"x": sent}).values()
    assert same(sent, got)
    assert got.flags.behaved  # aligned, and may be written to


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_round_trips_as_json(ask: Asker, datatype: str) -> None:
    sent = np.array([b"a", "é".encode()], object) if datatype == "BYTES" else some(datatype)
    (got,) = ask(echo, "infer", {"x": sent}, binary=False).values()
    assert same(sent, got)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(TEXT.filter(bool), arrays(True), min_size=1, max_size=4), st.booleans())
def test_any_inputs_round_trip(inputs: dict[str, np.ndarray], compress: bool) -> None:
    got = Asker(False)(echo, "infer", inputs, compress=compress)
    assert list(got) == list(inputs)
    assert all(same(inputs[name], got[name]) for name in inputs)


def test_half_precision_keeps_nan_and_infinity(ask: Asker) -> None:
    values = [math.nan, math.inf, -0.0, 1.5]
    sent = {"h": np.array(values, np.float16), "b": np.array(values, ml_dtypes.bfloat16)}
    got = ask(echo, "infer", sent)
    assert all(same(sent[name], got[name]) for name in sent)


def test_what_is_no_plain_array_is_made_one(ask: Asker) -> None:
    turned = np.arange(6, dtype=">f4").reshape(2, 3).T
    sent = {"text": np.array(["é", "ab"]), "list": [[1, 2]], "turned": turned, "scalar": 1.5}
    got = ask(echo, "infer", sent)
    assert got["text"].tolist() == ["é".encode(), b"ab"]
    assert same(got["list"], np.array([[1, 2]]))
    assert got["turned"].tolist() == turned.tolist()
    assert got["scalar"].shape == ()


def test_a_large_body_goes_in_pieces_and_comes_back_whole(ask: Asker) -> None:
    sent = np.random.default_rng(0).standard_normal((3, 200_000)).astype(np.float32)
    sizes = []

    def handler(request: httpx.Request) -> httpx.Response:
        sizes.append((len(request.content), int(request.headers["content-length"])))
        return echo(request)

    assert same(ask(handler, "infer", {"x": sent, "y": sent})["y"], sent)
    assert sizes[0][0] == sizes[0][1] > 2 * sent.nbytes


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_pieces_are_the_body(buffers: list[bytes], most: int) -> None:
    got = list(pieces(buffers, most))
    assert b"".join(got) == b"".join(buffers)
    assert all(len(one) <= most for one in got)


def test_compressed_bodies_are_smaller_both_ways(ask: Asker) -> None:
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        response = echo(request)
        seen.append((len(request.content), int(response.headers["content-length"])))
        return response

    sent = np.zeros(10_000, np.float32)
    assert same(ask(handler, "infer", {"x": sent}, compress=True)["x"], sent)
    assert max(seen[0]) < 2000


def test_only_the_outputs_asked_for(ask: Asker) -> None:
    two = {"a": np.zeros(1), "b": np.ones(1)}
    assert list(ask(echo, "infer", two, outputs=["b"])) == ["b"]


def test_what_a_request_says(ask: Asker) -> None:
    handler, seen = in_turn([ok()])
    given = {"version": "2", "deadline_s": 1.5, "priority": 3, "id": "mine", "outputs": ["y"]}
    got = ask(handler, "infer", X, model="a/b", token="secret", **given)
    assert got["y"].tolist() == [1, 2]
    (request,) = seen
    assert request.method == "POST"
    assert request.url.raw_path == b"/v2/models/a%2Fb/versions/2/infer"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["accept-encoding"] == "identity"
    read = decode_request(request.content, request.headers[HEADER])
    assert read.id == "mine"
    assert [one.binary for one in read.outputs] == [True]
    assert read.parameters["timeout"] == pytest.approx(1.5e6, abs=2)
    assert read.parameters["priority"] == 3


def test_nothing_is_said_that_was_not_given(ask: Asker) -> None:
    handler, seen = in_turn([ok()])
    ask(handler, "infer", X, binary=False)
    document = json.loads(seen[0].content)
    assert sorted(document) == ["inputs"]
    assert "authorization" not in seen[0].headers


@given(st.floats(0, exclude_min=True, allow_infinity=False))
def test_the_timeout_is_whole_microseconds_and_never_none(left_s: float) -> None:
    ask = Inference({"x": np.zeros(1)}).ask("m", None, left_s)
    read = decode_request(b"".join(ask.buffers), ask.headers[HEADER]).parameters["timeout"]
    assert isinstance(read, int)
    assert 1 <= read <= max(1, min(left_s * 1e6, 2**63))


def test_each_attempt_says_what_is_left(ask: Asker) -> None:
    busy = answer(503, {"error": "busy"}, {"Retry-After": "0.25"})
    handler, seen = in_turn([busy, ok()])
    clock = Clock()
    ask(handler, "infer", X, deadline_s=1.0, clock=clock, random=lambda: 0.0)
    left = [decode_request(r.content, r.headers[HEADER]).parameters["timeout"] for r in seen]
    assert left == pytest.approx([1e6, 0.75e6], abs=2)


@pytest.mark.parametrize(
    ("inputs", "given_", "words"),
    [
        ({}, {}, "expected inputs by name"),
        (X, {"outputs": "y"}, "list of outputs"),
        (X, {"priority": -1}, "priority"),
        (X, {"deadline_s": 0}, "deadline_s"),
        (X, {"deadline_s": math.nan}, "deadline_s"),
        (X, {"model": ".."}, "name of a model"),
        (X, {"model": ""}, "name of a model"),
    ],
)
def test_what_cannot_be_asked(ask: Asker, inputs: Any, given_: dict[str, Any], words: str) -> None:
    with pytest.raises(Misuse, match=words):
        ask(echo, "infer", inputs, **given_)


def test_what_the_protocol_cannot_hold_names_the_input(ask: Asker) -> None:
    with pytest.raises(Fault, match=r"'x'.*complex128"):
        ask(echo, "infer", {"x": np.zeros(1, complex)})
