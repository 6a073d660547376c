# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: sockets, TLS, tokens, limits, deadlines and status codes.

Live, ready and a model's ready need no token. A call without a valid one is refused before
its message is read. What is refused for want of time or room says when to ask again in the
trailing metadata `retry-after-ms`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from burnish.core.errors import Missing, Misuse
from burnish.serving.gate import UNAUTHORIZED, Rate, Tokens
from burnish.serving.grpc_service.service import FORBIDDEN, NAME, Method, Service
from burnish.serving.oip.faults import BAD_REQUEST, OUR_FAULT, TOO_LARGE, Fault
from burnish.serving.refusals import CANNOT_NOW, NOT_THERE, TOO_LATE, TOO_MANY, Refused
from burnish.serving.repository import Repository

_log = logging.getLogger(__name__)

RETRY_AFTER = "retry-after-ms"
OPEN = frozenset(f"/{NAME}/{method}" for method in ("ServerLive", "ServerReady", "ModelReady"))
"""The methods that need no token."""

_CODES = {
    BAD_REQUEST: "INVALID_ARGUMENT",
    UNAUTHORIZED: "UNAUTHENTICATED",
    FORBIDDEN: "PERMISSION_DENIED",
    NOT_THERE: "NOT_FOUND",
    TOO_LARGE: "RESOURCE_EXHAUSTED",
    TOO_MANY: "UNAVAILABLE",
    CANNOT_NOW: "UNAVAILABLE",
    TOO_LATE: "DEADLINE_EXCEEDED",
}
_HIDDEN = "the server failed to answer"
_MOST_DETAIL = 600  # letters; in a header, each may take 12 bytes of its 8 KiB
_LOWEST_PING_MS = 10_000  # clients that ping more often are cut off
_PING_MS, _PONG_MS = 60_000, 20_000
_STREAMS_PER_CONNECTION = 1024


class GrpcServer:
    """The repository's models over gRPC, on the repository's event loop."""

    def __init__(
        self,
        repository: Repository,
        host: str = "127.0.0.1",
        port: int = 8001,
        *,
        max_message_bytes: int = 64 * 2**20,
        max_connections: int = 1024,
        max_calls: int = 4096,
        tokens: Iterable[str] = (),
        rate_per_s: float | None = None,
        repository_control: bool = False,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """Takes where to listen and what to allow.

        port: 0 for any free one. max_calls: calls that are answered at once; each may hold a
        message. tokens: any of them opens the server; none, and it is open. rate_per_s: calls
        of each client. certificate, key: files in PEM form for TLS.
        """
        if (certificate is None) != (key is None):
            raise Misuse("TLS needs both a certificate and its key")
        self.host, self.port = host, port
        self._service = Service(repository, repository_control)
        self._tokens, self._rate = Tokens(tokens), Rate(rate_per_s)
        self._tls = None if certificate is None or key is None else (key, certificate)
        self._max_calls = max_calls
        self._options = _options(max_message_bytes, max_connections, port)
        self._server: Any = None

    async def start(self) -> int:
        """Listens, and returns the port. Raises `Misuse` when it is taken."""
        grpc = _grpc()
        server = grpc.aio.server(
            interceptors=[_gate(grpc, self._tokens)],
            options=self._options,
            maximum_concurrent_rpcs=self._max_calls,
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(grpc, name, method))
            for name, method in self._service.methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
        host = f"[{self.host}]" if ":" in self.host else self.host
        address = f"{host}:{self.port}"
        try:
            if self._tls is None:
                port = server.add_insecure_port(address)
            else:
                pair = tuple(_read(path) for path in self._tls)
                port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise Misuse(
                f"cannot listen on {address} for gRPC: choose another grpc_port"
            ) from error
        await server.start()
        self._server, self.port = server, int(port)
        return self.port

    async def stop(self, grace_s: float = 30.0) -> None:
        """Takes no more calls; those under way have `grace_s` to be answered."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace_s)

    def _answering(self, grpc: Any, name: str, method: Method) -> Callable[[bytes, Any], Any]:
        async def answer(body: bytes, call: Any) -> bytes | None:
            try:
                if f"/{NAME}/{name}" not in OPEN:
                    self._rate.check(call.peer().rpartition(":")[0])
                left_s = call.time_remaining()
                return await method(body, math.inf if left_s is None else left_s * 1e3)
            except Fault as fault:
                if fault.status == OUR_FAULT:
                    _log.error("failed method=%s error=%s", name, fault)
                failed = fault
            except Exception:  # noqa: BLE001 - the edge: the client is told no detail, the log all
                _log.exception("failed method=%s", name)
                failed = Fault(_HIDDEN, OUR_FAULT)
            await _abort(grpc, call, failed)
            return None

        return answer


def code_of(fault: Fault) -> str:
    """Returns the name of the status code for a fault.

    >>> code_of(Fault("no such model", 404)), code_of(Fault("oh", 500))
    ('NOT_FOUND', 'INTERNAL')
    """
    return _CODES.get(fault.status, "INTERNAL")


async def _abort(grpc: Any, call: Any, fault: Fault) -> None:
    """Ends a call with the fault's code; raises, as grpc's own `abort` does."""
    detail = _HIDDEN if fault.status == OUR_FAULT else str(fault)[:_MOST_DETAIL]
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(fault, Refused) and fault.retry_after_ms is not None:
        trailing = ((RETRY_AFTER, str(math.ceil(fault.retry_after_ms))),)
    await call.abort(grpc.StatusCode[code_of(fault)], detail, trailing)


def _gate(grpc: Any, tokens: Tokens) -> Any:
    """Returns what refuses calls that have no valid token, before their message is read."""

    def refusing(fault: Fault) -> Any:
        async def refuse(messages: Any, call: Any) -> None:
            await _abort(grpc, call, fault)

        return grpc.stream_unary_rpc_method_handler(refuse)

    class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, call: Any) -> Any:
            if call.method not in OPEN:
                given = _text(dict(call.invocation_metadata).get("authorization", ""))
                try:
                    tokens.check(given)
                except Fault as fault:
                    return refusing(fault)
            return await continuation(call)

    return Gate()


def _options(max_message_bytes: int, max_connections: int, port: int) -> list[tuple[str, int]]:
    most: Mapping[str, int] = {
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.max_allowed_incoming_connections": max_connections,
        "grpc.max_concurrent_streams": _STREAMS_PER_CONNECTION,
        "grpc.keepalive_time_ms": _PING_MS,
        "grpc.keepalive_timeout_ms": _PONG_MS,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.min_recv_ping_interval_without_data_ms": _LOWEST_PING_MS,
        # A successor can listen on the same port beside it, but not by accident on a free one.
        "grpc.so_reuseport": int(port != 0),
    }
    return list(most.items())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read {path} for TLS: {error.strerror}") from error


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _grpc() -> Any:
    try:
        import grpc.aio
    except ImportError as error:
        raise Missing("the server's gRPC side", "grpcio", "serve") from error
    return grpc
