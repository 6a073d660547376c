# SPDX-License-Identifier: Apache-2.0
"""What this process uses of the machine: CPU time, memory, open files, threads; and the GPUs.

GPUs are read through NVML, which takes microseconds, when the package nvidia-ml-py is
installed and a driver is there; without them there are none.
"""

from __future__ import annotations

import importlib
import os
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed_version
from typing import Any


@dataclass(frozen=True)
class Process:
    """This process. `open_files` counts sockets and pipes too; None where it cannot be told."""

    cpu_s: float
    resident_bytes: int
    open_files: int | None
    threads: int
    started_s: float
    """Since 1970."""


@dataclass(frozen=True)
class Gpu:
    """One GPU, whoever uses it; None is what its driver does not tell."""

    index: int
    name: str
    memory_used_bytes: int | None
    memory_size_bytes: int | None
    busy_ratio: float | None


@cache
def burnish_version() -> str:
    """Returns the version that is installed; it is read from a file once."""
    return installed_version("burnish")


def process() -> Process:
    """Returns what this process uses now."""
    import psutil

    this = _this_process(os.getpid())
    with this.oneshot():
        try:
            open_files = int(this.num_fds())
        except (AttributeError, psutil.Error):  # Windows; a system that forbids it
            open_files = None
        return Process(
            cpu_s=time.process_time(),
            resident_bytes=int(this.memory_info().rss),
            open_files=open_files,
            threads=int(this.num_threads()),
            started_s=float(this.create_time()),
        )


def gpus() -> tuple[Gpu, ...]:
    """Returns the GPUs of this machine; none without NVML."""
    nvml = _nvml()
    if nvml is None:
        return ()
    try:
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    except nvml.NVMLError:  # the driver went away
        return ()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def told(ask: Any) -> Any:
        try:
            return ask(handle)
        except nvml.NVMLError:
            return None

    name, memory = told(nvml.nvmlDeviceGetName), told(nvml.nvmlDeviceGetMemoryInfo)
    rates = told(nvml.nvmlDeviceGetUtilizationRates)
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name or "GPU"),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_size_bytes=None if memory is None else int(memory.total),
        busy_ratio=None if rates is None else rates.gpu / 100,
    )


@cache
def _this_process(pid: int) -> Any:
    import psutil

    return psutil.Process(pid)


@cache
def _nvml() -> Any:
    """Returns NVML, ready; None where it is not."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
