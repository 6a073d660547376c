# SPDX-License-Identifier: Apache-2.0
"""Large JSON through the other process is what it is without."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import numpy as np
import pytest

from burnish.serving.large_json import LargeJson
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import Limits
from burnish.serving.oip.request import decode_request
from burnish.serving.oip.response import InferResponse, encode_response
from burnish.serving.oip.tensors import Tensor


def _body(n: int = 20_000) -> bytes:
    values = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    inputs = [
        {"name": "x", "shape": [n], "datatype": "FP32", "data": values.tolist()},
        {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["ü", ""]},
        {"name": "empty", "shape": [0, 3], "datatype": "INT8", "data": []},
    ]
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    return json.dumps(
        {"id": "7", "parameters": {"timeout": 5}, "inputs": inputs, "outputs": outputs}
    ).encode()


def test_what_is_read_is_what_reading_here_gives_and_faults_are_the_same() -> None:
    large = LargeJson(Limits())
    try:
        body = _body()
        read = asyncio.run(large.read(memoryview(body)))
        expected = decode_request(body)
        assert (read.id, read.parameters) == ("7", {"timeout": 5})
        assert [(one.name, one.classification, one.binary) for one in read.outputs] == [
            ("y", 2, False)
        ]
        for mine, theirs in zip(read.inputs, expected.inputs, strict=True):
            assert (mine.name, mine.binary, mine.datatype) == (
                theirs.name,
                False,
                theirs.datatype,
            )
            np.testing.assert_array_equal(mine.array, theirs.array)
        for wrong in (b"{", body[:-1], body.replace(b"[20000]", b"[20001]"), b'{"inputs": 3}'):
            with pytest.raises(Fault) as there:
                asyncio.run(large.read(memoryview(wrong)))
            with pytest.raises(Fault) as here:
                decode_request(wrong)
            assert (str(there.value), there.value.status) == (str(here.value), here.value.status)
    finally:
        large.close()


def test_what_is_written_is_what_writing_here_gives_and_a_killed_process_comes_back() -> None:
    large = LargeJson(Limits())
    try:
        values = np.random.default_rng(1).standard_normal((100, 100)).astype(np.float32)
        response = InferResponse("net", (Tensor("y", values), Tensor("n", np.arange(3))), "1", "7")
        expected = json.loads(b"".join(encode_response(response).buffers))
        for _ in range(2):
            written = asyncio.run(large.write(response))
            assert written.headers["Content-Type"] == "application/json"
            document = json.loads(b"".join(written.buffers))
            for one in (*document["outputs"], *expected["outputs"]):
                one.pop("parameters", None)
            assert document == expected
            os.kill(large._process.pid, signal.SIGKILL)
        with pytest.raises(Fault, match="finite"):
            asyncio.run(large.write(InferResponse("net", (Tensor("y", values * np.inf),))))
    finally:
        large.close()


def test_a_process_that_hangs_is_ended() -> None:
    large = LargeJson(Limits(), most_s=1.0)
    response = InferResponse("net", (Tensor("y", np.zeros((100, 100), np.float32)),))
    try:
        asyncio.run(large.write(response))
        os.kill(large._process.pid, signal.SIGSTOP)
        written = asyncio.run(large.write(response))  # by another, once that one was ended
        assert json.loads(b"".join(written.buffers))["outputs"][0]["shape"] == [100, 100]
    finally:
        large.close()
