# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, and the requests in it: sound, and taken by our own decoder."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from showing_models import IMAGE, OUTPUT, ROW, model, shelf

from burnish.core.model import TensorSpec
from burnish.serving.oip.request import decode_request
from burnish.serving.showing.openapi import openapi
from burnish.serving.showing.samples import infer_sample, predict_samples

ROUTES = {
    "get": {
        "/",
        "/docs",
        "/metrics",
        "/openapi.json",
        "/status.json",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/models/{name}",
        "/v2/models/{name}/config",
        "/v2/models/{name}/ready",
        "/v2/models/{name}/stats",
        "/v2/models/{name}/versions/{version}",
        "/v2/models/{name}/versions/{version}/config",
        "/v2/models/{name}/versions/{version}/ready",
        "/v2/models/{name}/versions/{version}/stats",
    },
    "post": {
        "/v1/models/{name}/predict",
        "/v1/models/{name}/versions/{version}/predict",
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
    },
}
TOKENS = tuple(TensorSpec(name, "int64", ("N", "sequence")) for name in ("ids", "mask"))


def document() -> dict[str, Any]:
    """Returns the document of a server with a model of each kind."""
    image = {"preprocessing": {"inputs": [{"input": "image", "kind": "image"}]}}
    table = {"preprocessing": {"inputs": [{"input": "row", "kind": "table"}]}}
    found = shelf(
        model("pictures", inputs=(IMAGE,), manifest=image),
        model("rows", inputs=(ROW,), manifest=table),
        model("texts", inputs=TOKENS, padding={"sequence": (8, 16)}, manifest={}),
    )
    made = openapi(found, "1.2.3")
    return dict(json.loads(json.dumps(made, allow_nan=False)))


def test_all_routes_are_described() -> None:
    paths = document()["paths"]
    for method, routes in ROUTES.items():
        assert {path for path, item in paths.items() if method in item} == routes
    names = [item[m]["operationId"] for item in paths.values() for m in ROUTES if m in item]
    assert len(names) == len(set(names))


def test_references_lead_somewhere_and_path_parameters_are_declared() -> None:
    whole = document()
    for reference in _references(whole):
        at: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for path, item in whole["paths"].items():
        given = {one["$ref"].split("/")[-1] for one in item.get("parameters", ())}
        assert given == set(re.findall(r"\{(\w+)\}", path))


@pytest.mark.skipif(
    importlib.util.find_spec("openapi_spec_validator") is None,
    reason="needs the package openapi-spec-validator",
)
def test_the_document_is_valid() -> None:
    import openapi_spec_validator

    openapi_spec_validator.validate(document())
    openapi_spec_validator.validate(json.loads(json.dumps(openapi(shelf(), "1"))))


def test_json_examples_are_requests_for_the_model() -> None:
    content = document()["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert set(examples) == {"rows", "texts"}  # a picture is too large for JSON
    request = decode_request(json.dumps(examples["texts"]["value"]).encode())
    assert {one.name: one.array.shape for one in request.inputs} == {
        "ids": (1, 16),
        "mask": (1, 16),
    }
    assert all(one.array.dtype == np.int64 for one in request.inputs)


def test_a_large_request_is_sent_in_binary_form() -> None:
    command = infer_sample(model("pictures", inputs=(IMAGE,))).command
    found = re.fullmatch(
        r"\(printf %s '(.*)'; head -c (\d+) /dev/zero\) \| curl -sS (\S+) "
        r"-H 'Inference-Header-Content-Length: (\d+)' --data-binary @-",
        command,
    )
    assert found is not None
    header, size, url, length = found.groups()
    assert url == "http://localhost:8000/v2/models/pictures/infer"
    request = decode_request(header.encode() + bytes(int(size)), length)
    assert request.inputs[0].array.shape == (1, 3, 224, 224)


def test_a_name_cannot_leave_its_place_in_the_command() -> None:
    odd = TensorSpec("x'; rm -rf ~; '", "float32", ("N", 2))
    command = infer_sample(model("a b/c'$(id)", inputs=(odd,))).command
    assert "/v2/models/a%20b%2Fc%27%24%28id%29/infer" in command

    words = shlex.split(command)
    assert words[:2] == ["curl", "-sS"]
    assert json.loads(words[-1])["inputs"][0]["name"] == odd.name


def test_plain_requests_fit_what_the_bundle_takes() -> None:
    image = {"preprocessing": {"inputs": [{"input": "image", "kind": "image"}]}}
    assert [one[0] for one in predict_samples(model(inputs=(IMAGE,), manifest=image))] == [
        "image/jpeg"
    ]
    kinds = {kind: value for kind, _, value in predict_samples(model(manifest={}))}
    assert kinds == {
        "text/csv": "0.0,0.0,0.0,0.0",
        "application/json": {"samples": [[0.0, 0.0, 0.0, 0.0]]},
    }
    ((kind, _, value),) = predict_samples(model(inputs=TOKENS, manifest={}))
    assert kind == "application/json"
    assert value == {"samples": [{"ids": [0], "mask": [0]}]}
    assert predict_samples(model()) == []  # no bundle
    patch = TensorSpec("patch", "float32", ("N", 3, 2, 4))
    turned = {
        "preprocessing": {
            "inputs": [
                {"input": "patch", "kind": "array", "dtype": "float32", "transpose": [2, 0, 1]}
            ]
        }
    }
    ((_, _, value),) = predict_samples(model(inputs=(patch,), manifest=turned))
    assert np.shape(value["samples"][0]) == (2, 4, 3)


def test_a_model_that_does_not_batch_has_its_own_sizes() -> None:
    fixed = TensorSpec("x", "float32", (2, "n"))
    made = model(inputs=(fixed,), outputs=(OUTPUT,))
    document_ = infer_sample(made).document
    assert document_ is not None
    assert document_["inputs"][0]["shape"] == [2, 1]


def _references(at: Any) -> Iterator[str]:
    if isinstance(at, dict):
        if isinstance(at.get("$ref"), str):
            yield at["$ref"]
        for value in at.values():
            yield from _references(value)
    elif isinstance(at, list):
        for value in at:
            yield from _references(value)
