# SPDX-License-Identifier: Apache-2.0
"""Sends an attempt and gives what came of it, over httpx: HTTP/1.1, connections kept.

The only file that knows httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, cast

from burnish.core.errors import Missing, Misuse
from burnish.serving.client.answer import Answer
from burnish.serving.client.ask import Ask, pieces
from burnish.serving.client.body import Body
from burnish.serving.client.errors import BadAnswer, ServerUnreachable
from burnish.serving.client.exchange import Attempt, Failed, Late, Result
from burnish.serving.oip.faults import shown
from burnish.serving.trust import trusting

try:
    import httpx
except ImportError as error:
    raise Missing("the client", "httpx", "serve") from error

_PIECE_BYTES = 256 * 1024
"""What is handed to the socket at once: httpcore copies what is left of it at each send."""
_LEAST_S = 1e-3
"""A timeout of 0 would mean not to wait at all, which is another error."""
_MOST_S = 1e6
"""Sockets take no timeout of any size."""
_LIMITS = httpx.Limits(max_connections=256, max_keepalive_connections=256, keepalive_expiry=10.0)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Place:
    """Where the server is, and what is said to it each time."""

    url: str
    host: str
    headers: Mapping[str, str]
    most_bytes: int
    clock: Callable[[], float]
    certificate: Path | None

    def request(self, attempt: Attempt) -> httpx.Request:
        """Returns an attempt as httpx has it."""
        ask = attempt.ask
        left = _Left(attempt.until_s, self.clock)
        return httpx.Request(
            ask.method,
            self.url + ask.path,
            headers={**self.headers, **ask.headers},
            stream=_Stream(ask),
            extensions={"timeout": left},
        )

    def failed(self, error: httpx.HTTPError, began: bool) -> Failed | Late:
        """Returns what an error of httpx comes to; `began`: there was a status already."""
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return Late()
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            raise Misuse(f"the request cannot be sent: {error}") from error
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            what = f"expected a server at {self.url}, got no connection"
        elif began:
            what = f"the connection to {self.url} broke in the middle of the answer"
        else:
            what = f"the connection to {self.url} broke before an answer"
        failed = ServerUnreachable(
            f"{what}: {error or type(error).__name__}; see that the server runs there and is "
            "what the URL says"
        )
        failed.__cause__ = error
        # A certificate that is not trusted now will not be trusted in a moment.
        return Failed(failed, again=not began and "CERTIFICATE_VERIFY_FAILED" not in str(error))

    def options(self) -> dict[str, Any]:
        """Returns the options of httpx's clients, sync and async."""
        return {
            "verify": True if self.certificate is None else trusting(self.certificate),
            "limits": _LIMITS,
            "follow_redirects": False,  # the token is for this server only
            "trust_env": self.host not in _LOOPBACK,  # no proxy on the way to this machine
        }


class Wire:
    """Sends attempts, and waits for what comes."""

    def __init__(self, place: Place, transport: httpx.BaseTransport | None) -> None:
        self._place = place
        self._client = httpx.Client(transport=transport, **place.options())

    def send(self, attempt: Attempt) -> Result:
        """Returns what came of it.

        The time is up at the first byte after `until_s`; each stage (connecting, writing,
        waiting for the head, reading on) waits no longer than was left when it began.
        """
        _need_open(self._client)
        began = False
        try:
            response = self._client.send(self._place.request(attempt), stream=True)
            began = True
            with contextlib.closing(response):
                headers = _headers(response)
                body = Body(headers, self._place.most_bytes)
                for piece in response.iter_raw():
                    body.add(piece)
                    if self._place.clock() > attempt.until_s:
                        return Late()
            return Answer(response.status_code, headers, body.whole())
        except httpx.HTTPError as error:
            return self._place.failed(error, began)
        except BadAnswer as error:
            return Failed(error, again=False)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


class AsyncWire:
    """Sends attempts, and lets others run until something comes."""

    def __init__(self, place: Place, transport: httpx.AsyncBaseTransport | None) -> None:
        self._place = place
        self._client = httpx.AsyncClient(transport=transport, **place.options())

    async def send(self, attempt: Attempt) -> Result:
        """Returns what came of it until `until_s`."""
        _need_open(self._client)
        began = False
        try:
            async with asyncio.timeout(max(0.0, attempt.until_s - self._place.clock())):
                response = await self._client.send(self._place.request(attempt), stream=True)
                began = True
                try:
                    headers = _headers(response)
                    body = Body(headers, self._place.most_bytes)
                    async for piece in response.aiter_raw():
                        body.add(piece)
                finally:
                    await response.aclose()
                return Answer(response.status_code, headers, body.whole())
        except TimeoutError:
            return Late()
        except httpx.HTTPError as error:
            return self._place.failed(error, began)
        except BadAnswer as error:
            return Failed(error, again=False)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def place(
    url: str,
    token: str | None,
    most_bytes: int,
    clock: Callable[[], float],
    certificate: str | Path | None,
) -> Place:
    """Returns where to ask; the URL's scheme may be left out. Raises `Misuse`.

    >>> place("127.0.0.1:8000/", None, 1, lambda: 0.0, None).url
    'http://127.0.0.1:8000'
    """
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = httpx.URL(whole)
    except httpx.InvalidURL as error:
        raise Misuse(f"{url!r} is no URL: {error}") from error
    sound = parts.scheme in ("http", "https") and parts.host and 0 < (parts.port or 80) < 65536
    if not sound or parts.query or parts.fragment:
        raise Misuse(f'expected a URL as "http://127.0.0.1:8000", got {url!r}')
    if parts.userinfo:
        raise Misuse("expected a URL without a user or password: give token=...")
    if isinstance(most_bytes, bool) or not isinstance(most_bytes, int) or most_bytes < 1:
        raise Misuse(f"expected max_response_bytes of 1 or more, got {shown(most_bytes)}")
    headers = {
        "Host": parts.netloc.decode("ascii"),
        "User-Agent": f"burnish/{installed_version('burnish')}",
        "Accept-Encoding": "identity",
    }
    if token is not None:
        # No repr: a token does not belong in a log.
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise Misuse("expected a token of printable ASCII without spaces, got another")
        headers["Authorization"] = f"Bearer {token}"
    trusted = None if certificate is None else Path(certificate)
    return Place(str(parts).rstrip("/"), parts.host, headers, most_bytes, clock, trusted)


class _Left(Mapping[str, float]):
    """httpx's timeouts: for each stage, what is left when the stage begins."""

    def __init__(self, until_s: float, clock: Callable[[], float]) -> None:
        self._until_s, self._clock = until_s, clock

    def __getitem__(self, stage: str) -> float:
        return min(max(_LEAST_S, self._until_s - self._clock()), _MOST_S)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A request's body: whole when it is small, else in pieces that are not copied here."""

    def __init__(self, ask: Ask) -> None:
        small = ask.nbytes <= _PIECE_BYTES
        self._buffers: tuple[bytes | memoryview, ...] = (
            (b"".join(ask.buffers),) if small else ask.buffers
        )

    def __iter__(self) -> Iterator[bytes]:
        # httpcore joins what it sends, and takes any buffers.
        return cast(Iterator[bytes], pieces(self._buffers, _PIECE_BYTES))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _need_open(client: httpx.Client | httpx.AsyncClient) -> None:
    if client.is_closed:
        raise Misuse("this client is closed: make another")
