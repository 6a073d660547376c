# SPDX-License-Identifier: Apache-2.0
"""How a server leaves its port to a successor: nobody who has connected is reset.

Two processes may listen on one port (SO_REUSEPORT); the kernel deals new connections out to
both, and resets those that wait in a listener when it closes. So the one that leaves first
has all new ones sent to the other, then accepts what waits, and only then closes. Linux
lets a program of one instruction choose the listener; elsewhere, and where not just two
listen, what connects between the last accept and the end is reset.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from pathlib import Path

# Of <asm-generic/socket.h> and <linux/filter.h>; Python has no names for them.
_ATTACH_REUSEPORT_CBPF, _DETACH_REUSEPORT_BPF = 51, 68
_RETURN = 0x06
_LISTENING = "0A"
_PROBE_S = 1.0


def give_way(listener: socket.socket) -> list[socket.socket]:
    """Has new connections go to the other listener of the port, where there is just one.

    Returns what was accepted on the way. The listeners are numbered, and which number is
    whose nobody tells: a connection of our own that does not arrive shows it.
    """
    found: list[socket.socket] = []
    if _listeners(listener.getsockname()[1]) != 2:
        return found
    for number in (1, 0):
        try:
            _choose(listener, number)
            with socket.create_connection(listener.getsockname()[:2], _PROBE_S) as probe:
                name = probe.getsockname()
                came = _accepted(listener)
        except OSError:
            break
        found += [one for one, peer in came if peer != name]
        own = [one for one, peer in came if peer == name]
        for one in own:
            one.close()
        if not own:
            return found
    deal_out(listener)
    return found


def deal_out(listener: socket.socket) -> None:
    """Has new connections go to all listeners of the port alike, as is usual."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _DETACH_REUSEPORT_BPF, 0)


def connected(listeners: list[socket.socket]) -> list[socket.socket]:
    """Returns the connections that wait to be accepted: closing their listener resets them."""
    return [one for listener in listeners for one, _ in _accepted(listener)]


def _accepted(listener: socket.socket) -> list[tuple[socket.socket, object]]:
    found: list[tuple[socket.socket, object]] = []
    listener.setblocking(False)
    with contextlib.suppress(OSError):  # BlockingIOError: no more
        while True:
            connection, peer = listener.accept()
            connection.setblocking(False)
            found.append((connection, peer))
    return found


def _choose(listener: socket.socket, number: int) -> None:
    """Has the kernel choose that listener of the port; one that is not there is none."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, number))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, program)


def _listeners(port: int) -> int:
    """Returns how many sockets listen on the port; 0 where that is not told."""
    lines = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            lines += Path("/proc/self/net", name).read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(
        one[3] == _LISTENING and int(one[1].rpartition(":")[2], 16) == port for one in fields
    )
