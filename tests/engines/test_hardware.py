# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.engines.hardware import (
    Hardware,
    hardware,
    limit_bytes,
    parse_cgroups,
    parse_cpu,
    parse_quota,
    quota_cores,
)

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6430
flags\t\t: fpu sse4_2 avx2 fma f16c avx512f avx512bw avx_vnni avx512_vnni avx512_bf16 \
amx_bf16 amx_tile amx_int8
processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6430
"""
GRAVITON = """processor       : 0
BogoMIPS        : 2100.00
Features        : fp asimd evtstrm aes asimdhp cpuid asimddp sve i8mm bf16
CPU implementer : 0x41
CPU part        : 0xd40
"""
OLD_ARM = "Features : half thumb neon vfpv4\nHardware : BCM2835\n"
MAC = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
hw.optional.neon: 1
"""
INTEL_MAC = """machdep.cpu.brand_string: Intel(R) Core(TM) i5
machdep.cpu.features: FPU SSE4.2 FMA F16C
machdep.cpu.leaf7_features: AVX2 BMI1
"""


@pytest.mark.parametrize(
    ("text", "model", "sets", "int8_dot"),
    [
        (
            XEON,
            "Intel(R) Xeon(R) Gold 6430",
            "sse4_2 avx2 fma f16c avx512f avx512bw avx512_vnni avx512_bf16 avx_vnni "
            "amx_tile amx_int8 amx_bf16",
            True,
        ),
        (GRAVITON, "Arm 0x41 0xd40", "neon neon_fp16 neon_dot neon_i8mm neon_bf16 sve", True),
        (OLD_ARM, "BCM2835", "neon", False),
        (MAC, "Apple M2", "neon neon_dot neon_i8mm", True),
        (INTEL_MAC, "Intel(R) Core(TM) i5", "sse4_2 avx2 fma f16c", False),
        ("", "", "", False),
    ],
)
def test_cpus(text: str, model: str, sets: str, int8_dot: bool) -> None:
    assert parse_cpu(text) == (model, tuple(sets.split()))
    one = Hardware(model, "any", 4, tuple(sets.split()), 1 << 30, ())
    assert one.int8_dot is int8_dot


def test_quotas_of_both_cgroup_versions(tmp_path: Path) -> None:
    second = tmp_path / "v2"
    (second / "a" / "b").mkdir(parents=True)
    (second / "a" / "cpu.max").write_text("250000 100000\n")
    (second / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (second / "a" / "memory.max").write_text("2147483648\n")
    (second / "a" / "b" / "memory.max").write_text("max\n")
    groups = parse_cgroups("0::/a/b\n")
    assert quota_cores(second, groups) == 2.5
    assert limit_bytes(second, groups) == 1 << 31

    first = tmp_path / "v1"
    for part in ("cpu/docker/x", "memory/docker/x"):
        (first / part).mkdir(parents=True)
    (first / "cpu/docker/x/cpu.cfs_quota_us").write_text("150000\n")
    (first / "cpu/docker/x/cpu.cfs_period_us").write_text("100000\n")
    (first / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (first / "memory/memory.limit_in_bytes").write_text("1073741824\n")
    groups = parse_cgroups("5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n")
    assert quota_cores(first, groups) == 1.5
    assert limit_bytes(first, groups) == 1 << 30

    # In a container, the path is the host's and only the root is there.
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "cpu.max").write_text("50000 100000")
    assert quota_cores(tmp_path / "c", parse_cgroups("0::/../../kubepods/pod7")) == 0.5
    assert quota_cores(tmp_path / "none", {}) is None
    assert limit_bytes(tmp_path / "none", {}) is None


@pytest.mark.parametrize("text", ["", "max", "x y", "-1 100000", "100 0"])
def test_unlimited_or_odd_quotas(text: str) -> None:
    assert parse_quota(text) is None


def test_this_machine() -> None:
    here = hardware()
    assert here.cores >= 1
    assert here.memory_bytes > 100 * 1024**2
    assert here.architecture
    assert here is hardware()


def test_fingerprint_is_of_the_hardware() -> None:
    one = Hardware("Chip 9", "x86_64", 8, ("avx2",), 16 << 30, ())
    assert one.fingerprint == replace(one, memory_bytes=(16 << 30) - 5_000_000).fingerprint
    changed = [
        replace(one, cores=4),
        replace(one, instruction_sets=("avx2", "avx512_vnni")),
        replace(one, memory_bytes=32 << 30),
        replace(one, gpus=("H200, 141 GB",)),
        replace(one, cpu_model="Chip 10"),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in changed)}) == 6
