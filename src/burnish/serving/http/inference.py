# SPDX-License-Identifier: Apache-2.0
"""The protocol's infer route: tensors in, tensors out."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from burnish.serving.asking import asked, labels_of
from burnish.serving.http.message import (
    MOST_DIGITS,
    BodyLimits,
    Call,
    Gone,
    Reply,
    compressed,
    declared_bytes,
    land,
    lands,
    read_body,
)
from burnish.serving.large_json import LARGE_BYTES, LARGE_ELEMENTS, LargeJson
from burnish.serving.oip.framing import HEADER
from burnish.serving.oip.framing import Limits as JsonLimits
from burnish.serving.oip.raw import decode_raw_request, is_raw
from burnish.serving.oip.request import InferRequest, decode_request
from burnish.serving.oip.response import encode_response, respond
from burnish.serving.repository import Repository
from burnish.serving.served_model import Answer, ServedModel

_HEADER = HEADER.lower().encode()


class Inferred(NamedTuple):
    """The reply, who gave it, and when the request was in the queue, on perf_counter's clock."""

    reply: Reply
    served: ServedModel
    answer: Answer
    queued_ms: float


async def infer(
    call: Call,
    repository: Repository,
    name: str,
    version: str | None,
    limits: BodyLimits,
    json_limits: JsonLimits,
    large: LargeJson,
) -> Inferred:
    """Returns the reply, and what a trace tells of it.

    Raises `Fault` for what cannot be answered, and `Gone` when the client went away.
    """
    served = await repository.get(name, version)  # whether it is there, before the body is read
    header_length = call.headers.get(_HEADER)
    ahead = None
    if header_length is not None:
        header_length = header_length.strip(b" \t")
        if header_length.isdigit() and len(header_length) <= MOST_DIGITS:
            ahead = int(header_length)
    size = declared_bytes(call, limits)
    place = None
    with served.awaiting_body(size):
        if ahead is not None and lands(call):
            place = served.landing.place(size - ahead)
        if ahead is not None and place is not None:
            body = await land(call, limits, ahead, place)
        else:
            body = await read_body(call, limits, min(ahead or 0, limits.size_bytes))
    early = None
    if header_length is None and LARGE_BYTES < len(body) <= json_limits.json_bytes:
        early = await large.read(body)
    served = repository.find(name, version)  # another may have taken its place by now
    if early is not None:
        request = early
    elif is_raw(header_length):
        whole = body if place is None else place
        request = decode_raw_request(whole, served.signature, served.rows.batched)
    else:
        request = decode_request(body, header_length, json_limits, place)
    timeout_ms, priority = asked(request.parameters)
    request.wanted(tuple(spec.name for spec in served.signature.outputs))
    future = served.submit(
        {tensor.name: tensor.array for tensor in request.inputs}, timeout_ms, priority
    )
    queued_ms = time.perf_counter() * 1e3
    answer = await unless_gone(future, call)
    reply = await _reply(request, answer, served, large)
    accepted = call.headers.get(b"accept-encoding")
    if accepted is not None:
        reply = await compressed(reply, accepted.decode("latin-1"))
    return Inferred(reply, served, answer, queued_ms)


async def unless_gone(future: asyncio.Future[Answer], call: Call) -> Answer:
    """Returns the answer; when the client goes away, takes the request back and raises `Gone`."""
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        future.cancel()

    if call.when_gone is None:
        return await future
    call.when_gone(leave)
    try:
        return await future
    except asyncio.CancelledError:
        if gone:
            raise Gone from None
        raise
    finally:
        call.when_gone(None)


async def _reply(
    request: InferRequest, answer: Answer, served: ServedModel, large: LargeJson
) -> Reply:
    response = respond(
        request, answer.outputs, served.name, served.version, labels_of(answer, served)
    )
    elements = sum(one.array.size for one in response.outputs if not one.binary)
    if elements > LARGE_ELEMENTS and not any(one.binary for one in response.outputs):
        encoded = await large.write(response)
    else:
        encoded = encode_response(response)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type = "application/json"
    if encoded.header_length is not None:
        headers = ((_HEADER, str(encoded.header_length).encode()),)
        content_type = "application/octet-stream"
    return Reply(200, encoded.buffers, content_type, headers)
