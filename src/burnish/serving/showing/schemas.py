# SPDX-License-Identifier: Apache-2.0
"""What the routes take and give, as OpenAPI's components: schemas, errors, parameters."""

from __future__ import annotations

from typing import Any

from burnish.serving.oip.datatypes import DATATYPES

Json = dict[str, Any]

_WHOLE: Json = {"type": "integer", "minimum": 0}
_TEXT: Json = {"type": "string"}
_SHAPE: Json = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "Dimensions; -1 where a model leaves one open.",
}
_DATATYPE: Json = {"type": "string", "enum": list(DATATYPES)}
_PARAMETERS: Json = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def schema(name: str) -> Json:
    """Returns a reference to a schema of `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


def listed(items: Json, description: str = "") -> Json:
    """Returns the schema of an array."""
    return {"type": "array", "items": items} | ({"description": description} if description else {})


def record(properties: Json, required: tuple[str, ...] = (), description: str = "") -> Json:
    """Returns the schema of an object."""
    made: Json = {"type": "object", "properties": properties}
    if required:
        made["required"] = list(required)
    if description:
        made["description"] = description
    return made


def _about(base: Json, description: str) -> Json:
    return {**base, "description": description}


def _tensor(data: bool) -> Json:
    values: Json = {
        "data": {
            "type": "array",
            "description": "The elements: flat in row-major order, or nested as the shape is. "
            "Left out when they follow in binary form.",
        },
        "parameters": _about(
            _PARAMETERS,
            "binary_data_size: how many bytes of the body behind the JSON are this tensor's.",
        ),
    }
    return record(
        {"name": _TEXT, "shape": _SHAPE, "datatype": _DATATYPE, **(values if data else {})},
        ("name", "shape", "datatype"),
    )


def _duration() -> Json:
    return record({"count": _WHOLE, "ns": _about(_WHOLE, "Nanoseconds in all.")})


def _schemas() -> Json:
    stages = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    return {
        "Error": record(
            {"error": _about(_TEXT, "What was expected and what was got.")}, ("error",)
        ),
        "Server": record(
            {"name": _TEXT, "version": _TEXT, "extensions": listed(_TEXT)}, ("name", "version")
        ),
        "Live": record({"live": {"type": "boolean"}}, ("live",)),
        "Ready": record(
            {"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, ("live", "ready")
        ),
        "ModelReady": record({"name": _TEXT, "ready": {"type": "boolean"}}, ("name", "ready")),
        "TensorMetadata": _tensor(data=False),
        "ModelMetadata": record(
            {
                "name": _TEXT,
                "versions": listed(_TEXT, "The versions that answer now."),
                "platform": _TEXT,
                "inputs": listed(schema("TensorMetadata")),
                "outputs": listed(schema("TensorMetadata")),
            },
            ("name", "platform", "inputs", "outputs"),
        ),
        "ModelConfiguration": {
            "type": "object",
            "description": "The JSON form of Triton's message ModelConfig.",
            "properties": {
                "name": _TEXT,
                "platform": _TEXT,
                "max_batch_size": _about(_WHOLE, "0 for a model that does not batch."),
                "input": listed({"type": "object"}),
                "output": listed({"type": "object"}),
            },
        },
        "Tensor": _tensor(data=True),
        "RequestedOutput": record(
            {
                "name": _TEXT,
                "parameters": _about(
                    _PARAMETERS,
                    "binary_data: whether this output is sent in binary form. classification: how "
                    "many of the top classes to give in its place.",
                ),
            },
            ("name",),
        ),
        "InferRequest": record(
            {
                "id": _about(_TEXT, "Given back with the answer."),
                "inputs": listed(schema("Tensor")),
                "outputs": listed(schema("RequestedOutput"), "All outputs when left out."),
                "parameters": _about(
                    _PARAMETERS,
                    "timeout: microseconds until the answer is of no use. priority: a lower one "
                    "runs first. binary_data_output: whether all outputs are sent in binary form.",
                ),
            },
            ("inputs",),
        ),
        "InferResponse": record(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "parameters": _PARAMETERS,
                "outputs": listed(schema("Tensor")),
            },
            ("model_name", "outputs"),
        ),
        "PredictRequest": record(
            {
                "samples": listed(
                    {"type": ["array", "string", "object"]},
                    "Each an array of numbers, a text, or an object of these by input; without "
                    "the batch dimension.",
                )
            },
            ("samples",),
        ),
        "Score": record({"label": _TEXT, "score": {"type": "number"}}, ("label", "score")),
        "Prediction": record(
            {
                "label": {
                    "type": ["string", "null"],
                    "description": "The likeliest class; null for a model without class names.",
                },
                "score": {"type": ["number", "null"], "description": "Its probability."},
                "scores": listed(schema("Score"), "The five likeliest classes."),
                "outputs": {
                    "type": "object",
                    "description": "The model's outputs by name, without the batch dimension.",
                },
            },
            ("label", "score", "scores", "outputs"),
        ),
        "PredictResponse": record(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "predictions": listed(schema("Prediction"), "One a sample, in their order."),
            },
            ("model_name", "model_version", "predictions"),
        ),
        "Duration": _duration(),
        "ModelStatistics": record(
            {
                "name": _TEXT,
                "version": _TEXT,
                "last_inference": _about(_WHOLE, "Milliseconds since 1970."),
                "inference_count": _about(_WHOLE, "Samples answered."),
                "execution_count": _about(_WHOLE, "Batches run."),
                "inference_stats": record({stage: schema("Duration") for stage in stages}),
                "batch_stats": listed({"type": "object"}, "By batch size."),
            },
            ("name", "inference_count", "execution_count"),
        ),
        "Statistics": record({"model_stats": listed(schema("ModelStatistics"))}, ("model_stats",)),
        "IndexRequest": record({"ready": {"type": "boolean"}}, (), "ready: only what is READY."),
        "Index": listed(
            record(
                {
                    "name": _TEXT,
                    "version": _TEXT,
                    "state": {"type": "string", "enum": ["READY", "UNAVAILABLE"]},
                    "reason": _about(_TEXT, "Why it is unavailable."),
                },
                ("name", "version", "state", "reason"),
            )
        ),
        "Status": {
            "type": "object",
            "description": "All that was counted since the start: what the live page draws.",
            "properties": {
                "clock_s": {"type": "number", "description": "Monotonic; for rates."},
                "server": {"type": "object"},
                "models": listed({"type": "object"}),
            },
        },
    }


_ERRORS = {
    400: "The request is not as it has to be; the text says what was expected.",
    401: "A token is asked for, and none or a wrong one came.",
    403: "Clients may not load and unload: the server was started without that.",
    404: "There is no such model, version or route.",
    408: "The body took too long to come.",
    413: "The body, or the request's share of the queue, is too large.",
    415: "The content type or content coding is not known.",
    429: "The queue is full, or the request would be late or make others late, or the client "
    "asks too often. Ask again after Retry-After.",
    500: "The server or the model failed; its log says how.",
    503: "The server is starting or stopping, or the model is not loaded.",
    504: "The deadline cannot be kept, or passed while the request waited.",
}
_RETRY: Json = {
    "Retry-After": {"description": "Seconds to wait.", "schema": _WHOLE},
    "Retry-After-Ms": {"description": "The same in milliseconds.", "schema": _WHOLE},
}


def errors(*statuses: int) -> Json:
    """Returns references to the responses with these statuses."""
    return {str(one): {"$ref": f"#/components/responses/{one}"} for one in statuses}


def components(names: list[str]) -> Json:
    """Returns all components; `names` are those of the models, for a client to choose from."""
    return {
        "schemas": _schemas(),
        "responses": {
            str(status): {
                "description": text,
                "content": {"application/json": {"schema": schema("Error")}},
                **({"headers": _RETRY} if status in (429, 503, 504) else {}),
            }
            for status, text in _ERRORS.items()
        },
        "parameters": {
            "name": {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "The model's name.",
                "schema": _TEXT,
                **({"examples": {one: {"value": one} for one in names}} if names else {}),
            },
            "version": {
                "name": "version",
                "in": "path",
                "required": True,
                "description": "The model's version; without one, the latest answers.",
                "schema": _TEXT,
            },
        },
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "One of the server's tokens, where it was started with any.",
            }
        },
    }
