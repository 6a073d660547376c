# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, and the settings that are tried for each.

All cores are used by every setting but where one request at a time is faster with less:
one worker with all threads, or as many workers as cores with one thread each. Each peer
gets batches off and on, and what else its documentation gives for speed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving_peers.case import Case
from serving_peers.client import Target
from serving_peers.process import HOST

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_RAW = {"Content-Type": "application/octet-stream"}
_RAW_TENSOR = {**_RAW, "Inference-Header-Content-Length": "0"}
_NAME = "model"
_INFER = f"/v2/models/{_NAME}/infer"
BATCH = 8


@dataclass(frozen=True)
class Config:
    """One way to run a peer."""

    threads: int = 1
    workers: int = 1
    max_batch: int = 1
    wait_ms: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the peer's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        if self.more.get("as_measured"):
            return self.note
        words = [f"{self.workers} × {self.threads} thr.", f"batch ≤ {self.max_batch}"]
        if self.wait_ms:
            words.append(f"wait {self.wait_ms:g} ms")
        return ", ".join([*words, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Peer:
    """One server."""

    name: str
    package: str
    """Whose version is told."""
    python: Path
    script: str
    path: str
    headers: Mapping[str, str]
    configs: tuple[Config, ...]
    remark: str = ""

    def missing(self) -> str | None:
        """Returns why the peer cannot be run here, or None."""
        if not self.python.is_file():
            return f"there is no {self.python.parents[1].name}: run make bench-serving-env"
        done = self._ask(
            f"import onnxruntime, importlib.metadata as m; m.version({self.package!r})"
        )
        if done.returncode:
            return f"{self.python.parents[1].name} lacks it: {done.stderr.strip().splitlines()[-1]}"
        return None

    def versions(self) -> tuple[str, str]:
        """Returns the version of the server and that of its ONNX Runtime."""
        done = self._ask(
            "import onnxruntime, importlib.metadata as m; "
            f"print(m.version({self.package!r}), onnxruntime.__version__)"
        )
        own, runtime = done.stdout.split()[-2:]
        return own, runtime

    def _ask(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.python), "-c", code], capture_output=True, text=True, timeout=60, check=False
        )

    def target(self, port: int) -> Target:
        """Returns where its requests go."""
        return Target(port, self.path, self.headers)

    def command(self, config: Config, case: Case, port: int) -> list[str]:
        """Returns what starts it."""
        if self.script:
            return [str(self.python), str(HERE / self.script)]
        words = [str(self.python.with_name("burnish")), "serve", f"{_NAME}={case.bundle.path}"]
        words += ["--host", HOST, "--port", str(port), "--grpc-port", "-1", "--health-port", "-1"]
        if config.more.get("as_measured"):
            return words
        words += ["--threads", str(config.threads), "--streams", str(config.workers)]
        return [*words, "--max-batch", str(config.max_batch)]

    def environment(
        self, config: Config, case: Case, port: int, spare_ports: list[int], work: Path
    ) -> dict[str, str]:
        """Returns what it finds in its environment besides what is there."""
        (taken,), (given,) = case.bundle.model.signature.inputs, case.bundle.model.signature.outputs
        asked = {
            "model": str(case.model.resolve()),
            "name": _NAME,
            "input": taken.name,
            "output": given.name,
            "shape": case.sample_shape,
            "output_shape": case.answers[0].shape,
            "host": HOST,
            "port": port,
            "spare_ports": spare_ports,
            "work": str(work),
            "threads": config.threads,
            "workers": config.workers,
            "max_batch": config.max_batch,
            "wait_ms": config.wait_ms,
            **config.more,
        }
        fixed = {
            "SERVING_BENCH": json.dumps(asked),
            "PYTHONPATH": str(HERE) if self.script else "",
            "MOSEC_ADDRESS": HOST,
            "MOSEC_PORT": str(port),
            "MOSEC_LOG_LEVEL": "warning",
            "MOSEC_TIMEOUT": "30000",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
            "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "2",
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(work / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(work / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(work),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(work / "server-state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(work / "metrics.sock"),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(spare_ports[1]),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(spare_ports[2]),
        }
        return {**fixed, **config.environment}


def peers(cores: int) -> tuple[Peer, ...]:
    """Returns Burnish and the others."""
    own = Path(sys.executable)
    serving = ROOT / ".venv-bench-serving" / "bin" / "python"
    triton = ROOT / ".venv-bench-triton" / "bin" / "python"
    one, many = {"threads": cores, "workers": 1}, {"threads": 1, "workers": cores}
    ongoing = {"ongoing": 64}
    optimized = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    haproxy = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "1"}
    ray = {"more": ongoing}
    behind = {"environment": {**optimized, **haproxy}, "note": "HAProxy, throughput-optimized"}
    fast = {"more": {"fast_queue": True}, "note": "fast_queue"}
    two = {"more": {"fast_queue": True, "api_servers": 2}, "note": "fast_queue, 2 API servers"}
    return (
        Peer(
            "Burnish", "burnish", own, "", _INFER, _RAW_TENSOR,
            (
                Config(**one, more={"as_measured": True}, note="no flags: as its plan says"),
                Config(**one),
                Config(**many),
                Config(**one, max_batch=BATCH),
                Config(**many, max_batch=BATCH),
            ),
        ),
        Peer(
            "LitServe", "litserve", serving, "litserve_server.py", "/predict", _RAW,
            (
                Config(**one),
                Config(**many),
                Config(**one, **fast),
                Config(**many, **fast),
                Config(**many, **two),
                Config(**one, max_batch=BATCH, wait_ms=1, **fast),
                Config(**many, max_batch=BATCH, wait_ms=1, **fast),
                Config(**one, max_batch=BATCH, **fast),
            ),
        ),
        Peer(
            "mosec", "mosec", serving, "mosec_server.py", "/inference", _RAW,
            (
                Config(**one),
                Config(**many),
                Config(**one, max_batch=BATCH, wait_ms=1),
                Config(**many, max_batch=BATCH, wait_ms=1),
                Config(**many, max_batch=BATCH, wait_ms=5),
            ),
        ),
        Peer(
            "Ray Serve", "ray", serving, "ray_server.py", "/", _RAW,
            (
                Config(**one, **ray),
                Config(**many, **ray),
                Config(**one, **ray, environment=optimized, note="throughput-optimized"),
                Config(**many, **ray, environment=optimized, note="throughput-optimized"),
                Config(**one, **ray, **behind),
                Config(**many, **ray, **behind),
                Config(**many, **ray, max_batch=BATCH, **behind),
            ),
        ),
        Peer(
            "Triton", "nvidia-pytriton", triton, "triton_server.py", _INFER, _RAW_TENSOR,
            (
                Config(**one),
                Config(**many),
                Config(**one, max_batch=BATCH),
                Config(**many, max_batch=BATCH),
                Config(**many, max_batch=BATCH, wait_ms=1),
            ),
            "Triton 2.51 with its own Python backend running ONNX Runtime; the wheel has no "
            "onnxruntime backend, which would be Triton's fastest",
        ),
        Peer(
            "PyTriton", "nvidia-pytriton", triton, "pytriton_server.py", _INFER, _RAW_TENSOR,
            (Config(**one), Config(**many), Config(**one, max_batch=BATCH),
             Config(**many, max_batch=BATCH)),
            "the same Triton bound to Python functions, as the package's documentation has it",
        ),
    )  # fmt: skip
