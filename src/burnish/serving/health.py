# SPDX-License-Identifier: Apache-2.0
"""Live and ready on a thread and port of their own, so that they answer whatever the load."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_log = logging.getLogger(__name__)
_READ_S = 5.0


class _Server(ThreadingHTTPServer):
    """The standard server, without looking its own name up, and quiet about who goes away."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("health client=%s", client_address, exc_info=True)


class Health:
    """Answers /v2/health/live and /v2/health/ready; `live` and `ready` must be quick."""

    def __init__(
        self, host: str, port: int, live: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        """Listens at once. Raises `OSError` when the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_S

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                checks = {"/v2/health/live": live, "/v2/health/ready": ready}
                check = checks.get(self.path)
                good = check is not None and check()
                body = json.dumps({"live": live(), "ready": ready()}).encode()
                self.send_response(200 if good else 404 if check is None else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                _log.debug(format, *args)

        self._server = _Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="burnish-health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
