# SPDX-License-Identifier: Apache-2.0
"""What a model takes besides time per request: load time, memory, space on disk.

Run as a program (`python -m burnish.measuring.resources FOLDER`), this is the child
process whose memory is measured.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, BurnishError, Misuse, Unsupported
from burnish.core.measurement import Measurement
from burnish.core.model import Model
from burnish.engines.engine import Session, by_name
from burnish.measuring.machine import machine
from burnish.measuring.statistics import median_interval

_RUNS = 5
_TIMEOUT_S = 600.0
_TAIL = 500


def load_time(open: Callable[[], Session], n: int = 5) -> Measurement:
    """Returns the median time in ms to open a session, over n times.

    One more comes first and is not counted, since it loads the runtime's own code.
    """
    if n < 1:
        raise Misuse(f"load_time needs n of 1 or more, got {n}")
    times_ms = []
    for counted in range(n + 1):
        start = time.perf_counter()
        session = open()
        elapsed_ms = 1000 * (time.perf_counter() - start)
        engine, conditions = session.engine, dict(vars(session.setting))
        session.close()
        if counted:
            times_ms.append(elapsed_ms)
    return _measured("load", times_ms, "ms", engine, conditions)


def peak_memory(
    model: Model,
    engine_name: str,
    setting: Setting,
    inputs: Mapping[str, NDArray[Any]],
    n: int = 3,
    timeout_s: float = _TIMEOUT_S,
) -> Measurement:
    """Returns the peak resident memory, in bytes, of a process that loads and runs the model.

    A fresh process each time, n times: Python, Burnish and the runtime are included.
    Raises `Unsupported`, with its last words, when the process fails, is killed or hangs.
    """
    if n < 1:
        raise Misuse(f"peak_memory needs n of 1 or more, got {n}")
    engine = by_name(engine_name)
    with tempfile.TemporaryDirectory(prefix="burnish-memory-") as name:
        folder = Path(name)
        model.save(folder / "model.onnx")
        for index, array in enumerate(inputs.values()):
            np.save(folder / f"input{index}.npy", array, allow_pickle=False)
        order = {"engine": engine_name, **vars(setting), "inputs": list(inputs)}
        (folder / "order.json").write_text(json.dumps(order))
        peaks = [_child(folder, engine.identity, timeout_s) for _ in range(n)]
    batch = next((len(array) for array in inputs.values() if array.ndim), 1)
    conditions = {**vars(setting), "batch": batch}
    return _measured("memory", peaks, "bytes", engine.identity, conditions)


def size(model: Model) -> Measurement:
    """Returns the size of the model's file in bytes, which is exact."""
    value = float(model.size_bytes)
    return Measurement("size", value, "bytes", "lower", value, value, 1)


def _measured(
    quantity: str, values: list[float], unit: str, engine: str, conditions: Mapping[str, Any]
) -> Measurement:
    low, high = median_interval(values)
    middle = float(np.median(values))
    where = machine().fingerprint
    return Measurement(
        quantity, middle, unit, "lower", low, high, len(values), where, engine, conditions
    )


def _child(folder: Path, engine: str, timeout_s: float) -> float:
    command = [sys.executable, "-m", "burnish.measuring.resources", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unsupported(f"{engine} did not finish within {timeout_s:g} s") from error
    if done.returncode == 0:
        return float(done.stdout)
    if done.returncode == Unsupported.exit_code and done.stderr.startswith("burnish: "):
        raise Unsupported(done.stderr.removeprefix("burnish: ").strip())
    ended = f"exit code {done.returncode}"
    if done.returncode < 0:
        ended = f"signal {signal.Signals(-done.returncode).name}"
    raise Unsupported(
        f"{engine} crashed while running the model in a process of its own ({ended}): "
        f"{done.stderr.strip()[-_TAIL:] or 'it said nothing'}"
    )


def _main(folder: Path) -> int:
    order = json.loads((folder / "order.json").read_text())
    inputs = {
        name: np.load(folder / f"input{index}.npy", allow_pickle=False)
        for index, name in enumerate(order["inputs"])
    }
    try:
        model = Model.load(folder / "model.onnx")
        setting = Setting(order["threads"], order["streams"])
        with by_name(order["engine"]).open(model, setting) as session:
            for _ in range(_RUNS):
                session.run(inputs)
    except BurnishError as error:
        sys.stderr.write(f"burnish: {error}\n")
        return Unsupported.exit_code
    sys.stdout.write(str(_peak_bytes()))
    return 0


def _peak_bytes() -> int:
    """Returns this process's largest resident memory so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: there a child also carries the size of the parent it came from.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        if found is None:
            raise Broken("/proc/self/status has no VmHWM")
        return 1024 * int(found[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
