# SPDX-License-Identifier: Apache-2.0
"""What an answer of the server says: arrays, predictions, documents, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import BurnishError
from burnish.serving.client.errors import BadAnswer, DeadlineExceeded, ServerRefused
from burnish.serving.client.prediction import Prediction
from burnish.serving.client.retrying import retry_after_s
from burnish.serving.oip.faults import Fault, shown
from burnish.serving.oip.framing import HEADER, Limits
from burnish.serving.oip.response import decode_error, decode_response

_OK, _TOO_LATE = 200, 504
_MOST_TEXT = 300


@dataclass(frozen=True)
class Answer:
    """A status, headers by lower-case name, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: memoryview


def refusal(answer: Answer) -> ServerRefused:
    """Returns the error that an answer other than 200 tells of, whoever gave it."""
    try:
        message = str(decode_error(answer.body, answer.status))
    except Fault:  # a proxy's, or no server of ours
        message = bytes(answer.body[:_MOST_TEXT]).decode("utf-8", "replace").strip()
    if not message and 300 <= answer.status < 400:
        message = f"it is at {answer.headers.get('location', 'another place')}: ask there"
    return ServerRefused(answer.status, message or "no reason given", retry_after_s(answer.headers))


def accepted(answer: Answer) -> Answer:
    """Returns the answer if it is a success, and raises what it tells of if not."""
    if answer.status == _OK:
        return answer
    error: BurnishError = refusal(answer)
    if answer.status == _TOO_LATE:
        raise DeadlineExceeded(
            f"{error}; give a longer deadline_s, or load the server less"
        ) from error
    raise error


def outputs_of(answer: Answer) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an answer to infer, by name, in the server's order.

    They may be written to; all but BYTES are views of the body where it is aligned for them.
    """
    limits = Limits(json_bytes=len(answer.body))  # which was bounded when it came
    try:
        response = decode_response(answer.body, answer.headers.get(HEADER.lower()), limits)
    except Fault as fault:
        raise BadAnswer(f"the server's answer cannot be read: {fault}") from fault
    return {tensor.name: np.require(tensor.array, requirements="A") for tensor in response.outputs}


def document_of(answer: Answer) -> dict[str, Any]:
    """Returns the JSON object of an answer."""
    document = _json(answer)
    if not isinstance(document, dict):
        raise BadAnswer(f"expected a JSON object from the server, got {shown(document)}")
    return document


def index_of(answer: Answer) -> list[dict[str, Any]]:
    """Returns the list of models, each with name, version, state and reason."""
    listed = _json(answer)
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in listed
    ):
        raise BadAnswer(f"expected a list of models from the server, got {shown(listed)}")
    return listed


def prediction_of(answer: Answer) -> Prediction:
    """Returns the one prediction of an answer to predict."""
    listed = document_of(answer).get("predictions")
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise BadAnswer(f"expected one prediction from the server, got {shown(listed)}")
    (one,) = listed
    try:
        return Prediction(
            None if one.get("label") is None else str(one["label"]),
            None if one.get("score") is None else float(one["score"]),
            tuple((str(each["label"]), float(each["score"])) for each in one.get("scores") or ()),
            {name: _array(value) for name, value in (one.get("outputs") or {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"the server's prediction cannot be read: {error!r}") from error


def _array(value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype == object:  # null stands for what JSON cannot hold
        return np.array(value, np.float64)
    return array.astype(object) if array.dtype.kind == "U" else array


def _json(answer: Answer) -> Any:
    try:
        return json.loads(bytes(answer.body))
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"expected JSON from the server: {error}") from error
