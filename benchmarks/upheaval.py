# SPDX-License-Identifier: Apache-2.0
"""Swaps, abrupt ends and a successor under load: is any answer lost, or another's?

    python benchmarks/upheaval.py [--swaps 10] [--disconnects 1000] [--clients 4]

`burnish serve` runs as a process, with a configuration file. Clients ask all the time, each
request with numbers of its own, and every answer is compared with what the one model or the
other gives for them. Meanwhile others connect and break off: within the head, within the
body, or before the answer, with a reset. The file is changed to name the other model, and
the server told (SIGHUP), ten times over. At last a second server starts on the same port,
and the first is told to end (SIGTERM). Prints the answers by what they were, and the memory
before and after the swaps and disconnects. Exits with 1 when an answer was wrong, refused or
lost, or the memory has grown by more than 32 MiB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from small_server import PATH, Server, is_product, write_bundle

MOST_GROWN_BYTES = 32 * 2**20
MIB = 2**20
HEADER = "Inference-Header-Content-Length"
PATIENCE_S = 60.0
MODELS = ("a", "b")
NO_LINGER = struct.pack("ii", 1, 0)


class Clients:
    """Threads that ask for as long as the block runs."""

    def __init__(self, port: int, n: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port, self._over, self._lock = port, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(n)]

    def __enter__(self) -> Clients:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for one in self._threads:
            one.join()

    def wait_for(self, what: str, n: int) -> None:
        """Returns when so many more answers were of that kind."""
        least, until_s = self.seen[what] + n, time.monotonic() + PATIENCE_S
        while self.seen[what] < least:
            if time.monotonic() > until_s:
                raise SystemExit(f"no {n} answers of {what} within {PATIENCE_S:g} s: {self.seen}")
            time.sleep(0.01)

    def _work(self, number: int) -> None:
        rng = np.random.default_rng(number)
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._over.is_set():
            n = number if number % 2 else int(rng.integers(1, 5))
            rows = rng.integers(-9, 10, (n, 8)).astype(np.float32)
            what = self._asked(line, rows, binary=number % 2 == 1)
            with self._lock:
                self.seen[what] += 1
        line.close()

    def _asked(self, line: http.client.HTTPConnection, rows: np.ndarray, binary: bool) -> str:
        """Returns which model answered, or what else came."""
        try:
            if binary:
                document, data = binary_body(rows)
                line.request("POST", PATH, document + data, {HEADER: str(len(document))})
            else:
                line.request("POST", PATH, request_body(rows))
            answer = line.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            line.close()
            return f"lost: {error!r}"
        if answer.status != 200:
            return f"refused: {answer.status} {content[:100]!r}"
        data = json.loads(content)["outputs"][0]["data"]
        which = [name for seed, name in enumerate(MODELS) if is_product(data, rows, seed)]
        return which[0] if which else "another's"


def request_body(rows: np.ndarray) -> bytes:
    """Returns the request in JSON."""
    entry = {"name": "x", "shape": list(rows.shape), "datatype": "FP32"}
    return json.dumps({"inputs": [{**entry, "data": rows.ravel().tolist()}]}).encode()


def binary_body(rows: np.ndarray) -> tuple[bytes, bytes]:
    """Returns the request in JSON and the bytes behind it."""
    data = rows.tobytes()
    entry = {"name": "x", "shape": list(rows.shape), "datatype": "FP32"}
    entry["parameters"] = {"binary_data_size": len(data)}
    return json.dumps({"inputs": [entry]}).encode(), data


def break_off(port: int, n: int, seed: int) -> None:
    """Connects and ends abruptly, somewhere within the request or right behind it."""
    rng = random.Random(seed)
    rows = np.ones((4, 8), np.float32)
    document, data = binary_body(rows)
    kinds = [
        (request_body(rows), ""),
        (document + data, f"{HEADER}: {len(document)}\r\n"),
    ]
    for number in range(n):
        body, more = kinds[number % 2]
        head = f"POST {PATH} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        whole = head.encode() + body
        with socket.create_connection(("127.0.0.1", port), 30) as line:
            if number % 4 == 1:  # one that is answered, and the same head again
                line.sendall(whole)
                line.recv(65536)
            end = len(whole) if rng.random() < 0.5 else rng.randrange(1, len(whole))
            line.sendall(whole[:end])
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)  # a reset


def main() -> int:
    """Runs it, and prints what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        folder = Path(temporary)
        for seed, name in enumerate(MODELS):
            write_bundle(folder / name, seed)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        write_configuration(folder, port, MODELS[0])
        server = Server("--config", folder / "serve.toml")
        with Clients(port, own.clients) as clients:
            before, after = upheaval(server, clients, folder, port, own)
            successor = Server("--config", folder / "serve.toml")
            code = server.stop()
            clients.wait_for(MODELS[own.swaps % 2], 1000)
        successor_code = successor.stop()
    print("| answer | requests |\n|---|---:|")
    for what, n in sorted(clients.seen.items()):
        print(f"| {what} | {n} |")
    print(f"\n{own.disconnects} disconnects, {own.swaps} swaps, one successor")
    print(f"memory: {before / MIB:.0f} MiB before, {after / MIB:.0f} MiB after")
    wrong = [what for what in clients.seen if what not in MODELS]
    good = not wrong and code == successor_code == 0 and after - before < MOST_GROWN_BYTES
    print("nothing was lost or wrong" if good else f"FAILED: {wrong}, exit codes {code} and "
          f"{successor_code}")  # fmt: skip
    return 0 if good else 1


def upheaval(
    server: Server, clients: Clients, folder: Path, port: int, own: argparse.Namespace
) -> tuple[int, int]:
    """Swaps and breaks off; returns the memory after a tenth of it, and at the end."""
    tenth = own.disconnects // 10
    clients.wait_for(MODELS[0], 1000)
    break_off(port, tenth, 0)
    before = server.resident_bytes()
    share = -(-(own.disconnects - tenth) // max(1, own.swaps))
    for turn in range(1, own.swaps + 1):
        rude = threading.Thread(target=break_off, args=(port, share, turn))
        rude.start()
        write_configuration(folder, port, MODELS[turn % 2])
        server.process.send_signal(signal.SIGHUP)
        clients.wait_for(MODELS[turn % 2], 200)
        rude.join()
    clients.wait_for(MODELS[own.swaps % 2], 1000)
    return before, server.resident_bytes()


def write_configuration(folder: Path, port: int, model: str) -> None:
    """Writes the file that names the model to be served."""
    lines = ["[server]", f"port = {port}", "grpc_port = false", "health_port = false"]
    lines += ["drain_s = 0.5", "[models.net]", f'path = "{model}"', ""]
    new = folder / "serve.toml.new"
    new.write_text("\n".join(lines))
    new.replace(folder / "serve.toml")


if __name__ == "__main__":
    sys.exit(main())
