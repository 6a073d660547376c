# SPDX-License-Identifier: Apache-2.0
"""A check of the whole path in seconds: a small network, quantized, on every engine.

The network is a residual one of ordinary size (3×3 convolutions, 64 channels) with random
weights. ONNX's reference evaluator, which shares no code with any engine, says what fp32
must give. Int8 is compared with fp32: on random weights and data its mean squared error is
well under 1 % of the output's variance, and a fault in a scale, a zero point or a kernel
makes it many times larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import BurnishError
from burnish.core.measurement import Measurement
from burnish.core.model import OPSET, Model
from burnish.core.progress import Progress, silent
from burnish.core.recipe import Recipe
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.engines.engine import Engine, installed
from burnish.measuring.machine import machine
from burnish.measuring.timing import Contender, race
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic

_CHANNELS, _SIDE, _CLASSES = 64, 24, 10
_SAMPLES = 32
_FP32_LIMIT, _INT8_LIMIT = 1e-6, 0.01
_RACE_S = 2.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """One engine's outcome.

    Errors are mean squared, as a share of the reference's variance. `speedup` is int8's
    over fp32. `fault` says what is wrong, "" when nothing is.
    """

    engine: str
    fp32_error_ratio: float | None = None
    int8_error_ratio: float | None = None
    fp32_latency: Measurement | None = None
    int8_latency: Measurement | None = None
    speedup: Measurement | None = None
    fault: str = ""


def self_check(seed: int = 0, progress: Progress = silent) -> Iterator[Check]:
    """Yields a check for each installed engine. Raises when the model cannot be quantized."""
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(seed)
    content = network(rng)
    model = Model.load(content)
    images = rng.normal(0, 1, (_SAMPLES, 3, _SIDE, _SIDE)).astype(np.float32)
    progress("self-check: the reference", 0, 0)
    (logits,) = ReferenceEvaluator(content).run(None, {"image": images[:4]})
    expected = np.asarray(logits, dtype=np.float32)
    progress("self-check: quantizing", 0, 0)
    task = Task("self-check", calibration=ArraySamples({"image": images}))
    recipe = Recipe((Fuse(), QuantizeStatic()))
    quantized = recipe.apply(model, Context(task, seed=seed)).model
    engines = installed()
    for index, engine in enumerate(engines):
        progress(f"self-check: {engine.name}", index, len(engines))
        yield _check(engine, model, quantized, images, expected, seed)


def _check(
    engine: Engine,
    model: Model,
    quantized: Model,
    images: Floats,
    expected: Floats,
    seed: int,
) -> Check:
    setting = Setting(machine().cores)
    name = engine.identity
    try:
        with engine.open(model, setting) as session:
            fp32 = session.run({"image": images})["logits"]
        with engine.open(quantized, setting) as session:
            int8 = session.run({"image": images})["logits"]
        one = {"image": images[:1]}
        timed = race(
            [
                Contender("fp32", lambda: engine.open(model, setting), one),
                Contender("int8", lambda: engine.open(quantized, setting), one),
            ],
            baseline="fp32",
            budget_s=_RACE_S,
            sessions=1,
            seed=seed,
        )
    except BurnishError as error:
        return Check(name, fault=str(error))
    except Exception as error:  # noqa: BLE001 - one broken runtime must not hide the others
        return Check(name, fault=f"{type(error).__name__}: {error}")
    fp32_error = _error_ratio(fp32[: len(expected)], expected)
    int8_error = _error_ratio(int8, fp32)
    faults = []
    # Written so that a NaN is a fault.
    if not fp32_error <= _FP32_LIMIT:
        faults.append(f"fp32 is off ONNX's reference by {fp32_error:.2g} of its variance")
    if not int8_error <= _INT8_LIMIT:
        faults.append(f"int8 is off fp32 by {int8_error:.2g} of its variance")
    faults += [f"{key}: {result.failed}" for key, result in timed.items() if result.failed]
    return Check(
        name,
        fp32_error,
        int8_error,
        timed["fp32"].latency,
        timed["int8"].latency,
        timed["int8"].speedup,
        "; ".join(faults),
    )


def _error_ratio(got: Floats, expected: Floats) -> float:
    wide = expected.astype(np.float64)
    return float(np.square(got - wide).mean() / wide.var())


def network(rng: np.random.Generator) -> bytes:
    """Returns an ONNX file: image (batch, 3, 24, 24) to logits (batch, 10), He-initialized."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def weight(name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        scale = np.sqrt(2 / fan_in) if len(shape) > 1 else 0.1
        array = rng.normal(0, scale, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(value: str, name: str, inputs: int, stride: int) -> str:
        given = [
            value,
            weight(f"{name}.weight", _CHANNELS, inputs, 3, 3),
            weight(f"{name}.bias", _CHANNELS),
        ]
        pads, strides = [1, 1, 1, 1], [stride, stride]
        nodes.append(
            helper.make_node("Conv", given, [f"{name}.out"], name, pads=pads, strides=strides)
        )
        return f"{name}.out"

    def relu(value: str) -> str:
        nodes.append(helper.make_node("Relu", [value], [f"{value}.relu"], f"{value}.relu"))
        return f"{value}.relu"

    stem = relu(conv("image", "stem", 3, 1))
    inner = conv(relu(conv(stem, "block.1", _CHANNELS, 1)), "block.2", _CHANNELS, 1)
    nodes.append(helper.make_node("Add", [stem, inner], ["sum"], "sum"))
    last = relu(conv(relu("sum"), "down", _CHANNELS, 2))
    head = ["flat", weight("head.weight", _CLASSES, _CHANNELS), weight("head.bias", _CLASSES)]
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", head, ["logits"], "head", transB=1),
    ]
    shape: list[int | str] = ["batch", 3, _SIDE, _SIDE]
    graph = helper.make_graph(
        nodes,
        "self_check",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    content: bytes = proto.SerializeToString()
    return content
