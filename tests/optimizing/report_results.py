# SPDX-License-Identifier: Apache-2.0
"""Results as an optimization would give them, for the tests of the reports."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from burnish.core.candidate import Candidate, Setting
from burnish.core.goal import Goal, overall
from burnish.core.measurement import Measurement
from burnish.core.technique import Skipped
from burnish.optimizing.result import Result

ORT, OPENVINO = "onnxruntime 1.32.0 (cpu)", "openvino 2026.4.0 (cpu)"
TORCH = "torch 2.13.0 (cpu)"
INT8 = ({"technique": "fuse"}, {"technique": "quantize_static", "method": "percentile"})
HOSTILE = '<script>alert("1")</script>|`x`[red]\x1b[31m\u202e&amp;'
COMMAND = (
    "burnish optimize mobilenet_v2.onnx --task imagenet.toml --max-drop 0.5 "
    "--min-speedup 1.5 --max-size-ratio 0.3 --budget 20min --seed 0 -o bundle/"
)


def candidate(
    name: str,
    engine: str = ORT,
    *,
    latency: float | None = 5.0,
    size: float | None = 14.2e6,
    metric: float | None = 71.9,
    unit: str = "%",
    drop: float | None = None,
    drop_half: float = 0.25,
    speedup: float | None = None,
    model: str = "",
    recipe: Any = (),
    batches: bool = True,
    n: int = 1000,
    **more: Any,
) -> Candidate:
    """Returns a candidate with the measurements given; None leaves one out."""
    measured: dict[str, Measurement] = {}
    detail: dict[str, Any] = {}

    def put(
        quantity: str, value: float | None, unit: str, better: Any, half: float, **conditions: Any
    ) -> None:
        if value is not None:
            measured[quantity] = Measurement(
                quantity,
                value,
                unit,
                better,
                value - half,
                value + half,
                n,
                "f00d",
                engine,
                conditions,
            )

    seed = sum(map(ord, name + engine))
    generator = np.random.default_rng(seed)
    if latency is not None:
        rounds = latency * (1 + generator.gamma(2.0, 0.012, 80) - 0.02)
        put("latency", latency, "ms", "lower", 0.012 * latency)
        detail["round_medians_ms"] = [float(one) for one in rounds]
        detail["percentiles_ms"] = {"p50": latency, "p90": 1.06 * latency, "p99": 1.21 * latency}
        if batches:
            detail["throughput"] = []
            for batch in (1, 2, 4, 8, 16, 32):
                rate = 1000 / latency * (2.1 - 1.1 / math.sqrt(batch))
                for threads, streams, factor in ((2, 1, 0.93), (1, 2, 1.0)):
                    detail["throughput"].append(
                        {
                            "batch_size": batch, "threads": threads, "streams": streams,
                            "samples_per_s": rate * factor, "low": rate * factor * 0.97,
                            "high": rate * factor * 1.03, "latency_ms": 1000 * batch / rate,
                        }
                    )  # fmt: skip
            put("throughput", 1000 / latency * 1.9, "samples/s", "higher", 30 / latency)
    put("size", size, "bytes", "lower", 0.0)
    metric_name, better = ("top1", "higher") if unit == "%" else ("mse", "lower")
    put("metric", metric, unit, better, 1.4 if unit == "%" else 0.0004, metric=metric_name)
    put("drop", drop, unit, "lower", drop_half)
    put("speedup", speedup, "x", "higher", 0.04 * (speedup or 1))
    if drop is not None:
        put("agreement", 99.2 - abs(drop), "%", "higher", 0.5)
    return Candidate(
        name, recipe, model or ("" if engine == TORCH else name), engine,
        Setting(2 if engine != OPENVINO else 1, 1 if engine != OPENVINO else 2),
        measured, detail=detail, **more,
    )  # fmt: skip


def baselines(**more: Any) -> tuple[Candidate, Candidate, Candidate]:
    """Returns the source framework's run, the best fp32 engine and the other one."""
    return (
        candidate("MobileNetV2", TORCH, latency=17.6, size=None, **more),
        candidate("original", OPENVINO, latency=4.91, model="0", **more),
        candidate("original", ORT, latency=5.53, model="0", **more),
    )


def result(
    candidates: list[Candidate],
    goal: Goal,
    best: int | None = 0,
    base: tuple[Candidate, ...] | None = None,
    **more: Any,
) -> Result:
    """Returns the result with these candidates, judged against the goal."""
    base = baselines() if base is None else base
    fp32 = next(one for one in base if one.model)
    judged = tuple(
        replace(one, verdicts=goal.judge(one.measured, fp32.measured)) for one in candidates
    )
    kept = fp32 if best is None else judged[best]
    if best is None:
        kept = replace(fp32, verdicts=goal.judge(fp32.measured, fp32.measured))
    given: dict[str, Any] = {
        "model": "mobilenet_v2.onnx",
        "task": "imagenet-500",
        "goal": goal,
        "status": overall(kept.verdicts),
        "best": kept,
        "fp32": fp32,
        "baselines": base,
        "candidates": judged,
        "passed_over": (
            Skipped("int8 minmax on OpenVINO", "dominated: slower, less accurate"),
            Skipped("int8 s8 activations on ONNX Runtime", "slower than fp32: 7.2 ms, 4.9 ms"),
            Skipped("int8 entropy on OpenVINO", "dominated: slower, less accurate"),
        ),
        "warnings": ("the calibration split has only 300 samples: ranges may be too narrow",),
        "machine": {
            "cpu_model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "cores": 2,
            "instruction_sets": ["avx2", "avx512f", "avx512_vnni", "amx_int8"],
            "memory_bytes": 16_784_000_000,
            "os": "Linux 6.8.0 x86_64",
            "python": "3.11.9",
            "fingerprint": "f00dfeedc0ffee12",
            "engines": {"onnxruntime": "1.32.0", "openvino": "2026.4.0", "torch": "2.13.0"},
        },
        "protocol": {
            "samples": 1000, "rounds": 80, "sessions": 3, "seed": 0, "confidence": 0.95,
            "budget_s": 1200, "time_s": 642.7,
        },
        "command": COMMAND,
        "created": "2026-11-22T17:52:34+00:00",
    }  # fmt: skip
    return Result(**(given | more))


def quantized(name: str, engine: str, latency: float, drop: float, /, **more: Any) -> Candidate:
    """Returns an int8 candidate of `baselines`."""
    nodes = [f"/features/features.{i}/conv/conv.{j}/Conv" for i in (2, 3) for j in (0, 1)]
    given: dict[str, Any] = {
        "latency": latency, "size": 3.72e6, "metric": 71.9 - drop, "drop": drop,
        "speedup": 4.91 / latency, "recipe": INT8, "model": name,
        "applied": ("52 BatchNormalization folded into Conv", "53 Conv and 1 Gemm to int8, u8s8",
                    "biases corrected on 300 samples"),
        "skipped": (Skipped("/classifier/Softmax", "its output is a probability: kept in fp32"),
                    *(Skipped(node, "fp32 is faster here") for node in nodes)),
    }  # fmt: skip
    return candidate(name, engine, **(given | more))


def met() -> Result:
    """Returns a result that meets a goal with three limits."""
    return result(
        [
            quantized("int8 percentile, u8", ORT, 3.02, 0.1),
            quantized("int8 percentile, u8", OPENVINO, 3.51, 0.05),
            quantized("int8 mse, u8", ORT, 3.31, -0.1),
            quantized("int8 minmax, u8", ORT, 2.96, 1.4),
            candidate("fused", OPENVINO, latency=4.6, size=14.0e6, drop=0.0, drop_half=0.0,
                      speedup=1.07, recipe=INT8[:1], model="f"),
        ],
        Goal(max_drop=0.5, min_speedup=1.5, max_size_ratio=0.3),
    )  # fmt: skip


def not_met() -> Result:
    """Returns a result whose nearest candidate is too slow."""
    goal = Goal(max_drop=0.5, max_latency_ms=2.0)
    return result([quantized("int8 percentile, u8", ORT, 3.02, 0.1)], goal)


def not_shown() -> Result:
    """Returns a result with too few samples to tell about the drop."""
    goal = Goal(max_drop=0.5, min_speedup=1.2)
    return result([quantized("int8 percentile, u8", ORT, 3.02, 0.2, drop_half=0.9)], goal)


def single() -> Result:
    """Returns a result with one baseline and nothing else."""
    return result(
        [], Goal(max_drop=None), best=None, base=baselines()[1:2], passed_over=(), warnings=()
    )


def missing() -> Result:
    """Returns a result in which almost nothing was measured."""
    base = (candidate("original", ORT, latency=None, size=None, metric=None, model="0"),)
    one = quantized("int8", ORT, 3.0, 0.1, latency=None, size=None, metric=None, drop=None,
                    speedup=None)  # fmt: skip
    return result(
        [one], Goal(max_drop=0.5, max_size_bytes=10_000_000), base=base, machine={}, protocol={}
    )


def twelve() -> Result:
    """Returns a result with twelve candidates close to one another."""
    generator = np.random.default_rng(3)
    made = []
    for i in range(12):
        method = ("minmax", "percentile", "entropy", "mse")[i % 4]
        engine = (ORT, OPENVINO)[i % 2]
        fallback = f", {i} layers fp32" if i > 3 else ""
        latency, drop = 2.9 + 0.13 * i, max(-0.1, 0.8 - 0.09 * i + generator.normal(0, 0.1))
        made.append(
            quantized(f"int8 {method}{fallback}", engine, latency, drop, size=3.7e6 + 4e5 * i)
        )
    return result(made, Goal(max_drop=0.5, max_latency_ms=4.0), best=5)


def hostile() -> Result:
    """Returns a result whose every text is an attack."""
    one = quantized(HOSTILE, f"{HOSTILE} 1", 3.0, 0.1, model="h", applied=(HOSTILE,),
                    skipped=(Skipped(HOSTILE, HOSTILE),))  # fmt: skip
    return result(
        [one], Goal(max_drop=0.5), model=HOSTILE, task=HOSTILE, warnings=(HOSTILE,),
        passed_over=(Skipped(HOSTILE, HOSTILE),), command=HOSTILE + "\n```\n# not a heading",
        machine={HOSTILE: HOSTILE, "engines": {HOSTILE: HOSTILE}}, protocol={HOSTILE: [HOSTILE]},
        created=HOSTILE,
    )  # fmt: skip


def lower_is_better() -> Result:
    """Returns a result judged by mean squared error, which has no unit."""
    base = baselines(metric=0.0312, unit="")
    made = [
        quantized("int8 percentile", ORT, 3.02, 0.0003, metric=0.0315, unit="", drop_half=0.0002),
        quantized("int8 minmax", ORT, 2.95, 0.0041, metric=0.0353, unit="", drop_half=0.0003),
        quantized("int8 mse", OPENVINO, 3.5, -0.0001, metric=0.0311, unit="", drop_half=0.0002),
    ]
    return result(made, Goal(max_drop="3%", min_speedup=1.5), base=base)


def eager_far_away() -> Result:
    """Returns a result whose figures span more than a decade."""
    base = (
        candidate("ResNet50", TORCH, latency=84.0, size=None, metric=80.3),
        candidate("original", OPENVINO, latency=35.1, size=102.5e6, metric=80.3, model="0"),
        candidate("original", ORT, latency=36.2, size=102.5e6, metric=80.3, model="0"),
    )
    made = [
        quantized("int8 percentile", OPENVINO, 10.4, 0.3, size=26e6, metric=80.0, speedup=3.37),
        quantized("int8 percentile", ORT, 17.6, 0.3, size=26e6, metric=80.0, speedup=2.0),
        quantized("int8, 30 % of channels cut", OPENVINO, 5.9, 1.1, size=12.9e6, metric=79.2,
                  speedup=5.95),
    ]  # fmt: skip
    return result(made, Goal(max_drop=0.7, max_latency_ms=12.0), base=base, model="resnet50.onnx")


EVERY = (
    met, not_met, not_shown, single, missing, twelve, hostile, lower_is_better, eager_far_away
)  # fmt: skip
