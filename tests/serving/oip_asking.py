# SPDX-License-Identifier: Apache-2.0
"""Asks the server that the tests of the protocol share, and reads its answers."""

from __future__ import annotations

import json
from typing import Any

from raw_http import Answered, Wire, post, tensor
from shelf import X

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/double/infer"
ASK = {"inputs": [tensor(X, "FP32")]}
BINARY = {"parameters": {"binary_data": True}}


def infer(line: Wire, document: Any, path: str = INFER, rest: bytes = b"", *more: str) -> Answered:
    """Asks with JSON, and with bytes behind it where there are any."""
    header = json.dumps(document).encode()
    length = (f"{HEADER}: {len(header)}",) if rest else ()
    return line.send(post(path, header + rest, *length, *more)).answer()


def outputs(answer: Answered) -> dict[str, Any]:
    """Returns the outputs of a response: lists of JSON, bytes of binary data."""
    assert answer.status == 200, answer.body
    length = int(answer.headers.get(HEADER.lower(), len(answer.body)))
    document, rest = json.loads(answer.body[:length]), answer.body[length:]
    found: dict[str, Any] = {}
    for one in document["outputs"]:
        if "data" in one:
            found[one["name"]] = one["data"]
        else:
            size = one["parameters"]["binary_data_size"]
            found[one["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return found


def refused(answer: Answered, status: int = 400) -> str:
    """Returns what an error says: an object with the one key "error"."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    return str(answer.json["error"])
