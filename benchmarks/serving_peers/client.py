# SPDX-License-Identifier: Apache-2.0
"""Asks a server: whether it answers right, and how fast (wrk)."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from serving_peers.process import HOST

_SCRIPT = Path(__file__).with_name("post.lua")
_HEADER = "Inference-Header-Content-Length"
_TIMEOUT_S, _GRACE_S = 10, 30
TOLERANCE_RATIO = 1e-4
"""Of the output's range, by which an answer may differ from the engine's own."""


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    port: int
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    """Answers with a status of 400 or more."""
    lost: int
    """Connections that could not be made or were lost, and requests that timed out."""

    @property
    def per_s(self) -> float:
        """Answers a second, those refused left out."""
        return (self.requests - self.refused) / self.seconds


def ask(target: Target, body: bytes) -> np.ndarray:
    """Returns the answer's float32 values. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection(HOST, target.port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", target.path, body, dict(target.headers))
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise OSError(f"status {answer.status}: {content[:200]!r}")
        return np.frombuffer(content[int(answer.getheader(_HEADER) or 0) :], np.float32)
    finally:
        connection.close()


def is_up(target: Target, body: bytes) -> bool:
    """Says whether a request is answered with a status of 200."""
    try:
        ask(target, body)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def largest_difference(
    target: Target, bodies: Sequence[bytes], answers: Sequence[np.ndarray]
) -> float:
    """Returns how far answers are from the expected ones, as a share of their range.

    All bodies are sent at once, several times over, so that a server that batches has to.
    Raises OSError and HTTPException.
    """
    pairs = 4 * list(zip(bodies, answers, strict=True))

    def one(pair: tuple[bytes, np.ndarray]) -> float:
        body, expected = pair
        got = ask(target, body)
        if got.shape != expected.ravel().shape:
            raise OSError(f"expected {expected.size} values, got {got.size}")
        spread = float(np.ptp(np.stack(answers))) or 1.0
        return float(np.abs(got - expected.ravel()).max()) / spread

    with ThreadPoolExecutor(len(bodies)) as pool:
        return max(pool.map(one, pairs))


def wrk(target: Target, body: Path, connections: int, seconds: float) -> Run:
    """Returns what a closed loop of so many connections saw."""
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", f"--timeout={_TIMEOUT_S}s"]
    command += ["-s", str(_SCRIPT), f"http://{HOST}:{target.port}{target.path}", "--", str(body)]
    command += [f"{name}: {value}" for name, value in target.headers.items()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=whole + _GRACE_S, check=True
    )
    return Run(**json.loads(done.stdout.strip().splitlines()[-1]))
