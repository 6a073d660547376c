# SPDX-License-Identifier: Apache-2.0
"""The protocol's infer route: tensors in, tensors out.

`infer` waits for what has to be waited for: a body, a model that is opened again, a large
document that a thread reads or writes. What lies between (`submitted`, `reply_at_once`) waits
for nothing, and is shared with `repeat`.
"""

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
    coding_wanted,
    compressed,
    declared_bytes,
    land,
    lands,
    read_body,
)
from burnish.serving.http.outcome import Inferred
from burnish.serving.large_json import LARGE_BYTES, LARGE_ELEMENTS, LargeJson
from burnish.serving.oip.framing import HEADER, Encoded
from burnish.serving.oip.framing import Limits as JsonLimits
from burnish.serving.oip.raw import decode_raw_request, is_raw
from burnish.serving.oip.request import InferRequest, decode_request
from burnish.serving.oip.response import InferResponse, encode_response, respond
from burnish.serving.repository import Repository
from burnish.serving.served_model import Answer, ServedModel

_HEADER = HEADER.lower().encode()


class Submitted(NamedTuple):
    """A request in the queue of a model, since `queued_ms` on perf_counter's clock."""

    request: InferRequest
    future: asyncio.Future[Answer]
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
    header_length, ahead = announced(call)
    size = declared_bytes(call, limits)
    place = None
    expected = served.expect_body(size)
    try:
        if ahead is not None and lands(call):
            place = served.landing.place(size - ahead)
        if ahead is not None and place is not None:
            body = await land(call, limits, ahead, place)
        else:
            body = await read_body(call, limits, min(ahead or 0, limits.size_bytes))
    finally:
        if expected:
            served.body_over()
    read = None
    if header_length is None and LARGE_BYTES < len(body) <= json_limits.json_bytes:
        read = await large.read(body)
    served = repository.find(name, version)  # another may have taken its place by now
    if read is None:
        read = decoded(served, body, header_length, json_limits, place)
    request, future, queued_ms = submitted(served, read)
    answer = await unless_gone(future, call)
    reply = reply_at_once(request, answer, served)
    if reply is None:
        reply = await reply_by_thread(request, answer, served, large)
    coding = coding_wanted(call)
    if coding is not None:
        reply = await compressed(reply, coding)
    return Inferred(reply, served, answer, queued_ms)


def announced(call: Call) -> tuple[bytes | None, int | None]:
    """Returns what the header says of the JSON before the tensors: as it came, and as a length.

    The length is None for what is none, which `decoded` refuses.
    """
    header_length = call.headers.get(_HEADER)
    if header_length is None:
        return None, None
    header_length = header_length.strip(b" \t")
    if header_length.isdigit() and len(header_length) <= MOST_DIGITS:
        return header_length, int(header_length)
    return header_length, None


def decoded(
    served: ServedModel,
    body: memoryview,
    header_length: bytes | None,
    limits: JsonLimits,
    place: memoryview | None,
) -> InferRequest:
    """Returns the request in a body, of which `place` has what is behind the JSON, if given."""
    if is_raw(header_length):
        whole = body if place is None else place
        return decode_raw_request(whole, served.signature, served.rows.batched)
    return decode_request(body, header_length, limits, place)


def submitted(served: ServedModel, request: InferRequest) -> Submitted:
    """Puts a request in the queue of a model. Raises `Fault` for one that does not fit it."""
    timeout_ms, priority = asked(request.parameters)
    request.wanted(served.output_names)
    inputs = {tensor.name: tensor.array for tensor in request.inputs}
    future = served.submit(inputs, timeout_ms, priority)
    return Submitted(request, future, time.perf_counter() * 1e3)


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


def reply_at_once(request: InferRequest, answer: Answer, served: ServedModel) -> Reply | None:
    """Returns the reply, or None where to write it would hold up the event loop."""
    response = _response(request, answer, served)
    elements = sum([one.array.size for one in response.outputs if not one.binary])
    if elements > LARGE_ELEMENTS and not any(one.binary for one in response.outputs):
        return None
    return _reply(encode_response(response))


async def reply_by_thread(
    request: InferRequest, answer: Answer, served: ServedModel, large: LargeJson
) -> Reply:
    """Returns the reply, written elsewhere."""
    return _reply(await large.write(_response(request, answer, served)))


def _response(request: InferRequest, answer: Answer, served: ServedModel) -> InferResponse:
    classes = any(one.classification for one in request.outputs)
    labels = labels_of(answer, served) if classes else None
    return respond(request, answer.outputs, served.name, served.version, labels)


def _reply(encoded: Encoded) -> Reply:
    if encoded.header_length is None:
        return Reply(200, encoded.buffers)
    headers = ((_HEADER, str(encoded.header_length).encode()),)
    return Reply(200, encoded.buffers, "application/octet-stream", headers)
