# SPDX-License-Identifier: Apache-2.0
"""The hardware that engines run on: what it is, and a fingerprint of it.

A container sees the whole machine in /proc but may use only part of it, so cores and
memory are bounded by the control group's limits (version 1 and 2) and the process's
CPU affinity.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Instruction sets that decide how fast float and int8 kernels are, and how each system
# spells them: Linux on x86 and on Arm, then macOS (sysctl).
_SPELLINGS = {
    "sse4_2": ("sse4_2", "machdep.sse4.2"),
    "avx2": ("avx2", "machdep.avx2"),
    "fma": ("fma", "machdep.fma"),
    "f16c": ("f16c", "machdep.f16c"),
    "avx512f": ("avx512f", "machdep.avx512f"),
    "avx512bw": ("avx512bw", "machdep.avx512bw"),
    "avx512_vnni": ("avx512_vnni", "machdep.avx512vnni"),
    "avx512_bf16": ("avx512_bf16",),
    "avx512_fp16": ("avx512_fp16",),
    "avx_vnni": ("avx_vnni",),
    "avx_vnni_int8": ("avx_vnni_int8",),
    "amx_tile": ("amx_tile",),
    "amx_int8": ("amx_int8",),
    "amx_bf16": ("amx_bf16",),
    "amx_fp16": ("amx_fp16",),
    "neon": ("asimd", "neon", "hw.optional.arm.advsimd", "hw.optional.neon"),
    "neon_fp16": ("asimdhp", "hw.optional.arm.feat_fp16"),
    "neon_dot": ("asimddp", "hw.optional.arm.feat_dotprod"),
    "neon_i8mm": ("i8mm", "hw.optional.arm.feat_i8mm"),
    "neon_bf16": ("bf16", "hw.optional.arm.feat_bf16"),
    "sve": ("sve",),
    "sve2": ("sve2",),
    "sme": ("sme", "hw.optional.arm.feat_sme"),
}
_INT8_DOT = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "neon_dot", "neon_i8mm"}
_GIB = 1024**3


@dataclass(frozen=True)
class Hardware:
    """What decides how fast a model runs here.

    `cores` and `memory_bytes` are what this process may use. `instruction_sets` are those
    that matter to neural networks, by one spelling for all systems.
    """

    cpu_model: str
    architecture: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    gpus: tuple[str, ...]

    @property
    def int8_dot(self) -> bool:
        """Whether the CPU multiplies 8-bit integers into 32-bit sums in one instruction."""
        return not _INT8_DOT.isdisjoint(self.instruction_sets)

    @property
    def fingerprint(self) -> str:
        """A short hash of these facts: the same after a restart, another on other hardware."""
        facts = {name: getattr(self, name) for name in Hardware.__dataclass_fields__}
        # What the kernel keeps for itself differs from boot to boot.
        facts["memory_bytes"] = round(self.memory_bytes / _GIB)
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


@cache
def hardware() -> Hardware:
    """Returns the hardware of this machine, as far as this process may use it; read once."""
    system = platform.system()
    described = _text("/proc/cpuinfo") if system == "Linux" else _sysctl()
    model, sets = parse_cpu(described)
    return Hardware(
        cpu_model=model or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=_cores(),
        instruction_sets=sets,
        memory_bytes=_memory_bytes(),
        gpus=_gpus(),
    )


def parse_cpu(text: str) -> tuple[str, tuple[str, ...]]:
    """Returns the CPU's model name and known instruction sets.

    `text` is /proc/cpuinfo, or what `sysctl machdep.cpu hw.optional` prints on macOS.

    >>> parse_cpu("model name : Chip 9\\nflags : fpu avx2 avx512_vnni")
    ('Chip 9', ('avx2', 'avx512_vnni'))
    """
    fields: dict[str, str] = {}
    found: set[str] = set()
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        key = key.lower()
        fields.setdefault(key, value)
        if key in ("flags", "features", "machdep.cpu.features", "machdep.cpu.leaf7_features"):
            prefix = "machdep." if key.startswith("machdep") else ""
            found |= {prefix + word for word in value.lower().split()}
        elif key.startswith("hw.optional.") and value == "1":
            found.add(key)
    arm = " ".join(fields[key] for key in ("cpu implementer", "cpu part") if key in fields)
    model = (
        fields.get("model name")
        or fields.get("machdep.cpu.brand_string")
        or fields.get("hardware")
        or (f"Arm {arm}" if arm else "")
    )
    sets = tuple(name for name, words in _SPELLINGS.items() if not found.isdisjoint(words))
    return model, sets


def parse_cgroups(text: str) -> dict[str, str]:
    """Returns the process's control group for each controller; "" is the unified one.

    `text` is /proc/self/cgroup.

    >>> parse_cgroups("4:cpu,cpuacct:/a\\n0::/b")
    {'cpu': '/a', 'cpuacct': '/a', '': '/b'}
    """
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.strip().split(":", 2)
        if len(parts) == 3:
            groups |= dict.fromkeys(parts[1].split(","), parts[2])
    return groups


def parse_quota(text: str) -> float | None:
    """Returns the cores that a quota grants, or None when it is unlimited.

    `text` is version 2's cpu.max ("max 100000"), or version 1's quota and period.

    >>> parse_quota("150000 100000"), parse_quota("max 100000"), parse_quota("-1 100000")
    (1.5, None, None)
    """
    words = text.split()
    if len(words) < 2 or not words[0].isdigit() or not words[1].isdigit() or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def quota_cores(root: Path, groups: dict[str, str]) -> float | None:
    """Returns the smallest CPU quota, in cores, of the process's group and its parents."""
    granted = [
        parse_quota(_text(folder / "cpu.max")) for folder in _folders(root, groups.get("", ""))
    ]
    for mount in ("cpu", "cpu,cpuacct"):
        granted += [
            parse_quota(
                _text(folder / "cpu.cfs_quota_us") + " " + _text(folder / "cpu.cfs_period_us")
            )
            for folder in _folders(root / mount, groups.get("cpu", ""))
        ]
    return min((one for one in granted if one is not None), default=None)


def limit_bytes(root: Path, groups: dict[str, str]) -> int | None:
    """Returns the smallest memory limit of the process's group and its parents, or None."""
    texts = [_text(folder / "memory.max") for folder in _folders(root, groups.get("", ""))]
    texts += [
        _text(folder / "memory.limit_in_bytes")
        for folder in _folders(root / "memory", groups.get("memory", ""))
    ]
    limits = [int(text) for text in map(str.strip, texts) if text.isdigit()]
    return min(limits, default=None)


def _folders(root: Path, group: str) -> list[Path]:
    """Returns the group's folder and those of its parents.

    In a container the path may be the host's, and the group's own files lie at the root.
    """
    names = [name for name in group.split("/") if name and name != ".."]
    return [root.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = quota_cores(Path("/sys/fs/cgroup"), parse_cgroups(_text("/proc/self/cgroup")))
    return max(1, min(usable or 1, math.ceil(quota) if quota is not None else 1 << 30))


def _memory_bytes() -> int:
    import psutil

    limit = limit_bytes(Path("/sys/fs/cgroup"), parse_cgroups(_text("/proc/self/cgroup")))
    total = int(psutil.virtual_memory().total)
    return min(total, limit) if limit is not None else total


def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    return tuple(line.strip() for line in _output(command).splitlines() if line.strip())


def _sysctl() -> str:
    return _output(["sysctl", "machdep.cpu", "hw.optional"])


def _output(command: list[str]) -> str:
    """Returns what a system tool prints; "" when it is absent, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
