# SPDX-License-Identifier: Apache-2.0
"""Zeroes single weights of small magnitude, which makes files compress better, nothing faster."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.core.model import Model
from burnish.core.technique import Context, Skipped
from burnish.techniques.prune.pruning import (
    Chosen,
    Pruning,
    Removal,
    refuse_quantized,
    weight_array,
)
from burnish.techniques.train.training import number

Scope = Literal["global", "layer"]
Mask = NDArray[np.bool_]

_INPUT_AXES = {"Conv": 1, "ConvTranspose": 0}  # of the weight; the kernel is summed over too
_COMPRESSION = 9


@dataclass(frozen=True)
class PruneWeights(Pruning):
    """Zeroes the weights of the least magnitude in convolutions and matrix products.

    `amount` is the share of zeros, 0 to below 1, counted over all layers together with
    `scope` "global", or in each alone with "layer". `pattern` "2:4" (or another N:M) keeps
    the N largest of every M neighbours among a layer's inputs instead, whatever `amount`
    says. `keep`: nodes to leave dense, by name. Source: Han et al. 2015
    (arXiv:1506.02626); Mishra et al. 2021 (arXiv:2104.08378) for N:M.

    No engine here multiplies any faster for it. The file is as large as before, and
    smaller once compressed: by how much is measured. `hold_zeros` of the techniques that
    train keeps what is zero at zero, and `prune_iteratively` sets it.
    """

    amount: float = 0.5
    scope: Scope = "global"
    pattern: str = ""
    keep: tuple[str, ...] = ()
    name: ClassVar[str] = "prune_weights"

    def __post_init__(self) -> None:
        faults = []
        if not number(self.amount, 0, 1):
            faults.append(f"amount must be a number from 0 to below 1, got {self.amount!r}")
        if self.scope not in get_args(Scope):
            faults.append(str(unknown("scope", str(self.scope), get_args(Scope))))
        if self.pattern and _pattern(self.pattern) is None:
            faults.append(f"pattern must be N:M with N below M, as 2:4, got {self.pattern!r}")
        if not isinstance(self.keep, tuple) or not all(isinstance(one, str) for one in self.keep):
            faults.append(f"keep must be a list of names, got {self.keep!r}")
        if faults:
            raise Misuse("; ".join(faults))

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` for a quantized model or an unknown node in `keep`."""
        refuse_quantized(self.name, model)
        nodes = [str(node.name) for node in model.edit().graph]
        for one in self.keep:
            if one not in nodes:
                raise unknown("node in keep", one, nodes)

    def choose(self, model: Model, context: Context) -> Chosen:
        """Returns a mask for each weight, True where it stays."""
        layers = _layers(model.edit())
        dense = {name: node for name, (node, _) in layers.items() if str(node.name) in self.keep}
        skipped = [
            Skipped(f"{node.name} ({node.op_type})", "it is in keep") for node in dense.values()
        ]
        layers = {name: one for name, one in layers.items() if name not in dense}
        if not layers:
            return Chosen({}, (), (*skipped, Skipped("weights", "no layer has float weights")))
        pattern = _pattern(self.pattern) if self.pattern else None
        masks: dict[str, Mask] = {}
        if pattern is not None:
            for name, (node, array) in layers.items():
                masks[name], rest = _n_of_m(array, node, *pattern)
                if rest:
                    skipped.append(
                        Skipped(
                            f"{node.name} ({node.op_type})",
                            f"the last {rest} inputs of each output are no whole {pattern[1]}",
                        )
                    )
        elif self.scope == "layer":
            masks = {name: _largest([one], self.amount)[0] for name, (_, one) in layers.items()}
        else:
            found = _largest([array for _, array in layers.values()], self.amount)
            masks = dict(zip(layers, found, strict=True))
        return Chosen(masks, (_words(masks),), tuple(skipped))

    def remove(self, model: Model, removal: Removal) -> ir.Model:
        """Returns the graph with zeros where the masks say so."""
        graph = model.edit()
        for name, mask in removal.items():
            value = graph.graph.initializers[name]
            array = weight_array(value)
            value.const_value = ir.tensor(np.where(mask, array, array.dtype.type(0)), name=name)
        return graph

    def check(self, before: Model, after: Model, removal: Removal, seed: int) -> Chosen:
        """Returns the sizes of both models' weights after compression."""
        sizes = [_compressed_bytes(model) for model in (before, after)]
        return Chosen(
            removal,
            (f"the weights compressed (zlib): {sizes[0]:,} became {sizes[1]:,} bytes",),
            (
                Skipped(
                    "speed",
                    "no engine here skips single zeros, so nothing runs faster, and the file "
                    "itself is as large as before: prune_channels makes both smaller",
                ),
            ),
        )

    def part(self, now: float, before: float, start: Model, current: Model) -> Self | None:
        """Returns the step to `now` of the amount: zeros of earlier rounds are smallest still."""
        if self.pattern:
            return self if before == 0 else None
        return dataclasses.replace(self, amount=self.amount * now)


def _pattern(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"([1-9]\d?):([1-9]\d?)", text) if isinstance(text, str) else None
    if match is None or int(match[1]) >= int(match[2]):
        return None
    return int(match[1]), int(match[2])


def _layers(graph: ir.Model) -> dict[str, tuple[ir.Node, NDArray[Any]]]:
    """Returns the float weights of convolutions and matrix products, with the node of each."""
    found: dict[str, tuple[ir.Node, NDArray[Any]]] = {}
    for node in graph.graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain:
            continue
        for value in node.inputs[:2]:
            if value is None or not value.is_initializer() or value.const_value is None:
                continue
            array = weight_array(value)
            if array.ndim >= 2 and array.dtype in (np.float32, np.float64, np.float16):
                found.setdefault(str(value.name), (node, array))
    return found


def _largest(arrays: list[NDArray[Any]], amount: float) -> list[Mask]:
    """Returns which weights stay when that share of all of them goes; of equals the first stay."""
    magnitudes = np.concatenate([np.abs(one).ravel().astype(np.float32) for one in arrays])
    gone = round(amount * magnitudes.size)
    stays = np.zeros(magnitudes.size, np.bool_)
    stays[np.argsort(-magnitudes, kind="stable")[: magnitudes.size - gone]] = True
    parts = np.split(stays, np.cumsum([one.size for one in arrays])[:-1])
    return [part.reshape(one.shape) for part, one in zip(parts, arrays, strict=True)]


def _n_of_m(array: NDArray[Any], node: ir.Node, n: int, m: int) -> tuple[Mask, int]:
    """Returns which weights stay, and how many inputs at the end make no whole group."""
    axis = _INPUT_AXES.get(node.op_type, array.ndim - 2)
    if node.op_type == "Gemm":
        axis = 1 if node.attributes.get_int("transB", 0) else 0
    last = np.moveaxis(array, axis, -1)
    whole = last.shape[-1] // m * m
    stays = np.ones(last.shape, np.bool_)
    groups = np.abs(last[..., :whole]).reshape(*last.shape[:-1], -1, m)
    rank = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1, kind="stable")
    stays[..., :whole] = (rank < n).reshape(*last.shape[:-1], whole)
    return np.ascontiguousarray(np.moveaxis(stays, -1, axis)), last.shape[-1] - whole


def _compressed_bytes(model: Model) -> int:
    """Returns the size of all weights, one after another, after compression."""
    stream, total = zlib.compressobj(_COMPRESSION), 0
    for value in model.edit().graph.initializers.values():
        if value.const_value is not None:
            total += len(stream.compress(value.const_value.tobytes()))
    return total + len(stream.flush())


def _words(masks: Mapping[str, Mask]) -> str:
    total = sum(mask.size for mask in masks.values())
    gone = total - sum(int(mask.sum()) for mask in masks.values())
    share = 100 * gone / total if total else 0.0
    return f"{gone:,} of {total:,} weights ({share:.1f} %) in {len(masks)} layers are zero"
