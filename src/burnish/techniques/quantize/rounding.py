# SPDX-License-Identifier: Apache-2.0
"""Rounds weights to integers: to the nearest, or so that the layer's output changes least.

GPTQ rounds one input weight at a time and spreads each rounding error over the weights
that are still to be rounded, by the second moments of the layer's inputs:

    H = E[(x − E x)(x − E x)ᵀ] + λ I,    U = the upper Cholesky factor of H⁻¹
    for k:  e = (w_k − ŵ_k) / U_kk;   w_j ← w_j − e U_kj  for j > k

The mean of x is left out of H, since bias correction takes that part of the error off
exactly. Inputs are those of the float model, rounded to the layer's own input grid.

Source: Frantar et al. 2023 (arXiv:2210.17323), algorithm 1, in the order of falling
diagonal of H ("act-order" of the authors' code); λ is 1 % of the mean diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.model import Model
from burnish.core.technique import Context
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.machine import machine
from burnish.techniques.quantize.grid import Grid, weight_grid
from burnish.techniques.quantize.observe import fitting, with_outputs
from burnish.techniques.quantize.placement import Compute

_SAMPLES = 128
_POSITIONS = 48  # places of a convolution that are looked at in each sample
_GROUP_BYTES = 768 * 1024**2
_CLIPS = np.linspace(1.0, 0.6, 41)
_BLOCK = 128


@dataclass(frozen=True)
class Rounded:
    """A weight's integers and grid; `input_mean` is E[x] for each weight of a kernel, if known."""

    integers: NDArray[np.integer]
    grid: Grid
    input_mean: NDArray[np.float64] | None = None


def best_grid(
    weight: NDArray[np.float32],
    axis: int | None,
    bits: int,
    smallest: NDArray[np.float64] | float = 0.0,
) -> Grid:
    """Returns the weight grid, each channel clipped to the least squared rounding error.

    `smallest` bounds the scales from below.
    """
    rest = None if axis is None else tuple(a for a in range(weight.ndim) if a != axis)
    best_error: NDArray[np.float64] | None = None
    best_clip: NDArray[np.float64] | None = None
    for clip in _CLIPS:
        grid = weight_grid(weight, axis, bits, np.asarray(clip), smallest)
        back = grid.dequantize(grid.quantize(weight, axis), axis)
        error = np.asarray(np.square(back - weight, dtype=np.float64).sum(axis=rest))
        if best_error is None or best_clip is None:
            best_error, best_clip = error, np.full(error.shape, clip)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_clip = np.where(better, clip, best_clip)
    return weight_grid(weight, axis, bits, best_clip, smallest)


def round_nearest(
    weight: NDArray[np.float32],
    axis: int | None,
    bits: int,
    smallest: NDArray[np.float64] | float = 0.0,
) -> Rounded:
    """Returns the weight on its best grid, each value rounded to the nearest level."""
    grid = best_grid(weight, axis, bits, smallest)
    return Rounded(grid.quantize(weight, axis), grid)


def round_gptq(
    model: Model,
    compute: Sequence[Compute],
    grids: Mapping[str, Grid],
    bits: int,
    per_channel: bool,
    context: Context,
    samples: int = 0,
    smallest: Mapping[str, NDArray[np.float64] | float] | None = None,
) -> dict[str, Rounded]:
    """Returns each compute node's rounded weight by node name.

    `grids` are the grids of the nodes' inputs by tensor name, `smallest` the least scales of
    their weights by node name. At most `samples` (0: all there are) and 128 samples are
    used. Layers are taken in groups,
    so that their second moments fit in memory; transposed and dilated or auto-padded
    convolutions are rounded to the nearest.
    """
    done: dict[str, Rounded] = {}
    able: list[Layer] = []
    for one in compute:
        weight = np.asarray(one.weight.const_value.numpy() if one.weight.const_value else [])
        layer = Layer.of(one, weight)
        if layer is None:
            axis = one.axis if per_channel else None
            least = (smallest or {}).get(str(one.node.name), 0.0)
            done[str(one.node.name)] = round_nearest(weight, axis, bits, least)
        else:
            able.append(layer)
    for group in _by_memory(able):
        moments = _gather(model, group, grids, context, samples or _SAMPLES)
        for layer in group:
            axis = layer.compute.axis if per_channel else None
            least = (smallest or {}).get(layer.name, 0.0)
            grid = best_grid(layer.weight, axis, bits, least)
            done[layer.name] = layer.rounded(moments[layer.name], grid)
            context.progress("rounding weights (GPTQ)", len(done), len(compute))
    return done


@dataclass
class Moments:
    """Sums of (x − c) and (x − c)(x − c)ᵀ over n rows x, for each group.

    The centre c is near the mean, so that the variance is no small difference of large sums.
    """

    centre: NDArray[np.float32]
    first: NDArray[np.float64]
    second: NDArray[np.float32]
    n: int = 0

    @staticmethod
    def around(centre: NDArray[np.float32]) -> Moments:
        """Returns the moments of no rows yet; `centre` is (groups, width)."""
        second = np.zeros((*centre.shape, centre.shape[1]), np.float32)
        return Moments(centre, np.zeros(centre.shape), second)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Adds rows: (groups, places, width)."""
        rows = rows - self.centre[:, None]
        self.second += np.matmul(rows.transpose(0, 2, 1), rows)
        self.first += rows.sum(axis=1, dtype=np.float64)
        self.n += rows.shape[1]


@dataclass(frozen=True)
class Layer:
    """A compute node whose inputs can be laid out as rows, one for each place it looks at.

    `rows` is the weight as (groups, outputs of a group, inputs of a group).
    """

    compute: Compute
    weight: NDArray[np.float32]
    groups: int

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.compute.node.name)

    @property
    def data(self) -> str:
        """The name of the input tensor."""
        value = self.compute.node.inputs[0]
        return str(value.name) if value is not None else ""

    @property
    def width(self) -> int:
        """The inputs of one group."""
        return int(
            self.weight[0].size if self._is_conv else self.weight.shape[1 - self.compute.axis]
        )

    @property
    def _is_conv(self) -> bool:
        return self.compute.node.op_type == "Conv"

    @staticmethod
    def of(compute: Compute, weight: NDArray[np.float32]) -> Layer | None:
        """Returns the layer, or None when its inputs are not laid out here."""
        node = compute.node
        if node.op_type in ("Gemm", "MatMul"):
            return Layer(compute, weight, 1)
        plain = node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        dilated = any(d != 1 for d in node.attributes.get_ints("dilations", []) or [])
        if node.op_type != "Conv" or not plain or dilated:
            return None
        return Layer(compute, weight, node.attributes.get_int("group", 1))

    def sample(self, x: NDArray[np.float32], source: np.random.Generator) -> NDArray[np.float32]:
        """Returns inputs of the layer at random places: (groups, places, width)."""
        if not self._is_conv:
            flat = x.reshape(-1, x.shape[-1])
            take = min(len(flat), _POSITIONS * len(x))
            return flat[source.permutation(len(flat))[:take]][None]
        spatial = x.ndim - 2
        attributes = self.compute.node.attributes
        pads = attributes.get_ints("pads", [0] * 2 * spatial) or [0] * 2 * spatial
        strides = attributes.get_ints("strides", [1] * spatial) or [1] * spatial
        ends = [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ends), self.weight.shape[2:], axis=tuple(range(2, x.ndim))
        )
        strided: Any = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
        windows = windows[strided]
        places = windows.shape[2 : 2 + spatial]
        count = min(_POSITIONS, int(np.prod(places)))
        where = tuple(source.integers(0, size, (len(x), count)) for size in places)
        batch = np.arange(len(x))[:, None]
        # Advanced indices around the channel axis put the places first: (batch, count, C, *kernel).
        at: Any = (batch, slice(None), *where)
        picked = windows[at]
        rows = picked.reshape(len(x) * count, self.groups, -1)
        return np.ascontiguousarray(rows.transpose(1, 0, 2))

    def rounded(self, moments: Moments, grid: Grid) -> Rounded:
        """Returns the weight rounded by GPTQ."""
        off_centre = moments.first / moments.n
        mean = moments.centre + off_centre
        flat = self.weight if self._is_conv or self.compute.axis == 0 else self.weight.T
        rows = flat.reshape(self.groups, -1, self.width).astype(np.float64)
        scales = np.broadcast_to(grid.scale.astype(np.float64), len(flat)).reshape(self.groups, -1)
        integers = np.empty_like(rows)
        for group in range(self.groups):
            moment = moments.second[group].astype(np.float64) / moments.n
            moment -= np.outer(off_centre[group], off_centre[group])
            integers[group] = gptq(rows[group], moment, scales[group], grid.low, grid.high)
        back = integers.reshape(flat.shape).astype(np.int8)
        if not (self._is_conv or self.compute.axis == 0):
            back = back.T
        return Rounded(np.ascontiguousarray(back), grid, mean.reshape(-1))


def gptq(
    weight: NDArray[np.float64],
    moment: NDArray[np.float64],
    scale: NDArray[np.float64],
    low: int,
    high: int,
) -> NDArray[np.float64]:
    """Returns the integers of `weight` (outputs, inputs) on a fixed grid, as floats.

    `moment` is the (inputs, inputs) second moment of the inputs, `scale` one number for
    each output.
    """
    moment = moment.copy()
    diagonal = np.diag(moment).copy()
    damping = 0.01 * max(float(diagonal.mean()), 1e-12)
    moment[np.diag_indices_from(moment)] += damping
    order = np.argsort(-diagonal, kind="stable")
    left = weight[:, order].copy()
    upper = np.linalg.cholesky(np.linalg.inv(moment[np.ix_(order, order)])).T
    integers = np.empty_like(left)
    inputs = left.shape[1]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.empty((len(left), end - start))
        for k in range(start, end):
            integers[:, k] = np.clip(np.rint(left[:, k] / scale), low, high)
            error = (left[:, k] - integers[:, k] * scale) / upper[k, k]
            left[:, k:end] -= error[:, None] * upper[k, k:end]
            errors[:, k - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    back = np.empty_like(integers)
    back[:, order] = integers
    return back


def _by_memory(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    group: list[Layer] = []
    total = 0
    for layer in layers:
        size = 4 * layer.groups * layer.width**2
        if group and total + size > _GROUP_BYTES:
            yield group
            group, total = [], 0
        group.append(layer)
        total += size
    if group:
        yield group


def _gather(
    model: Model,
    layers: Sequence[Layer],
    grids: Mapping[str, Grid],
    context: Context,
    samples: int,
) -> dict[str, Moments]:
    """Returns the moments of each layer's inputs by the layer's name."""
    found: dict[str, Moments] = {}
    data = context.need_task("gptq").split("calibration")
    source = np.random.default_rng(context.seed)
    probe = with_outputs(model, sorted({layer.data for layer in layers}))
    limit = min(samples, _SAMPLES, len(data))
    done = 0
    with OnnxRuntime().open(probe, Setting(threads=machine().cores)) as session:
        for inputs in fitting(model, data, 8, limit):
            tensors = {**session.run(inputs), **inputs}
            for layer in layers:
                grid = grids[layer.data]
                # NaN has no level; infinities go to the outermost.
                x = np.nan_to_num(tensors[layer.data], posinf=np.inf, neginf=-np.inf)
                rows = layer.sample(grid.dequantize(grid.quantize(x)), source)
                if layer.name not in found:
                    found[layer.name] = Moments.around(rows.mean(axis=1))
                found[layer.name].add(rows)
            done = min(done + len(next(iter(inputs.values()))), limit)
            context.progress("gathering second moments", done, limit)
    return found
