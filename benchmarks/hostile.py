# SPDX-License-Identifier: Apache-2.0
"""Sends malformed requests to a server of its own: all it may do is refuse them.

    python benchmarks/hostile.py [--requests 100000] [--seed 0] [--connections 8]

A bundle of a small network is served by `burnish serve` as a process. Each request is a
right one with one to three changes drawn from a list made by hand: in the bytes, the JSON,
the headers, the length, the coding, the framing, or the connection's end; or it has the very
head of the last right one on its connection, and another body. Right requests
among them are compared with the engine's own answer, so that one answered with another's
rows would show. Prints the answers by status ("still waited for": the server waits for the
rest of a request that is none), the server's memory before and after, and whether it still
answers rightly. Exits with 1 when it does not, answered with 5xx, or its memory has grown by more
than 64 MiB after the first tenth.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from small_server import PATH, Server, is_product, write_bundle

HEADER = "Inference-Header-Content-Length"
MOST_GROWN_BYTES = 64 * 2**20


class Ask:
    """A right request, to be spoilt: each part is a thing that a change can take hold of."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        rows = rng.randint(1, 4)
        self.array = np.array(
            [[rng.randint(-9, 9) for _ in range(8)] for _ in range(rows)], np.float32
        )
        self.entry: Any = {"name": "x", "shape": [rows, 8], "datatype": "FP32"}
        self.rest = b""
        self.headers: dict[str, str] = {"Host": "test"}
        self.binary = rng.random() < 0.5
        if self.binary:
            self.rest = self.array.tobytes()
            self.entry["parameters"] = {"binary_data_size": len(self.rest)}
        else:
            self.entry["data"] = self.array.ravel().tolist()
        self.document: Any = {"inputs": [self.entry]}
        self.method, self.path, self.version = "POST", PATH, "1.1"
        self.later: list[Callable[[bytes], bytes]] = []

    def write(self) -> bytes:
        """Returns the request's bytes."""
        header = json.dumps(self.document).encode()
        body = header + self.rest
        if self.binary:
            self.headers.setdefault(HEADER, str(len(header)))
        coding = self.headers.get("Content-Encoding")
        if coding == "gzip":
            body = gzip.compress(body)
        elif coding == "deflate":
            body = zlib.compress(body)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            self.headers.setdefault("Content-Length", str(len(body)))
        lines = [f"{self.method} {self.path} HTTP/{self.version}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
        for change in self.later:
            data = change(data)
        return data


STRANGE: list[Any] = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**40, "", "x", "\ud800", [], [[]], {}, {"a": 1},
    float("nan"), float("inf"), [1] * 70, [2**62, 2**62], [-1, 8], "é" * 50,
]  # fmt: skip


def strange_entry(ask: Ask) -> None:
    """Puts a strange value in a place of the input."""
    keys = ["name", "shape", "datatype", "data", "parameters"]
    ask.entry[ask.rng.choice(keys)] = ask.rng.choice(STRANGE)


def strange_document(ask: Ask) -> None:
    """Puts a strange value in a place of the request."""
    keys = ["id", "parameters", "inputs", "outputs", "more"]
    ask.document[ask.rng.choice(keys)] = ask.rng.choice(STRANGE)


def strange_parameter(ask: Ask) -> None:
    """Gives a parameter a strange value."""
    key = ask.rng.choice(["timeout", "priority", "binary_data_output", "classification", "x"])
    where = ask.rng.choice([ask.document, ask.entry])
    own = where.get("parameters") if isinstance(where, dict) else None
    where["parameters"] = (own if isinstance(own, dict) else {}) | {key: ask.rng.choice(STRANGE)}


def strange_outputs(ask: Ask) -> None:
    """Asks for outputs that are not there, or in no way known."""
    parameters = {ask.rng.choice(["classification", "binary_data"]): ask.rng.choice(STRANGE)}
    output = {"name": ask.rng.choice(["y", "z", 3]), "parameters": parameters}
    ask.document["outputs"] = [output] * ask.rng.randint(1, 2)


def wrong_size(ask: Ask) -> None:
    """Says another size than the bytes have."""
    size = len(ask.rest) + ask.rng.choice([-33, -4, -1, 1, 4, 2**40])
    ask.entry["parameters"] = {"binary_data_size": size}


def fewer_bytes(ask: Ask) -> None:
    """Leaves bytes of the tensor out, or adds some."""
    ask.rest = ask.rest[: ask.rng.randrange(len(ask.rest) + 1)] + bytes(ask.rng.choice([0, 0, 5]))


def wrong_header_length(ask: Ask) -> None:
    """Says another length of the JSON."""
    ask.headers[HEADER] = ask.rng.choice(["0", "1", "-1", "9" * 30, "x", "", "1e3", "10"])


def wrong_coding(ask: Ask) -> None:
    """Compresses, or says so."""
    ask.headers["Content-Encoding"] = ask.rng.choice(["gzip", "deflate", "br", "gzip, gzip", ""])


def chunked(ask: Ask) -> None:
    """Sends in one chunk."""
    ask.headers["Transfer-Encoding"] = ask.rng.choice(["chunked", "chunked", "gzip", "x"])


def strange_length(ask: Ask) -> None:
    """Says a length that is none, or too large a one."""
    ask.headers["Content-Length"] = ask.rng.choice(["-1", "x", "1 2", "9" * 20, "10000000", "0"])


def strange_path(ask: Ask) -> None:
    """Asks for something else."""
    paths = ["/", "*", "//", "/v2/models/%00/infer", "/v2/models/net/versions/9/infer", "x" * 3000]
    paths += ["/v2/repository/index", f"{PATH}/", "http://[/", "/v1/models/net/predict"]
    ask.path = ask.rng.choice(paths)


def strange_method(ask: Ask) -> None:
    """Asks by another method or version."""
    ask.method = ask.rng.choice(["GET", "PUT", "HEAD", "post", "CONNECT", "X", "OPTIONS"])
    ask.version = ask.rng.choice(["1.1", "1.0", "2.0", "9", ""])


def strange_header(ask: Ask) -> None:
    """Adds a header that is large, or has what no header may have."""
    name = ask.rng.choice(["X", "Accept-Encoding", "Authorization", "X-Request-Id", "Ex pect", ""])
    ask.headers[name] = ask.rng.choice(["", "gzip;q=x", "\0", "a\rb", "y" * 100_000, "\xff" * 50])


def changed_bytes(ask: Ask) -> None:
    """Changes bytes anywhere."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(ask.rng.randint(1, 4)):
            changed[ask.rng.randrange(len(changed))] = ask.rng.randrange(256)
        return bytes(changed)

    ask.later.append(change)


def cut_off(ask: Ask) -> None:
    """Ends the connection before the request does."""
    ask.later.append(lambda data: data[: ask.rng.randrange(1, len(data))])


CHANGES: list[Callable[[Ask], None]] = [
    strange_entry, strange_document, strange_parameter, strange_outputs, wrong_size, fewer_bytes,
    wrong_header_length, wrong_coding, chunked, strange_length, strange_path, strange_method,
    strange_header, changed_bytes, cut_off,
]  # fmt: skip


class Sender(threading.Thread):
    """Sends its share over one connection, which is opened again when the server closed it."""

    def __init__(self, port: int, seed: int, requests: int) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._port, self._rng, self._requests = port, random.Random(seed), requests
        self._line: socket.socket | None = None
        self._last = b""
        """The right request that this connection began with."""

    def run(self) -> None:
        for number in range(self._requests):
            ask = Ask(self._rng)
            right = number % 20 == 0
            for change in () if right else self._rng.sample(CHANGES, self._rng.randint(1, 3)):
                change(ask)
            try:
                data = ask.write()
            except (TypeError, ValueError, AttributeError):  # the changes do not go together
                self.seen["not sent"] += 1
                continue
            if right:
                self._last = data
            elif self._last and self._rng.random() < 0.3:
                data = self._same_head()
            status, answer = self._sent(data, patient=right)
            self.seen[status] += 1
            if status.startswith("5") and status not in ("503", "504"):
                self.wrong.append(f"{status}: {data[:300]!r}: {answer[:300]!r}")
            if right and not self._is_right(ask, status, answer):
                self.wrong.append(f"a right request got {status}: {answer[:300]!r}")
        if self._line is not None:
            self._line.close()

    def _sent(self, data: bytes, patient: bool) -> tuple[str, bytes]:
        """Returns the first status that comes, or what else did, and what it came with."""
        if patient or self._line is None:
            if self._line is not None:
                self._line.close()
            self._line = socket.create_connection(("127.0.0.1", self._port), 30)
        self._line.settimeout(30 if patient else 0.05)
        found = b""
        try:
            self._line.sendall(data)
            while not _whole(found):
                piece = self._line.recv(65536)
                if not piece:
                    break
                found += piece
        except TimeoutError:
            self._forget()
            return ("still waited for", found) if not found else (_status(found), found)
        except OSError:
            self._forget()
            return "closed", found
        if not found or b"connection: close" in found:
            self._forget()
        return (_status(found) if found else "closed"), found

    def _same_head(self) -> bytes:
        head, end, body = self._last.partition(b"\r\n\r\n")
        changed = bytearray(body)
        for _ in range(self._rng.randint(1, 8)):
            changed[self._rng.randrange(len(changed))] = self._rng.randrange(256)
        if self._rng.random() < 0.2:
            changed = changed[: self._rng.randrange(len(changed))]
        elif self._rng.random() < 0.2:
            changed += self._rng.randbytes(self._rng.randint(1, 40))
        return head + end + bytes(changed)

    def _forget(self) -> None:
        assert self._line is not None
        self._line.close()
        self._line, self._last = None, b""

    def _is_right(self, ask: Ask, status: str, answer: bytes) -> bool:
        if status != "200":
            return False
        (output,) = json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"]
        return is_product(output["data"], ask.array)


def _whole(found: bytes) -> bool:
    head, blank, body = found.partition(b"\r\n\r\n")
    if not blank:
        return False
    _, known, length = head.lower().partition(b"content-length: ")
    return bool(known) and len(body) >= int(length.split(b"\r\n")[0])


def _status(found: bytes) -> str:
    return found[9:12].decode("latin-1")


def barrage(
    port: int, requests: int, seed: int, connections: int
) -> tuple[Counter[str], list[str]]:
    """Returns the answers by status, and what was wrong."""
    share = -(-requests // connections)
    senders = [Sender(port, seed * 1000 + number, share) for number in range(connections)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    seen = sum((one.seen for one in senders), Counter())
    return seen, [line for one in senders for line in one.wrong]


def main() -> int:
    """Runs it, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=int, default=8)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", 0, "--grpc-port", -1, "--health-port", -1, "--max-body", "1MiB"]
        server = Server(write_bundle(Path(folder) / "net"), *options)
        try:
            first = max(1, own.requests // 10)
            fresh = server.resident_bytes()
            seen, wrong = barrage(server.port, first, own.seed, own.connections)
            before, began = server.resident_bytes(), time.perf_counter()
            rest = max(1, own.requests - first)
            more, more_wrong = barrage(server.port, rest, own.seed + 1, own.connections)
            seconds = time.perf_counter() - began
            after = server.resident_bytes()
            last = Sender(server.port, own.seed, 1)
            last.run()
            wrong += more_wrong + last.wrong
            alive = server.process.poll() is None
        finally:
            code = server.stop()
    print(
        f"{sum((seen + more).values())} requests, {rest / seconds:.0f} a second, seed {own.seed}\n"
    )
    print("| answer | requests |\n|---|---:|")
    for status, n in sorted((seen + more).items()):
        print(f"| {status} | {n} |")
    mib = 2**20
    print(f"\nmemory: {fresh / mib:.0f} MiB fresh, {before / mib:.0f} MiB after a tenth, ", end="")
    print(f"{after / mib:.0f} MiB at the end")
    for line in wrong[:10]:
        print(f"wrong: {line}")
    good = alive and not wrong and code == 0 and after - before < MOST_GROWN_BYTES
    print(f"still answers rightly, and ended with {code}" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
