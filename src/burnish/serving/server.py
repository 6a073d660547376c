# SPDX-License-Identifier: Apache-2.0
"""The server process: listens, serves, swaps on SIGHUP, drains on SIGTERM.

SIGTERM   not ready any more; new requests are answered for `drain_s` with
          "Connection: close"; then no longer accepted; those under way are answered
SIGINT    the same at once: whoever presses Ctrl-C knows of no one who still comes
SIGHUP    the configuration is read again, and what changed is swapped
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from burnish.core.errors import BurnishError, Missing, Misuse
from burnish.serving.configuration import Configuration
from burnish.serving.handover import connected, deal_out, give_way
from burnish.serving.health import Health
from burnish.serving.heartbeat import Heartbeat
from burnish.serving.http.app import App
from burnish.serving.opening import serve_bundle
from burnish.serving.repository import Repository

_log = logging.getLogger(__name__)
_access = logging.getLogger("burnish.serving.access")

_SWITCH_S = 0.001
"""How long a thread keeps the interpreter when another wants it; 5 ms is Python's own."""
_COLLECT_AFTER = 10_000
"""Objects; Python's own is 700, which a hundred requests make."""
_STUCK_S = 10.0
_BACKLOG = 2048
_GRACE_S = 30
_HEAD_S = 10.0
_GIVEN_WAY_S = 0.05
_OTHER_FILES = 256
"""Open files of a server besides its connections."""


@dataclass(frozen=True)
class Listening:
    """Where the server listens."""

    url: str
    port: int
    grpc_port: int | None
    health_port: int | None


class Server:
    """One server; `run` serves until it is told to stop."""

    def __init__(
        self, configuration: Configuration, read_again: Callable[[], Configuration] | None = None
    ) -> None:
        """`read_again` gives the configuration anew, at SIGHUP."""
        self.configuration = configuration
        self._read_again = read_again
        self._stop = asyncio.Event()
        self._drain_s = configuration.drain_s
        self._reloading: set[asyncio.Task[None]] = set()
        self._reload_one = asyncio.Lock()

    def stop(self) -> None:
        """Asks the server to drain and stop."""
        self._stop.set()

    def stop_at_once(self) -> None:
        """Asks the server to answer what it has, and stop."""
        self._drain_s = 0.0
        self._stop.set()

    async def run(self, listening: Callable[[Listening], None] = lambda _: None) -> None:
        """Serves until `stop`, SIGTERM or SIGINT; calls `listening` when all models are ready.

        Raises `Misuse` when a port is taken or a bundle cannot be opened.
        """
        sys.setswitchinterval(_SWITCH_S)
        _allow_files(self.configuration.max_connections + _OTHER_FILES)
        with self._signals():
            async with self.serving() as where:
                _collect_seldom()
                listening(where)
                await self._stop.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Listening]:
        """Listens and answers while the block runs; drains at its end."""
        own = self.configuration
        repository = Repository(own.models, serve_bundle, own.memory_bytes)
        beating = Heartbeat()
        self._app = app = App(repository, own.policy, beating.lag)
        self._repository = repository
        with contextlib.ExitStack() as stack:
            http = stack.enter_context(contextlib.closing(_bound(own.host, own.port)))
            port = http.getsockname()[1]
            health = None
            if own.health_port is not None:
                health = self._health(own, beating, repository, app)
                stack.callback(health.close)
            heart = asyncio.create_task(beating.run())
            grpc = web = running = None
            try:
                await repository.start()
                _listen(http, own.host, own.port)  # not before: a successor shares the port
                web, running = await _uvicorn(app, own, http)
                if own.grpc_port is not None:
                    grpc = await self._grpc(own, repository)
                scheme = "https" if own.certificate else "http"
                yield Listening(
                    f"{scheme}://{own.host}:{port}",
                    port,
                    grpc.port if grpc else None,
                    health.port if health else None,
                )
                app.draining = True
                repository.ready = False
                _log.info("draining seconds=%g", self._drain_s)
                await asyncio.sleep(self._drain_s)
            finally:
                app.draining = True
                if grpc is not None:
                    await grpc.stop(_GRACE_S)
                if web is not None and running is not None:
                    web.should_exit = True
                    await running
                await repository.close()
                await asyncio.to_thread(app.large_json.close)
                heart.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await heart

    def _health(
        self, own: Configuration, beating: Heartbeat, repository: Repository, app: App
    ) -> Health:
        def live() -> bool:
            return time.monotonic() - beating.beat_s < _STUCK_S

        def ready() -> bool:
            return live() and repository.ready and not app.draining

        try:
            return Health(own.host, own.health_port or 0, live, ready)
        except OSError as error:
            raise _taken(own.host, own.health_port or 0, error, "health_port") from error

    async def _grpc(self, own: Configuration, repository: Repository) -> Any:
        try:
            from burnish.serving.grpc_service.server import GrpcServer
        except ImportError as error:
            raise Missing("the server's gRPC side", "grpcio", "serve") from error
        grpc = GrpcServer(
            repository,
            own.host,
            own.grpc_port or 0,
            max_message_bytes=own.policy.body.size_bytes,
            tokens=own.policy.tokens,
            repository_control=own.policy.repository_control,
            max_connections=own.max_connections,
            rate_per_s=own.policy.rate_per_s,
            certificate=own.certificate,
            key=own.key,
        )
        await grpc.start()
        return grpc

    @contextlib.contextmanager
    def _signals(self) -> Any:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop_at_once)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(one)

    def _reload(self) -> None:
        if self._read_again is None:
            _log.warning("not-reloaded reason=the server was started without --config")
            return
        task = asyncio.get_running_loop().create_task(self.reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def reload(self) -> None:
        """Reads the configuration again and swaps the models; what is wrong is logged.

        One reload follows the other: the last one called has the last word.
        """
        assert self._read_again is not None
        async with self._reload_one:
            try:
                new = await asyncio.to_thread(self._read_again)
                known = {one["name"] for one in self._repository.index()}
                for options in new.models:
                    await self._repository.swap(options)
                for name in known - {one.served_name for one in new.models}:
                    self._repository.remove(name)
                self.configuration = new
                _log.info("reloaded models=%d", len(new.models))
            except BurnishError as error:
                _log.error("not-reloaded reason=%s", error)
            except Exception:  # noqa: BLE001 - the worker: what was served goes on
                _log.exception("not-reloaded")


async def _uvicorn(app: App, own: Configuration, listener: socket.socket) -> tuple[Any, Any]:
    """Returns uvicorn's server, which is up, and the task that it runs in."""
    try:
        import uvicorn
    except ImportError as error:
        raise Missing("the server", "uvicorn", "serve") from error
    from burnish.serving.http.repeated_heads import protocol_of

    class Web(uvicorn.Server):
        """uvicorn's server, which leaves nobody behind who has connected."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            waiting = [one for listener in sockets or [] for one in give_way(listener)]
            await asyncio.sleep(_GIVEN_WAY_S)
            waiting += connected(sockets or [])
            for server in self.servers:  # at once, so that hardly one more can come
                server.close()
            accept = asyncio.get_running_loop().connect_accepted_socket
            accepted = [accept(self._protocol, one, ssl=config.ssl) for one in waiting]
            await asyncio.gather(*accepted, return_exceptions=True)
            await super().shutdown(sockets)

        def _protocol(self) -> Any:
            return protocol(
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

    head_s = min(_HEAD_S, own.policy.body.seconds)
    protocol = protocol_of(own.max_connections, head_s, app.repeated)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # Whose a request is matters to rates and logs only, and costs every request.
        proxy_headers=own.policy.rate_per_s is not None or _access.isEnabledFor(logging.INFO),
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=own.keep_alive_s,
        timeout_graceful_shutdown=_GRACE_S,
        limit_concurrency=None,
        ssl_certfile=str(own.certificate) if own.certificate else None,
        ssl_keyfile=str(own.key) if own.key else None,
    )
    try:
        config.load()
    except OSError as error:  # what ssl raises is one
        told = f"the certificate {own.certificate} with the key {own.key} cannot be used"
        raise Misuse(f"{told}: {error.strerror or error}") from error
    web = Web(config)
    web.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(web.serve(sockets=[listener]))
    while not web.started:
        if running.done():
            running.result()
            raise Misuse("the server stopped before it was up")
        await asyncio.sleep(0.005)
    return web, running


def _collect_seldom() -> None:
    """Keeps the garbage collector from walking all that is loaded, over and over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 2)


def _allow_files(n: int) -> None:
    """Raises the limit on open files, as far as the system lets this process."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n if hard == resource.RLIM_INFINITY else min(n, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < n:
        _log.warning("few-files limit=%d wanted=%d: raise `ulimit -n`", soft, n)


def _bound(host: str, port: int) -> socket.socket:
    """Returns a bound socket; a successor can listen on the same port beside it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without its protocol, asyncio would leave Nagle's algorithm on: 40 ms for some answers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port and hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _taken(host, port, error, "port") from error
    return listener


def _listen(listener: socket.socket, host: str, port: int) -> None:
    try:
        listener.listen(_BACKLOG)
        deal_out(listener)
    except OSError as error:
        raise _taken(host, port, error, "port") from error


def _taken(host: str, port: int, error: OSError, option: str) -> Misuse:
    return Misuse(f"cannot listen on {host}:{port}: {error.strerror}; choose another {option}")


def serve(
    configuration: Configuration,
    read_again: Callable[[], Configuration] | None = None,
    listening: Callable[[Listening], None] = lambda _: None,
) -> None:
    """Serves until the process is told to stop; on uvloop where it is installed."""

    async def run() -> None:
        await Server(configuration, read_again).run(listening)

    try:
        import uvloop
    except ImportError:
        asyncio.run(run())
        return
    uvloop.run(run())
