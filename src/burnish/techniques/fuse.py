# SPDX-License-Identifier: Apache-2.0
"""Folds what can be computed once: BatchNormalization, constants, identities, dead nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Unsupported
from burnish.core.model import Model, TensorSpec
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.affine import fold_affine

_FOLD_LIMIT_BYTES = 16 * 1024**2  # a folded constant must not blow up the file


@dataclass(frozen=True)
class Fuse(Technique):
    """Folds BatchNormalization and per-channel Mul and Add into the weights before them,
    computes constants, and drops identities, duplicates and dead nodes.

    The result is compared with the original on random inputs: a relative difference
    (against the largest output) above `tolerance` is `Broken`.
    """

    tolerance: float = 1e-4
    name: ClassVar[str] = "fuse"

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the folded model, each fold by name, and each BatchNormalization left."""
        graph = model.edit()
        before = Counter(node.op_type for node in graph.graph.all_nodes())
        fold_constants(
            graph,
            input_size_limit=_FOLD_LIMIT_BYTES,
            output_size_limit=_FOLD_LIMIT_BYTES,
            should_fold=_should_fold,
        )
        for cleaning in (
            common.IdentityEliminationPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.CommonSubexpressionEliminationPass(),
        ):
            cleaning(graph)
        done, passed = fold_affine(graph.graph)
        common.RemoveUnusedNodesPass()(graph)
        after = Counter(node.op_type for node in graph.graph.all_nodes())
        gone = before - after - Counter(line.split()[0] for line in done)
        done += [f"{count} {op} removed" for op, count in sorted(gone.items())]
        skipped = tuple(Skipped(f"BatchNormalization {name}", why) for name, why in passed)
        fused = model.derive(graph, self)
        difference, note = self._difference(model, fused, context.seed)
        if difference is None:
            skipped += (Skipped("numerical check", note),)
        else:
            done.append(
                f"checked against the original: largest relative difference {difference:.1e}"
            )
            if difference > self.tolerance:
                raise Broken(
                    f"fuse changed the model's outputs by {difference:.2e} of their largest value, "
                    f"and {self.tolerance:.0e} is allowed"
                )
        return Outcome(fused, tuple(done), skipped)

    def _difference(self, before: Model, after: Model, seed: int) -> tuple[float | None, str]:
        """Returns the largest relative difference on random inputs, or None and why."""
        inputs = random_inputs(before, batch=2, seed=seed)
        try:
            one, other = (_run(model, inputs) for model in (before, after))
        except Unsupported as error:
            return None, f"ONNX Runtime did not run random inputs: {error}"
        worst = 0.0
        for name, expected in one.items():
            if not np.issubdtype(expected.dtype, np.floating):
                continue
            scale = float(np.abs(expected).max(initial=0.0)) or 1.0
            worst = max(worst, float(np.abs(other[name] - expected).max(initial=0.0)) / scale)
        return (worst, "") if np.isfinite(worst) else (None, "the original gives no finite outputs")


def random_inputs(model: Model, batch: int, seed: int) -> dict[str, NDArray[Any]]:
    """Returns inputs that fit the signature: floats from a standard normal, integers 0 or 1.

    Named first dimensions become `batch`, other dynamic dimensions 8.
    """
    source = np.random.default_rng(seed)
    return {spec.name: _random(spec, batch, source) for spec in model.signature.inputs}


def _random(spec: TensorSpec, batch: int, source: np.random.Generator) -> NDArray[Any]:
    shape = [
        size if isinstance(size, int) else (batch if axis == 0 else 8)
        for axis, size in enumerate(spec.shape)
    ]
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return source.standard_normal(shape).astype(dtype)
    return source.integers(0, 2, shape).astype(dtype)


def _run(model: Model, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with OnnxRuntime().open(model, Setting()) as session:
        return session.run(inputs)


def _should_fold(node: ir.Node) -> bool | None:
    # Folding these would turn int8 weights back into floats.
    return False if node.op_type in ("DequantizeLinear", "QuantizeLinear") else None
