# SPDX-License-Identifier: Apache-2.0
"""What a server's URL says, and a request to it as the bytes that are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from burnish.core.errors import Misuse

_FORBIDDEN = ("\r", "\n", "\0")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the path below which its API is."""

    host: str
    port: int
    prefix: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(url: str, certificate: Path | None = None) -> Address:
    """Returns what a URL says; the scheme may be left out.

    certificate: what is trusted there, which needs a URL that begins with https.

    >>> address("http://127.0.0.1:8000/"), address("box/models").prefix
    (Address(host='127.0.0.1', port=8000, prefix='', tls=False), '/models')
    >>> address("https://box").port
    443
    """
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Misuse(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise Misuse(f"expected a URL that begins with http:// or https://, got {url!r}")
    if not host or parts.query or parts.fragment or parts.username or not url.isprintable():
        raise Misuse(f'expected a URL as "http://127.0.0.1:8000", got {url!r}')
    if certificate is not None and parts.scheme != "https":
        raise Misuse(f"a certificate is for https://, and {url!r} is without TLS")
    own_port = _PORTS[parts.scheme] if port is None else port
    prefix = quote(parts.path.rstrip("/"), safe="/%")
    return Address(host, own_port, prefix, parts.scheme == "https")


def infer_path(prefix: str, model: str) -> str:
    """Returns the path to which a model's requests go."""
    return f"{prefix}/v2/models/{quote(model, safe='')}/infer"


def post(
    where: Address,
    path: str,
    headers: Mapping[str, str],
    body: Iterable[bytes | memoryview],
) -> bytes:
    """Returns a whole request, to be written again and again as it is.

    >>> post(Address("h", 80), "/p", {"Content-Length": "2"}, [b"ab"]).split(b"\\r\\n")
    [b'POST /p HTTP/1.1', b'Host: h:80', b'Content-Length: 2', b'', b'ab']
    """
    said = {"Host": where.authority, **headers}
    for name, value in said.items():
        if not name or any(one in name + value for one in _FORBIDDEN) or ":" in name:
            raise Misuse(f"a header is written as NAME: VALUE on one line, got {name!r}: {value!r}")
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    try:
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError as error:
        raise Misuse(f"a header cannot hold {error.object[error.start]!r}") from error
    return b"".join([head, *body])
