# SPDX-License-Identifier: Apache-2.0
"""What a server says about the model that is to be loaded."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from burnish.core.errors import Misuse
from burnish.serving.load.address import Address, address
from burnish.serving.load.payload import Payload, Sizes, random_payload
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import parse
from burnish.serving.trust import trusting

_TIMEOUT_S = 10.0
_MOST_BYTES = 16 * 2**20
_GIVEN_BY_METADATA = Sizes()


def asked_payload(
    url: str,
    model: str | None = None,
    sizes: Sizes = _GIVEN_BY_METADATA,
    seed: int = 0,
    headers: Mapping[str, str] | None = None,
    certificate: Path | None = None,
) -> Payload:
    """Returns a request with random values for a model, by default the only one there.

    certificate: a PEM file of those to trust, where the URL begins with https.
    """
    where = address(url, certificate)
    name = only_model(url, headers, certificate) if model is None else model
    said = _ask(where, "GET", f"/v2/models/{quote(name, safe='')}", headers, certificate)
    return random_payload({**said, "name": name}, sizes, seed)


def only_model(
    url: str, headers: Mapping[str, str] | None = None, certificate: Path | None = None
) -> str:
    """Returns the name of the one model that is ready. Raises `Misuse` where that is unclear."""
    where = address(url, certificate)
    try:
        said = _ask(where, "POST", "/v2/repository/index", headers, certificate, listed=True)
        listed = said["index"]
    except Fault as error:
        raise Misuse(f"{error}; say which model with --model NAME") from error
    names = sorted(
        {
            str(one["name"])
            for one in listed
            if isinstance(one, dict) and "name" in one and one.get("state", "READY") == "READY"
        }
    )
    if len(names) != 1:
        found = ", ".join(names[:20]) or "none"
        raise Misuse(f"say which model with --model NAME: {url} has {found}")
    return names[0]


def _ask(
    where: Address,
    method: str,
    path: str,
    headers: Mapping[str, str] | None,
    certificate: Path | None,
    listed: bool = False,
) -> dict[str, Any]:
    """Returns a document from the server; `listed`: its list, as {"index": list}."""
    connection: http.client.HTTPConnection
    if where.tls:
        connection = http.client.HTTPSConnection(
            where.host, where.port, timeout=_TIMEOUT_S, context=trusting(certificate)
        )
    else:
        connection = http.client.HTTPConnection(where.host, where.port, timeout=_TIMEOUT_S)
    said = f"{method} {path} at {where.authority}"
    try:
        body = b"{}" if method == "POST" else None
        sent = {"Content-Type": "application/json"} if body else {}
        connection.request(method, where.prefix + path, body, sent | dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Misuse(
            f"{said}: no answer ({str(error) or type(error).__name__}): is the server running?"
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Fault(f"{said} was answered with {answer.status}{_reason(content)}", answer.status)
    document = parse(b'{"index":' + content + b"}" if listed else content)
    if listed and not isinstance(document["index"], list):
        raise Fault(f"{said}: expected a list of models")
    return document


def _reason(content: bytes) -> str:
    try:
        error = parse(content).get("error")
    except Fault:
        return ""
    return f": {str(error)[:200]}" if error else ""
