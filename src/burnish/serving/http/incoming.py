# SPDX-License-Identifier: Apache-2.0
"""The socket of a connection, beside its transport: what a large body costs to receive.

A body of some hundred kilobytes comes in dozens of segments, and the event loop would wake for
each few of them. Here it is woken when a good part of it, or all the rest, has come, and what
nobody wants is dropped without being copied. Linux only, and not under TLS, where the bytes of
the socket are not those of the body: elsewhere all is received as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import numpy as np

_WAKE_BYTES = 256 * 1024
_NEVER_WRITTEN = np.empty(1 << 24, np.uint8).data
"""Takes address space, and no memory."""


class Incoming:
    """What comes on one socket, which stays the transport's."""

    def __init__(self, where: Any) -> None:
        self._socket = socket.socket(where.family, where.type, where.proto, where.fileno())
        self._least = 1

    def drop(self, n: int) -> int:
        """Drops up to `n` bytes that have come; returns how many.

        The system need not copy them for that (tcp(7): MSG_TRUNC).
        """
        dropped = 0
        try:
            while dropped < n:
                wanted = min(n - dropped, len(_NEVER_WRITTEN))
                got = self._socket.recv_into(_NEVER_WRITTEN, wanted, socket.MSG_TRUNC)
                dropped += got
                if got < wanted:
                    break
        except OSError:
            pass  # nothing is there, or the connection has ended: the transport finds out
        return dropped

    def wake_for(self, n: int) -> None:
        """Has the loop woken when a good part of the `n` bytes that must still come is there.

        0: for whatever comes. The end of a connection wakes it in any case, and so does a
        receive buffer that can take no more (socket(7): SO_RCVLOWAT).
        """
        least = max(1, min(n, _WAKE_BYTES))
        if least != self._least:
            self._least = least
            with contextlib.suppress(OSError):  # the connection has ended: the transport finds out
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)

    def forget(self) -> None:
        """Leaves the socket to the transport alone."""
        self._socket.detach()

    def __del__(self) -> None:
        self.forget()  # a socket that is let go of would close what is the transport's


def incoming(transport: asyncio.BaseTransport) -> Incoming | None:
    """Returns what comes to a transport that is not encrypted; None where it cannot be had."""
    where = transport.get_extra_info("socket")
    if sys.platform != "linux" or where is None:
        return None
    return Incoming(where)
