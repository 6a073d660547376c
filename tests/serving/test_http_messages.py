# SPDX-License-Identifier: Apache-2.0
"""Compression, large JSON, and HTTP/1.1 itself: each test names the rule that it checks."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from oip_asking import ASK, BINARY, HEADER, INFER, infer, outputs, refused
from raw_http import Answered, Wire, get, post, tensor
from shelf import X

# Compression.


def packed(data: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(data)
    if coding == "deflate":
        return zlib.compress(data)
    return zlib.compress(data)[2:-4]  # raw, as some clients send it


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests(line: Wire, coding: str, binary: bool) -> None:
    """Content-Encoding is of the whole body; the JSON's length is that before compression."""
    entry = tensor(X, "FP32", **({"parameters": {"binary_data_size": 12}} if binary else {}))
    header = json.dumps({"inputs": [entry]}).encode()
    headers = [f"Content-Encoding: {coding.split()[-1]}"]
    if binary:
        headers.append(f"{HEADER}: {len(header)}")
    body = packed(header + (X.tobytes() if binary else b""), coding)
    answer = line.send(post(INFER, body, *headers)).answer()
    assert outputs(answer) == {"scores": [2, 10, 6], "most": [1]}


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("br, deflate;q=0.5", "deflate"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
        ("GZIP", "gzip"),
    ],
)
def test_compressed_responses(line: Wire, accepted: str, coding: str | None) -> None:
    """Accept-Encoding is met where it can be; Content-Length is that of what is sent."""
    all_ = ASK | {"parameters": {"binary_data_output": True}}
    answer = infer(line, all_, INFER, b"", f"Accept-Encoding: {accepted}")
    assert answer.headers.get("content-encoding") == coding
    body = answer.body
    if coding is not None:
        body = zlib.decompress(body, 47 if coding == "gzip" else 15)
    got = outputs(Answered(answer.status, answer.headers, body))
    assert got["scores"] == (2 * X).tobytes()


def test_compression_of_what_is_none(line: Wire) -> None:
    """A body that is not what Content-Encoding says is 400, another coding 415."""
    body = json.dumps(ASK).encode()
    refused(line.send(post(INFER, body, "Content-Encoding: gzip")).answer())
    refused(line.send(post(INFER, gzip.compress(body)[:-9], "Content-Encoding: gzip")).answer())
    refused(line.send(post(INFER, body, "Content-Encoding: br")).answer(), 415)
    assert line.send(post(INFER, body, "Content-Encoding: identity")).answer().status == 200


# Large JSON, which goes another way.


@pytest.mark.parametrize("rows", [1, 2200])
def test_json_of_any_size(line: Wire, rows: int) -> None:
    """Small and large JSON are read and written alike."""
    array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) / 8
    answer = infer(line, {"id": "é", "inputs": [tensor(array, "FP32")]})
    got = outputs(answer)
    assert answer.json["id"] == "é"
    assert got["scores"] == (2 * array).ravel().tolist()
    assert got["most"] == [2] * rows
    broken = {"inputs": [tensor(array, "FP32") | {"shape": [rows, 4]}]}
    assert "elements" in refused(infer(line, broken))


# HTTP/1.1.


def test_keep_alive(line: Wire) -> None:
    """A connection serves one request after the other (RFC 9112, 9.3)."""
    for _ in range(5):
        assert infer(line, ASK).status == 200
        refused(infer(line, {}))
    answer = line.send(post(INFER, json.dumps(ASK).encode(), "Connection: close")).answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert line.ended()


def test_http_1_0(line: Wire) -> None:
    """An HTTP/1.0 request is answered, and its connection closed."""
    answer = line.send(post(INFER, json.dumps(ASK).encode(), version="1.0")).answer()
    assert outputs(answer)["most"] == [1]
    assert line.ended()


def test_pipelining(line: Wire) -> None:
    """Requests sent ahead are answered in their order (RFC 9112, 9.3.2)."""
    asks = []
    for i in range(20):
        document = {"id": str(i), "inputs": [tensor(X + i, "FP32")]}
        asks.append(post(INFER, json.dumps(document).encode()))
        asks.append(get("/v2/models/net"))
    line.send(*asks)
    for i in range(20):
        answer = line.answer()
        assert (answer.json["id"], outputs(answer)["scores"]) == (
            str(i),
            (2 * (X + i)).ravel().tolist(),
        )
        assert line.answer().json["name"] == "net"


def test_pipelining_large_bodies(line: Wire) -> None:
    """Bodies of several reads each, sent ahead, do not mix."""
    for i in range(4):
        array = np.full((40_000, 3), i, np.float32)
        entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
        wanted = [{"name": "scores", **BINARY}]
        header = json.dumps({"inputs": [entry], "outputs": wanted}).encode()
        line.send(post(INFER, header + array.tobytes(), f"{HEADER}: {len(header)}"))
    for i in range(4):
        got = np.frombuffer(outputs(line.answer())["scores"], np.float32)
        assert len(got) == 120_000
        assert (got == 2 * i).all()


def test_expect_100_continue(line: Wire) -> None:
    """Expect: 100-continue is answered with 100 before the body is sent (RFC 9110, 10.1.1)."""
    body = json.dumps(ASK).encode()
    head = post(INFER, b"", f"Content-Length: {len(body)}", "Expect: 100-continue")
    assert line.send(head).line() == b"HTTP/1.1 100 Continue\r\n"
    assert line.line() == b"\r\n"
    assert line.send(body).answer().status == 200


def test_expect_and_a_refusal(line: Wire) -> None:
    """A final answer comes instead of 100 where the body is not wanted, and the connection ends."""
    head = post("/v2/models/nope/infer", b"", "Content-Length: 10", "Expect: 100-continue")
    answer = line.send(head).answer()
    assert (answer.status, answer.headers["connection"]) == (404, "close")
    assert line.ended()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_chunked_request(line: Wire, size: int) -> None:
    """A body in chunks, of no declared length, with extensions and trailers (RFC 9112, 7.1)."""
    body = json.dumps(ASK).encode()
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    line.send(post(INFER, b"", "Transfer-Encoding: chunked"))
    for one in chunks:
        line.send(b"%x;name=value\r\n" % len(one), one, b"\r\n")
    assert line.send(b"0\r\nTrailer: x\r\n\r\n").answer().status == 200
    assert infer(line, ASK).status == 200


def test_chunked_binary_request(line: Wire) -> None:
    """Binary tensors behind JSON may come in chunks as well."""
    array = np.random.default_rng(0).random((30_000, 3), np.float32)
    entry = tensor(array, "FP32", parameters={"binary_data_size": array.nbytes})
    wanted = [{"name": "scores", **BINARY}]
    header = json.dumps({"inputs": [entry], "outputs": wanted}).encode()
    body = header + array.tobytes()
    line.send(post(INFER, b"", "Transfer-Encoding: chunked", f"{HEADER}: {len(header)}"))
    for start in range(0, len(body), 50_000):
        one = body[start : start + 50_000]
        line.send(b"%X\r\n" % len(one), one, b"\r\n")
    got = outputs(line.send(b"0\r\n\r\n").answer())["scores"]
    assert got == (2 * array).tobytes()


def test_a_request_in_pieces(line: Wire) -> None:
    """A request may come byte by byte."""
    for one in post(INFER, json.dumps(ASK).encode()):
        line.send(bytes([one]))
    assert line.answer().status == 200


@pytest.mark.parametrize("identifier", ["abc-123", "\xe9", "x" * 200])
def test_request_id_header(line: Wire, identifier: str) -> None:
    """x-request-id is given back; without one, the server makes one."""
    answer = infer(line, ASK, INFER, b"", f"X-Request-Id: {identifier}")
    assert answer.headers["x-request-id"] == identifier
    one, other = infer(line, ASK), infer(line, {})
    assert one.headers["x-request-id"] != other.headers["x-request-id"]


def test_content_type_is_not_asked_for(line: Wire) -> None:
    """What a body is, the protocol's header says; clients send any Content-Type, or none."""
    for kind in ("application/json", "application/octet-stream", "text/plain"):
        assert infer(line, ASK, INFER, b"", f"Content-Type: {kind}").status == 200


def test_query_is_passed_over(line: Wire) -> None:
    """Triton's clients can send query parameters; none has a meaning."""
    assert infer(line, ASK, INFER + "?a=b").status == 200
    assert line.send(get("/v2/models/net?x")).answer().status == 200
