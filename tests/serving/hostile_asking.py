# SPDX-License-Identifier: Apache-2.0
"""What the tests of wrong and hostile clients share."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import psutil
from grpc_running import doubled
from raw_http import Wire, post, tensor, wire
from shelf import Shelf, X, shelf

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/double/infer"
GOOD = json.dumps({"inputs": [tensor(X, "FP32")]}).encode()
LIMIT = 2**20


def one_model(**settings: Any) -> Any:
    return shelf({"double:1": doubled()}, **settings)


def answers(served: Shelf) -> None:
    """Checks that the server still answers rightly, and that nothing is left over."""
    with wire(served.port) as line:
        answer = line.send(post(INFER, GOOD)).answer()
        assert answer.status == 200
        assert answer.json["outputs"][0]["data"] == (2 * X).ravel().tolist()
    model = served.served("double")
    eventually(lambda: model.in_flight == 0 and model.waiting == 0)


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.005)


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def refused(line: Wire, data: bytes, *statuses: int) -> str:
    """Sends a request and returns the error, whose status must be one of those."""
    answer = line.send(data).answer()
    assert answer.status in (statuses or (400,)), (answer.status, answer.body)
    assert list(answer.json) == ["error"]
    return str(answer.json["error"])
