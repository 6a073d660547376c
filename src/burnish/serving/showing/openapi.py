# SPDX-License-Identifier: Apache-2.0
"""The server's routes as an OpenAPI 3.1 document, with requests that the loaded models answer.

`x-codeSamples` holds command lines, as other readers of such documents have them.
"""

from __future__ import annotations

from typing import Any

from burnish.serving.oip.framing import HEADER
from burnish.serving.repository import Repository
from burnish.serving.served_model import ServedModel
from burnish.serving.showing.samples import BASE, CURL, infer_sample, predict_samples
from burnish.serving.showing.schemas import Json, components, errors, schema
from burnish.serving.showing.status import packaged

_NAME: Json = {"$ref": "#/components/parameters/name"}
_VERSION: Json = {"$ref": "#/components/parameters/version"}
_INFER_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 503, 504)
_BINARY: Json = {"type": "string", "format": "binary"}
_TAGS = {
    "infer": "Ask a model.",
    "models": "What the models take, give and counted.",
    "health": "For load balancers and orchestrators; open without a token.",
    "repository": "Which models there are; loading and unloading them.",
    "operation": "For those who run the server.",
}


def openapi(repository: Repository, version: str) -> Json:
    """Returns the document; `version` is the server's."""
    models = _latest(repository)
    paths: Json = {
        "/v2": {"get": _get("server", "models", "The server and its extensions", "Server", 401)},
        "/v2/health/live": {"get": _probe("live", "Whether the server runs", "Live")},
        "/v2/health/ready": {
            "get": _probe("ready", "Whether all models of the start are loaded", "Ready", 503)
        },
        "/v2/models/stats": {
            "get": _get("all_statistics", "models", "Statistics of all models", "Statistics", 401)
        },
    }
    for path, suffix, parameters in (
        ("/v2/models/{name}", "", [_NAME]),
        ("/v2/models/{name}/versions/{version}", "_of_version", [_NAME, _VERSION]),
    ):
        latest = not suffix
        paths |= _model_routes(path, suffix, parameters)
        paths[f"{path}/infer"] = {
            "parameters": parameters,
            "post": _infer(suffix, models if latest else []),
        }
        plain = path.replace("/v2", "/v1")
        paths[f"{plain}/predict"] = {
            "parameters": parameters,
            "post": _predict(suffix, models if latest else []),
        }
    paths |= _repository_routes() | _operation_routes()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Burnish",
            "version": version,
            "description": "A server of neural networks. It speaks the Open Inference Protocol, "
            "version 2, and a plain route for images, rows and texts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document came from"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": components([one.name for one in models]),
        "x-curl": {"base": BASE, "command": CURL},
    }


def api_page() -> bytes:
    """Returns the page that asks for /openapi.json and shows it."""
    return packaged("api.html")


def _latest(repository: Repository) -> list[ServedModel]:
    """Returns each model that answers once: its latest version, which comes last."""
    return list({one.name: one for one in repository.models()}.values())


def _operation(
    name: str, tag: str, summary: str, description: str, responses: Json, **more: Any
) -> Json:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        **more,
        "responses": responses,
    }


def _answer(description: str, content: Json) -> Json:
    return {"200": {"description": description, "content": content}}


def _json(name: str, **more: Any) -> Json:
    return {"application/json": {"schema": schema(name), **more}}


def _get(name: str, tag: str, summary: str, answer: str, *statuses: int) -> Json:
    return _operation(
        name, tag, summary, "", _answer(f"{summary}.", _json(answer)) | errors(*statuses)
    )


def _probe(name: str, summary: str, answer: str, *unready: int) -> Json:
    """Returns a probe: other statuses have the same document, and no token is asked for."""
    responses = _answer("It is.", _json(answer))
    for status in unready:
        responses[str(status)] = {"description": "Not yet, or no longer.", "content": _json(answer)}
    return _operation(name, "health", summary, "", responses, security=[{}])


def _model_routes(path: str, suffix: str, parameters: list[Json]) -> Json:
    ready = _get(f"model_ready{suffix}", "models", "Whether the model answers", "ModelReady")
    ready["responses"] |= {"503": {"description": "Not now.", "content": _json("ModelReady")}}
    ready["responses"] |= errors(401, 404)
    routes = {
        "": _get(
            f"model{suffix}", "models", "What the model takes and gives", "ModelMetadata",
            401, 404, 503,
        ),
        "/ready": ready,
        "/config": _get(
            f"model_config{suffix}", "models", "How the model is served", "ModelConfiguration",
            401, 404, 503,
        ),
        "/stats": _get(
            f"model_statistics{suffix}", "models", "What the model counted", "Statistics",
            401, 404, 503,
        ),
    }  # fmt: skip
    return {
        f"{path}{end}": {"parameters": parameters, "get": operation}
        for end, operation in routes.items()
    }


def _infer(suffix: str, models: list[ServedModel]) -> Json:
    made = [(one, infer_sample(one)) for one in models]
    examples = {
        one.name: {"summary": f"zeros for {one.name}", "value": sample.document}
        for one, sample in made
        if sample.document is not None
    }
    header: Json = {
        "name": HEADER,
        "in": "header",
        "description": "Where the body has tensors in binary form: the bytes of JSON before them. "
        "0 says that the body is the data of a model's only input, and nothing else.",
        "schema": {"type": "integer", "minimum": 0},
    }
    return _operation(
        f"infer{suffix}",
        "infer",
        "Tensors in, tensors out",
        "Requests that come together run in one batch. Tensors are in the JSON, or follow it in "
        "binary form: little-endian, row-major, one after the other.",
        _answer(
            "The outputs.",
            _json("InferResponse") | {"application/octet-stream": {"schema": _BINARY}},
        )
        | errors(*_INFER_ERRORS),
        parameters=[header],
        requestBody={
            "required": True,
            "content": _json("InferRequest", **({"examples": examples} if examples else {}))
            | {"application/octet-stream": {"schema": _BINARY}},
        },
        **_samples([(one.name, sample.command) for one, sample in made]),
    )


def _predict(suffix: str, models: list[ServedModel]) -> Json:
    examples: dict[str, Json] = {}
    commands = []
    for one in models:
        for kind, command, value in predict_samples(one):
            commands.append((f"{one.name}, {kind}", command))
            if value is not None:
                examples.setdefault(kind, {})[one.name] = {"value": value}

    def body(kind: str, form: Json) -> Json:
        return {
            kind: {"schema": form, **({"examples": examples[kind]} if kind in examples else {})}
        }

    text: Json = {"type": "string"}
    return _operation(
        f"predict{suffix}",
        "infer",
        "An image, a row or a text in, labels out",
        "The bundle's own preprocessing makes the tensors, and its class names read the answer. "
        "Content types: image/* is one image; text/csv one sample a line; text/plain one text; "
        "application/json up to 1024 samples.",
        _answer("One prediction a sample.", _json("PredictResponse")) | errors(*_INFER_ERRORS),
        requestBody={
            "required": True,
            "content": {
                **body("image/*", _BINARY),
                **body("text/csv", {**text, "description": "Numbers with commas between."}),
                **body("text/plain", text),
                **body("application/json", schema("PredictRequest")),
            },
        },
        **_samples(commands),
    )


def _samples(commands: list[tuple[str, str]]) -> Json:
    listed = [{"lang": "Shell", "label": label, "source": text} for label, text in commands]
    return {"x-codeSamples": listed} if listed else {}


def _repository_routes() -> Json:
    index = _operation(
        "repository_index",
        "repository",
        "All models that are known, and their state",
        "",
        _answer("The models.", _json("Index")) | errors(400, 401),
        requestBody={"required": False, "content": _json("IndexRequest")},
        **_samples([("all", f"{CURL} -X POST {BASE}/v2/repository/index")]),
    )
    changed = _answer("Done.", {"application/json": {"schema": {"type": "object"}}})
    load = _operation(
        "load",
        "repository",
        "Load a model, or load it anew",
        "The one that answers goes on until the new one is warm, and finishes what it has taken.",
        changed | errors(400, 401, 403, 404, 500),
    )
    unload = _operation(
        "unload",
        "repository",
        "Unload a model when it has answered what it has taken",
        "",
        changed | errors(401, 403, 404, 500),
    )
    return {
        "/v2/repository/index": {"post": index},
        "/v2/repository/models/{name}/load": {"parameters": [_NAME], "post": load},
        "/v2/repository/models/{name}/unload": {"parameters": [_NAME], "post": unload},
    }


def _operation_routes() -> Json:
    text: Json = {"schema": {"type": "string"}}
    openmetrics = "application/openmetrics-text"
    page = _answer("The page.", {"text/html": text})
    return {
        "/metrics": {
            "get": _operation(
                "metrics",
                "operation",
                "Metrics for Prometheus",
                f"As OpenMetrics where the header Accept asks for {openmetrics}.",
                _answer("The metrics.", {"text/plain": text, openmetrics: text}) | errors(401),
                **_samples([("", f"{CURL} {BASE}/metrics")]),
            )
        },
        "/status.json": {
            "get": _get("status", "operation", "What the live page draws", "Status", 401)
        },
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "operation",
                "This document",
                "",
                _answer("The document.", {"application/json": {"schema": {"type": "object"}}})
                | errors(401),
            )
        },
        "/": {
            "get": _operation("page", "operation", "The live page", "", page, security=[{}]),
        },
        "/docs": {
            "get": _operation("docs", "operation", "These pages", "", page, security=[{}]),
        },
    }
