# SPDX-License-Identifier: Apache-2.0
"""What is served: a bundle, bodies to send, and the engine's own answers to them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np

import burnish as bn
from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.technique import Context
from burnish.engines.engine import Session, by_name
from burnish.measuring.machine import machine
from burnish.measuring.throughput import Point, throughput

ENGINE = "onnxruntime"
BATCH_SIZES = (1, 2, 4, 8, 16)
N_BODIES = 8
SIDES = {"mobilenet_v2": 224, "resnet56": 32}
_SAMPLES = 16


@dataclass(frozen=True)
class Case:
    """One served model; its one input takes one sample a request."""

    name: str
    bundle: Bundle
    bodies: tuple[bytes, ...]
    """Samples, as the bytes of float32."""
    answers: tuple[np.ndarray, ...]
    """The engine's outputs for them, one by one."""
    points: tuple[Point, ...]
    """Throughput by setting and batch size, in process."""

    @property
    def model(self) -> Path:
        """The file that every server opens."""
        return self.bundle.path / "model.onnx"

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of the input without the batch."""
        shape = self.bundle.model.signature.inputs[0].shape[1:]
        return tuple(int(size) for size in shape)

    @property
    def ceiling(self) -> Point:
        """The setting and batch size that answer most samples a second."""
        return max(self.points, key=lambda point: point.samples_per_s.value)

    @property
    def alone(self) -> Point:
        """The fastest setting for one sample at a time."""
        single = [one for one in self.points if one.batch_size == one.setting.streams == 1]
        return min(single, key=lambda point: point.latency_ms)

    def again(self, point: Point, seconds: float) -> Point:
        """Returns the point measured once more."""
        return measured(self.bundle.model, [point.setting], [point.batch_size], seconds)[0]


def settings() -> list[Setting]:
    """Returns the ways to use all cores: one stream with all threads, streams of one thread."""
    cores = machine().cores
    return list(dict.fromkeys([Setting(cores, 1), Setting(1, cores), Setting(1, 1)]))


def make(name: str, folder: Path, seconds_each: float) -> Case:
    """Returns the case, whose bundle is written to a folder: int8, random weights."""
    model, task = _random(name)
    context = Context(task)
    fused = bn.Fuse().apply(model, context).model
    quantized = bn.QuantizeStatic().apply(fused, context).model
    points = measured(quantized, settings(), BATCH_SIZES, seconds_each)
    best = max(points, key=lambda point: point.samples_per_s.value)
    plan = {
        "engine": ENGINE,
        "engine_identity": by_name(ENGINE).identity,
        "threads": best.setting.threads,
        "streams": best.setting.streams,
        "latency_ms": min(one.latency_ms for one in points if one.batch_size == 1),
        "latency_by_batch": [
            {
                **vars(one.setting),
                "batch_size": one.batch_size,
                "samples_per_s": one.samples_per_s.value,
                "latency_ms": one.latency_ms,
            }
            for one in points
        ],
    }
    manifest = {"name": name, "plan": plan, "machine": machine().to_dict()}
    bundle = Bundle.write(folder / name, quantized, fused, manifest, {})
    (spec,) = quantized.signature.inputs
    noise = networks.Noise(N_BODIES, SIDES[name])
    samples = [noise.image(row)[np.newaxis] for row in range(N_BODIES)]
    with by_name(ENGINE).open(quantized, Setting(1, 1)) as session:
        answers = [_output(session, spec.name, sample) for sample in samples]
    return Case(
        name, bundle, tuple(one.tobytes() for one in samples), tuple(answers), tuple(points)
    )


def measured(
    model: bn.Model, settings: list[Setting], sizes: list[int] | tuple[int, ...], seconds: float
) -> list[Point]:
    """Returns the throughput in process, every stream calling again as soon as it is answered."""
    (spec,) = model.signature.inputs
    shape = [int(size) for size in spec.shape[1:]]
    rng = np.random.default_rng(0)

    def inputs(size: int) -> dict[str, np.ndarray]:
        return {spec.name: rng.standard_normal((size, *shape), np.float32)}

    def opened(setting: Setting) -> Session:
        return by_name(ENGINE).open(model, setting)

    return throughput(opened, inputs, settings, sizes, seconds)


def _output(session: Session, name: str, sample: np.ndarray) -> np.ndarray:
    (output,) = session.run({name: sample}).values()
    return output[0]


def _random(name: str) -> tuple[bn.Model, bn.Task]:
    if name in networks.RANDOM:
        model, task, _ = networks.random(name, _SAMPLES, SIDES[name])
        return model, task
    noise = networks.Noise(_SAMPLES, SIDES[name])
    example = dict(next(iter(noise.batches(2))).inputs)
    model = bn.Model.from_torch(_untrained_resnet56(), example, source=f"{name}, random weights")
    return model, bn.Task("noise", calibration=noise)


def _untrained_resnet56() -> Any:
    """Returns the example's architecture with random weights."""
    import torch

    file = networks.EXAMPLES / "cifar10" / "resnet.py"
    spec = importlib.util.spec_from_file_location("burnish_example_resnet", file)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    torch.manual_seed(0)
    return found.CifarResNet(56).eval()
