# SPDX-License-Identifier: Apache-2.0
"""A request to the server, ready to be sent: no sockets, no clock."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from burnish.core.errors import Misuse
from burnish.serving.oip.faults import shown
from burnish.serving.oip.framing import Parameter
from burnish.serving.oip.request import InferRequest, RequestedOutput, encode_request
from burnish.serving.oip.tensors import Tensor

_GZIP_BITS, _GZIP_LEVEL = 31, 1
_MOST_MICROSECONDS = 2**63 - 1


@dataclass(frozen=True)
class Ask:
    """A method, a path below the server's URL, headers, and a body in pieces."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    buffers: tuple[bytes | memoryview, ...] = ()

    @property
    def nbytes(self) -> int:
        """The length of the body."""
        return sum(map(len, self.buffers))


@dataclass(frozen=True, eq=False)
class Inference:
    """What is asked of a model; `ask` writes it, once for each attempt."""

    inputs: Mapping[str, Any]
    outputs: Sequence[str] | None = None
    priority: int = 0
    id: str | None = None
    binary: bool = True
    compress: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping) or not self.inputs:
            raise Misuse(f"expected inputs by name, one or more, got {shown(self.inputs)}")
        if isinstance(self.outputs, str):
            raise Misuse(f"expected a list of outputs, got the string {shown(self.outputs)}")
        if (
            isinstance(self.priority, bool)
            or not isinstance(self.priority, int)
            or self.priority < 0
        ):
            raise Misuse(
                "expected a priority that is a whole number of 0 or more, 0 the most urgent, "
                f"got {shown(self.priority)}"
            )

    def ask(self, model: str, version: str | None, left_s: float) -> Ask:
        """Returns the request, which says how long there is to answer it (infinite: nothing).

        Raises `Fault` for what the protocol cannot hold.
        """
        own: dict[str, Parameter] = {}
        if left_s < math.inf:
            own["timeout"] = max(1, int(min(left_s * 1e6, _MOST_MICROSECONDS)))  # 0 is none
        if self.priority:
            own["priority"] = self.priority
        encoded = encode_request(
            InferRequest(
                tuple(
                    Tensor(name, np.asarray(array), self.binary)
                    for name, array in self.inputs.items()
                ),
                tuple(RequestedOutput(name, self.binary) for name in self.outputs or ()),
                self.id,
                self.binary,
                own,
            )
        )
        path, headers, buffers = _infer_path(model, version), encoded.headers, encoded.buffers
        if not self.compress:
            return Ask("POST", path, headers, buffers)
        packed = _packed(buffers)
        coded = {
            "Content-Length": str(len(packed)),
            "Content-Encoding": "gzip",
            "Accept-Encoding": "gzip",
        }
        return Ask("POST", path, headers | coded, (packed,))


def get(*parts: str) -> Ask:
    """Returns a GET of a path, of which each part is quoted."""
    return Ask("GET", _path(*parts))


def post(*parts: str, document: object = None) -> Ask:
    """Returns a POST of a JSON document; None has no body."""
    if document is None:
        return Ask("POST", _path(*parts), {"Content-Length": "0"})
    return _with_body(_path(*parts), "application/json", json.dumps(document).encode())


def predict(model: str, version: str | None, content_type: str, body: bytes) -> Ask:
    """Returns a request to the plain route."""
    return _with_body(_path("v1", *_model(model, version), "predict"), content_type, body)


def pieces(buffers: Iterable[bytes | memoryview], most_bytes: int) -> Iterator[bytes | memoryview]:
    """Yields a body in pieces of at most `most_bytes`, not copied; small ones come as they are.

    >>> [bytes(one) for one in pieces([b"abc", b"defgh"], 3)]
    [b'abc', b'def', b'gh']
    """
    for buffer in buffers:
        if len(buffer) <= most_bytes:
            yield buffer
            continue
        view = memoryview(buffer)
        for start in range(0, len(view), most_bytes):
            yield view[start : start + most_bytes]


def _infer_path(model: str, version: str | None) -> str:
    return _path("v2", *_model(model, version), "infer")


def _model(name: str, version: str | None) -> tuple[str, ...]:
    return ("models", name) if version is None else ("models", name, "versions", str(version))


def _with_body(path: str, content_type: str, body: bytes) -> Ask:
    headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
    return Ask("POST", path, headers, (body,))


def _path(*parts: str) -> str:
    """Returns a path; a part that is empty or dots would name another one."""
    for part in parts:
        if not isinstance(part, str) or part in ("", ".", ".."):
            raise Misuse(f"expected the name of a model or version, got {shown(part)}")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _packed(buffers: Iterable[bytes | memoryview]) -> bytes:
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    return b"".join([*map(packer.compress, buffers), packer.flush()])
