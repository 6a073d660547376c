# SPDX-License-Identifier: Apache-2.0
"""Triton itself, the binary in the wheel of nvidia-pytriton, with the backend that is in it.

The wheel has Triton's Python backend and no other. So the model is Triton's usual Python
model (`triton_model.py`), which runs ONNX Runtime in one process for each instance; bodies
reach it through shared memory.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ort_engine import settings

HERE = Path(__file__).resolve().parent
SHARED_BYTES = 64 * 2**20

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {max_batch}
input [{{ name: "{input}", data_type: TYPE_FP32, dims: [{shape}] }}]
output [{{ name: "{output}", data_type: TYPE_FP32, dims: [{output_shape}] }}]
instance_group [{{ count: {workers}, kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
"""


def main() -> None:
    """Lays out the model repository and becomes Triton."""
    asked = settings()
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        sys.exit("nvidia-pytriton is not installed here")
    package = Path(found.origin).parent
    triton = package / "tritonserver"
    work = Path(asked["work"])
    _repository(work / "models" / asked["name"], asked)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend = work / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (triton / "backends" / "python").iterdir():
        if file.is_file():
            (backend / file.name).symlink_to(file)
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backend / stub.name)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"),
        # The backend takes the first python3 of the path for its own.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={work / 'models'}",
        f"--backend-directory={backend.parent}",
        f"--http-address={asked['host']}",
        f"--http-port={asked['port']}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
        f"--backend-config=python,shm-default-byte-size={SHARED_BYTES}",
        f"--backend-config=python,shm-region-prefix-name=bench{os.getpid()}",
    ]
    if "http_threads" in asked:
        command.append(f"--http-thread-count={asked['http_threads']}")
    os.execve(command[0], command, environment)


def _repository(folder: Path, asked: dict[str, Any]) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    text = CONFIG.format(
        **{key: asked[key] for key in ("name", "max_batch", "input", "output", "workers")},
        shape=", ".join(map(str, asked["shape"])),
        output_shape=", ".join(map(str, asked["output_shape"])),
        delay_us=int(1e3 * asked["wait_ms"]),
    )
    (folder / "config.pbtxt").write_text(text)
    shutil.copy(HERE / "triton_model.py", version / "model.py")
    shutil.copy(HERE / "ort_engine.py", version / "ort_engine.py")


if __name__ == "__main__":
    main()
