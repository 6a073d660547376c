# SPDX-License-Identifier: Apache-2.0
"""Samples as requests to the plain route, and what comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from client_asking import Asker, answer, in_turn
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.serving.client.errors import BadAnswer
from burnish.serving.client.sample import sample_body

PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture(params=[False, True], ids=["blocking", "awaiting"])
def ask(request: Any) -> Asker:
    return Asker(request.param)


def prediction(**fields: Any) -> httpx.Response:
    return answer(200, {"model_name": "m", "predictions": [fields]})


def test_a_prediction(ask: Asker) -> None:
    handler, seen = in_turn(
        [
            prediction(
                label="cat", score=0.75, scores=[{"label": "cat", "score": 0.75}],
                outputs={"y": [1.5, None], "n": [1, 2], "t": ["a", "b"]},
            )
        ]
    )  # fmt: skip
    got = ask(handler, "predict", PNG, model="m n", version="3")
    assert (got.label, got.score, got.scores) == ("cat", 0.75, (("cat", 0.75),))
    assert np.array_equal(got.outputs["y"], [1.5, np.nan], equal_nan=True)
    assert got.outputs["n"].dtype == np.int64
    assert got.outputs["t"].tolist() == ["a", "b"]
    (request,) = seen
    assert request.url.raw_path == b"/v1/models/m%20n/versions/3/predict"
    assert (request.headers["content-type"], request.content) == ("image/png", PNG)
    assert request.headers["content-length"] == str(len(PNG))


def test_a_model_without_classes(ask: Asker) -> None:
    handler, _ = in_turn([prediction(label=None, score=None, scores=[], outputs={"y": 2.0})])
    got = ask(handler, "predict", [1.0])
    assert (got.label, got.score, got.scores) == (None, None, ())
    assert got.outputs["y"] == 2.0


@pytest.mark.parametrize(
    "document",
    [[], {}, {"predictions": []}, {"predictions": [3]}, {"predictions": [{"outputs": [1]}]},
     {"predictions": [{"scores": [{}]}]}, {"predictions": [{"outputs": {"y": [[1], [1, 2]]}}]}],
)  # fmt: skip
def test_what_is_no_prediction(document: Any) -> None:
    handler, _ = in_turn([answer(200, document)])
    with pytest.raises(BadAnswer):
        Asker(False)(handler, "predict", "a text")


@pytest.mark.parametrize(
    ("sample", "kind", "body"),
    [
        (PNG, "image/png", PNG),
        (b"\xff\xd8\xff\xe0", "image/jpeg", b"\xff\xd8\xff\xe0"),
        (b"RIFF1234WEBPVP8 ", "image/webp", b"RIFF1234WEBPVP8 "),
        (b"unknown", "application/octet-stream", b"unknown"),
        ("cat.jpg", "text/plain", b"cat.jpg"),
        ("é", "text/plain", "é".encode()),
        ((1, 2.5), "text/csv", b"1.0,2.5"),
        (np.array([1, 2], np.int8), "text/csv", b"1.0,2.0"),
        ({"a": np.array([1, 2]), "b": "t"}, "application/json",
         b'{"samples": [{"a": [1, 2], "b": "t"}]}'),
    ],
)  # fmt: skip
def test_samples(sample: Any, kind: str, body: bytes) -> None:
    assert sample_body(sample) == (kind, body)


def test_files(tmp_path: Path) -> None:
    for name, content, kind in (
        ("a.bin", PNG, "image/png"),
        ("a.CSV", b"1,2\n", "text/csv"),
        ("a.txt", b"words", "text/plain"),
    ):
        (tmp_path / name).write_bytes(content)
        assert sample_body(tmp_path / name) == (kind, content)
    with pytest.raises(Misuse, match=r"none\.png cannot be read"):
        sample_body(tmp_path / "none.png")


@given(st.lists(st.floats(), min_size=1))
def test_a_row_is_read_back_as_it_was(row: list[float]) -> None:
    kind, body = sample_body(row)
    assert kind == "text/csv"
    assert np.array_equal([float(one) for one in body.decode().split(",")], row, equal_nan=True)


@pytest.mark.parametrize(
    "sample", [[], [[1.0]], ["a"], 3, None, [[1], [1, 2]], {"a": object()}, {"a": [float("nan")]}]
)
def test_what_is_no_sample(sample: Any) -> None:
    with pytest.raises(Misuse):
        sample_body(sample)


def test_a_mapping_is_json(ask: Asker) -> None:
    handler, seen = in_turn([prediction(outputs={})])
    ask(handler, "predict", {"x": np.ones((1, 2), np.float32)})
    assert json.loads(seen[0].content) == {"samples": [{"x": [[1.0, 1.0]]}]}
