# SPDX-License-Identifier: Apache-2.0
"""Static int8: weights and activations on grids found from calibration data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from burnish.core.errors import Misuse, Unsupported, unknown
from burnish.core.model import Model
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.measuring.machine import machine
from burnish.techniques.quantize.grid import Activation, Grid, activation_grid
from burnish.techniques.quantize.input_grid import align, within
from burnish.techniques.quantize.insert import Inserter
from burnish.techniques.quantize.observe import Observed, fitting, observe
from burnish.techniques.quantize.placement import Compute, Plan, moves_only, plan
from burnish.techniques.quantize.ranges import METHODS, Method, choose_range
from burnish.techniques.quantize.rounding import Rounded, round_gptq, round_nearest

Rounding = Literal["nearest", "gptq"]

_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
_ALIGN_SAMPLES = 32  # that show whether an input lies on the levels of pixels
_LARGEST_BIAS = 2**29  # of 2 ** 31: correction may add to the bias, and sums are added to it


@dataclass(frozen=True)
class QuantizeStatic(Technique):
    """Static int8 in QDQ form: one scale for each activation, one for each weight channel.

    `ranges`: how activation ranges are found ("minmax", "percentile", "entropy", "mse");
    the model's inputs always take min-max. `percentile`: the share, in percent, that
    "percentile" keeps at each end. `activations`: "u8", "s8", or "auto", which is u8 on
    every CPU known so far. `weight_bits`: 8, 7 (no int16 saturation on x86 without VNNI)
    or 0, which chooses for this machine.
    `rounding`: "nearest", or "gptq" (Frantar et al. 2023), slower and more faithful.
    `correct_bias` shifts the bias of each Conv and Gemm by the mean error that rounding leaves.
    `align_input` puts an image input on the levels of its pixels, so that rounding it loses
    nothing (`input_grid`). `samples`: calibration samples to use, 0 for all. `keep_float`:
    nodes to leave.
    """

    ranges: Method = "mse"
    percentile: float = 99.999
    activations: Activation | Literal["auto"] = "auto"
    weight_bits: int = 0
    rounding: Rounding = "nearest"
    per_channel: bool = True
    correct_bias: bool = True
    samples: int = 0
    keep_float: tuple[str, ...] = ()
    align_input: bool = True
    name: ClassVar[str] = "quantize_static"

    def __post_init__(self) -> None:
        typed = {
            "percentile": isinstance(self.percentile, int | float),
            "weight_bits": isinstance(self.weight_bits, int),
            "per_channel": isinstance(self.per_channel, bool),
            "correct_bias": isinstance(self.correct_bias, bool),
            "align_input": isinstance(self.align_input, bool),
            "samples": isinstance(self.samples, int),
            "keep_float": isinstance(self.keep_float, tuple)
            and all(isinstance(one, str) for one in self.keep_float),
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, right in typed.items() if not right]
        if wrong:
            raise Misuse(f"{self.name} got a value of the wrong type: {', '.join(wrong)}")
        choices: list[tuple[str, str, tuple[str, ...]]] = [
            ("range method", self.ranges, METHODS),
            ("activation type", self.activations, ("auto", "u8", "s8")),
            ("rounding", self.rounding, ("nearest", "gptq")),
        ]
        for kind, value, known in choices:
            if value not in known:
                raise unknown(kind, str(value), known)
        if self.weight_bits not in (0, *range(2, 9)):
            raise Misuse(f"weight_bits must be 2 to 8, or 0 to choose, got {self.weight_bits}")
        if not 50 <= self.percentile <= 100 or self.samples < 0:
            raise Misuse("percentile must be in 50..100 and samples 0 or more")

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` without calibration data or when the model is quantized already."""
        context.need_task(self.name).split("calibration")
        nodes = {node.name: node for node in model.edit().graph}
        for name, node in nodes.items():
            if node.op_type in _QUANTIZED:
                raise Misuse(f"the model is quantized already: it holds {node.op_type} {name}")
        for name in self.keep_float:
            if name not in nodes:
                raise unknown("node in keep_float", name, [str(known) for known in nodes])

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the QDQ model, what was quantized, and each compute node left in float."""
        source, exact, notes = self._align(model, context)
        graph = source.edit()
        what = plan(graph.graph, self.keep_float)
        if not what.compute:
            reasons = "; ".join(f"{one.place}: {one.reason}" for one in what.skipped[:5])
            raise Unsupported(
                "nothing to quantize: no Conv, Gemm or MatMul with constant weights"
                + (f" ({reasons})" if reasons else "")
            )
        names = [str(value.name) for value in what.tensors]
        seen = observe(source, names, self.samples, context, self.name)
        beyond = [name for name in exact if not within(seen[name], exact[name])]
        if beyond:
            # What the first samples showed does not hold for all of them.
            return replace(self, align_input=False).transform(model, context)
        grids, constant = self._grids(graph.graph, what, seen)
        grids |= exact
        rounded = self._round(source, what, grids, context)
        inserter = Inserter(graph.graph)
        for one in what.compute:
            made = rounded[str(one.node.name)]
            inserter.weight(
                one.node, made.integers, made.grid, one.axis if self.per_channel else None
            )
            bias = self._bias(one, made, seen)
            if bias is not None:
                inserter.bias(one.node, bias)
        for value in what.tensors:
            inserter.activation(value, grids[str(value.name)])
        common.RemoveUnusedNodesPass()(graph)
        applied: tuple[str, ...] = (
            f"{len(what.compute)} operators in int8, {len(names)} activations in {self._kind}, "
            f"{self._bits}-bit weights, {self.ranges} ranges, {self.rounding} rounding",
        )
        if exact:
            applied += ("the input on the 256 levels of its pixels, exactly",)
        return Outcome(model.derive(graph, self), applied, (*notes, *what.skipped, *constant))

    def _align(
        self, model: Model, context: Context
    ) -> tuple[Model, dict[str, Grid], tuple[Skipped, ...]]:
        """Returns the model with its image inputs on their levels, and those tensors' grids."""
        if not self.align_input:
            return model, {}, ()
        data = context.need_task(self.name).split("calibration")
        batches = fitting(model, data, _ALIGN_SAMPLES, min(_ALIGN_SAMPLES, len(data)))
        aligned = align(model, batches, self._kind, self.keep_float)
        if not aligned.grids:
            return model, {}, aligned.skipped
        return Model(aligned.graph, model.lineage), aligned.grids, aligned.skipped

    @property
    def _kind(self) -> Activation:
        # u8 × s8 is what VNNI, AVX-512 and Arm's dot product compute, and s8 × s8 sends
        # ONNX Runtime on x86 to kernels slower than fp32; the planner measures both.
        return "u8" if self.activations == "auto" else self.activations

    @property
    def _bits(self) -> int:
        return self.weight_bits or (8 if machine().int8_dot else 7)

    def _grids(
        self, graph: ir.Graph, what: Plan, seen: dict[str, Observed]
    ) -> tuple[dict[str, Grid], tuple[Skipped, ...]]:
        """Returns a grid for each tensor: a group's covers the union of its ranges."""
        grids: dict[str, Grid] = {}
        notes: list[Skipped] = []
        inputs = set(graph.inputs)
        for group in what.groups:
            ranges = []
            for value in group:
                observed = seen[str(value.name)].histogram
                if observed.not_finite:
                    notes.append(
                        Skipped(str(value.name), f"{observed.not_finite} values were not finite")
                    )
                method: Method = "minmax" if value in inputs else self.ranges
                if _is_moved(value, group):
                    continue
                try:
                    ranges.append(choose_range(observed, method, self._kind, self.percentile))
                except Misuse as error:
                    raise Misuse(f"the tensor {value.name}: {error}") from error
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            for value in group:
                grids[str(value.name)] = activation_grid(low, high, self._kind)
        return grids, tuple(notes)

    def _round(
        self, model: Model, what: Plan, grids: dict[str, Grid], context: Context
    ) -> dict[str, Rounded]:
        smallest = {str(one.node.name): self._smallest_scale(one, grids) for one in what.compute}
        if self.rounding == "gptq":
            return round_gptq(
                model,
                what.compute,
                grids,
                self._bits,
                self.per_channel,
                context,
                self.samples,
                smallest,
            )
        return {
            name: round_nearest(_array(one.weight), self._axis(one), self._bits, smallest[name])
            for one in what.compute
            for name in [str(one.node.name)]
        }

    def _smallest_scale(self, one: Compute, grids: dict[str, Grid]) -> NDArray[np.float64] | float:
        """Returns the least scale of each weight channel that keeps its bias in 32 bits.

        Engines round the bias to a multiple of the input's scale times the weight's; a
        channel whose weights are all but 0 would have it overflow.
        """
        data, bias = one.node.inputs[0], one.node.inputs[2:]
        if data is None or not bias or bias[0] is None or bias[0].const_value is None:
            return 0.0
        step = float(grids[str(data.name)].scale) * _LARGEST_BIAS
        largest = np.abs(_array(bias[0]).astype(np.float64)) / step
        if not self.per_channel:
            return float(largest.max(initial=0.0))
        channels = _array(one.weight).shape[one.axis]
        # A Gemm's bias is (outputs,), or anything that broadcasts to (rows, outputs).
        spread = np.broadcast_to(largest, (*largest.shape[:-1], channels))
        least: NDArray[np.float64] = spread.reshape(-1, channels).max(axis=0)
        return least

    def _axis(self, one: Compute) -> int | None:
        return one.axis if self.per_channel else None

    def _bias(
        self, one: Compute, made: Rounded, seen: dict[str, Observed]
    ) -> NDArray[np.float32] | None:
        """Returns the corrected bias, or None when it stays as it is.

        The error of rounding W to Ŵ adds (Ŵ − W) x to each output; its mean over the data
        is (Ŵ − W) E[x], which the bias can take off. Source: Nagel et al. 2019
        (arXiv:1906.04721), equation 6, with E[x] measured rather than derived.
        """
        if not self.correct_bias or one.node.op_type not in ("Conv", "Gemm"):
            return None
        data = one.node.inputs[0]
        mean = made.input_mean
        if mean is None and data is not None:
            mean = seen[str(data.name)].channel_mean
        if mean is None or mean.size == 0:
            return None
        weight = _array(one.weight).astype(np.float64)
        error = made.grid.dequantize(made.integers, self._axis(one)).astype(np.float64) - weight
        shift = _mean_output(one, error, mean)
        old = one.node.inputs[2] if len(one.node.inputs) > 2 else None
        if old is not None and old.const_value is None:
            return None
        start = np.zeros_like(shift) if old is None else _array(old).astype(np.float64)
        bias: NDArray[np.float32] = (start - shift).astype(np.float32)
        return bias


def _is_moved(value: ir.Value, group: tuple[ir.Value, ...]) -> bool:
    """Returns whether the value holds nothing but what others of its group hold."""
    node = value.producer()
    if node is None or not moves_only(node):
        return False
    return all(
        data in group for data in node.inputs if data is not None and data.dtype == value.dtype
    )


def _mean_output(
    one: Compute, weight: NDArray[np.float64], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the mean of `weight` applied to an input with these means, for each channel.

    `mean` holds one number for each input channel, or for each weight of a kernel.
    """
    if one.node.op_type == "Gemm":
        return (weight if one.axis == 0 else weight.T) @ mean
    rows = weight.reshape(len(weight), weight.shape[1], -1)
    groups = one.node.attributes.get_int("group", 1)
    if mean.size == weight.shape[1] * groups:  # per channel: the same at each kernel position
        mean = np.repeat(mean, rows.shape[2])
    by_group = mean.reshape(groups, -1)
    per_output = np.repeat(by_group, len(weight) // groups, axis=0)
    total: NDArray[np.float64] = (rows.reshape(len(weight), -1) * per_output).sum(axis=1)
    return total


def _array(value: ir.Value) -> NDArray[np.float32]:
    if value.const_value is None:
        raise Misuse(f"{value.name} is no constant")
    array: NDArray[np.float32] = value.const_value.numpy()
    return array
