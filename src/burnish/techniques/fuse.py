# SPDX-License-Identifier: Apache-2.0
"""Folds what can be computed once, and writes patterns as the operators engines are fast at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from burnish.core.candidate import Setting
from burnish.core.errors import Broken, Misuse, Unsupported, unknown
from burnish.core.model import Model
from burnish.core.technique import Context, Outcome, Skipped, Technique
from burnish.engines.engine import Session
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.graph.affine import fold_affine
from burnish.graph.canonical import infer_types, name_all
from burnish.graph.folding import fold
from burnish.graph.rewrite import Rule, rewrite
from burnish.graph.rules import rules
from burnish.graph.rules.normalization import Form

_HALF_TOLERANCE = 1e-2  # half precision has 11 bits
_SIZES = (8, 32, 64, 224)  # tried for dimensions that vary, besides the batch


@dataclass(frozen=True)
class Fuse(Technique):
    """Folds BatchNormalization and per-channel Mul and Add into the weights before them,
    computes constants, drops identities, duplicates and dead nodes, and rewrites patterns
    (`graph.rules`) that engines have one operator for.

    The result is compared with the original on random inputs: a relative difference
    (against the largest output) above `tolerance`, or 1e-2 in half precision, is `Broken`.

    `local_response` is how local response normalization is written: "sums" is fast on
    every engine, "operator" the fastest on OpenVINO and slow on ONNX Runtime.
    """

    tolerance: float = 1e-4
    local_response: Form = "sums"
    name: ClassVar[str] = "fuse"

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` for a field that has no meaning."""
        if self.local_response not in get_args(Form):
            raise unknown("local_response of fuse", str(self.local_response), get_args(Form))
        if not 0.0 < self.tolerance < float("inf"):
            raise Misuse(f"fuse's tolerance must be a positive number, got {self.tolerance}")

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the folded model, what was done, and what was not and why."""
        graph = model.edit()
        before = _operators(graph)
        done, passed = _simplify(graph, rules(self.local_response))
        change = _change(before, _operators(graph))
        fused = model.derive(graph, self)
        difference, note = self._check(model, fused, context.seed)
        skipped = [Skipped(place, reason) for place, reason in passed]
        if difference is None:
            skipped.append(Skipped("numerical check", note))
        else:
            done.append(f"checked against the original: {note}")
        return Outcome(fused, (*done, *change), tuple(skipped))

    def _check(self, before: Model, after: Model, seed: int) -> tuple[float | None, str]:
        """Returns the largest difference and how it was found, or None and why there is none.

        Raises `Broken` when it is above what is allowed, or the new model does not run.
        """
        try:
            inputs, expected = _run_random(before, seed)
        except Unsupported as error:
            return None, f"ONNX Runtime does not run the original on random inputs: {error}"
        if not all(np.isfinite(one).all() for one in expected.values() if _floats(one)):
            return None, "the original's outputs on random inputs are not finite"
        try:
            with OnnxRuntime().open(after, Setting()) as session:
                got = session.run(inputs)
        except Unsupported as error:
            raise Broken(f"fuse made a model that does not run: {error}") from error
        differences = {name: _difference(one, got[name]) for name, one in expected.items()}
        worst = max(differences, key=lambda name: differences[name])
        limit = max(self.tolerance, _HALF_TOLERANCE) if _is_half(before) else self.tolerance
        if differences[worst] > limit:
            raise Broken(
                f"fuse changed the output {worst!r} by {differences[worst]:.2e} of its largest "
                f"value, and {limit:.0e} is allowed"
            )
        return differences[worst], f"largest relative difference {differences[worst]:.1e}"


def _simplify(graph: ir.Model, patterns: Sequence[Rule]) -> tuple[list[str], list[tuple[str, str]]]:
    """Folds and rewrites in place until nothing changes; returns what was done and what not."""
    done: list[str] = []
    while True:
        size = len(graph.graph)
        infer_types(graph, "the model")
        fold(graph)
        folded, unfolded = fold_affine(graph.graph)
        rewritten, passed = rewrite(graph.graph, patterns)
        name_all(graph)
        fold(graph)
        infer_types(graph, "the fused model")
        done += folded + rewritten
        if not (folded or rewritten) and len(graph.graph) == size:
            near = [(f"BatchNormalization {name}", reason) for name, reason in unfolded]
            return done, near + passed


def random_inputs(model: Model, batch: int, seed: int, size: int = 8) -> dict[str, NDArray[Any]]:
    """Returns inputs that fit the signature: floats from a standard normal, integers 0 or 1.

    A first dimension that varies becomes `batch`, every other one `size`; dimensions of
    one name get one size.
    """
    source = np.random.default_rng(seed)
    named: dict[str, int] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for spec in model.signature.inputs:
        shape: list[int] = []
        for axis, dimension in enumerate(spec.shape):
            free = batch if axis == 0 else size
            if isinstance(dimension, str):
                free = named.setdefault(dimension, free)
            shape.append(dimension if isinstance(dimension, int) else free)
        dtype = np.dtype(spec.dtype)
        arrays[spec.name] = (
            source.standard_normal(shape)
            if np.issubdtype(dtype, np.floating)
            else source.integers(0, 2, shape)
        ).astype(dtype)
    return arrays


def _run_random(model: Model, seed: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Returns random inputs of the first sizes that the model takes, and its outputs."""
    vary = any(
        not isinstance(dimension, int)
        for spec in model.signature.inputs
        for dimension in spec.shape[1:]
    )
    with OnnxRuntime().open(model, Setting()) as session:
        tries = [(batch, size) for size in (_SIZES if vary else _SIZES[:1]) for batch in (3, 1)]
        for batch, size in tries[:-1]:
            found = _attempt(session, random_inputs(model, batch, seed, size))
            if found is not None:
                return found
        inputs = random_inputs(model, *tries[-1][:1], seed, tries[-1][1])
        return inputs, session.run(inputs)


def _attempt(
    session: Session, inputs: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]] | None:
    try:
        return inputs, session.run(inputs)
    except Unsupported:  # the sizes do not suit the model; the last attempt's error is raised
        return None


def _difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """Returns the largest difference over the largest value; of other types, the share changed."""
    if got.shape != expected.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if not _floats(expected):
        return float(np.mean(got != expected))
    if not np.isfinite(got).all():
        return float("inf")
    wide = expected.astype(np.float64)
    scale = float(np.abs(wide).max()) or 1.0
    return float(np.abs(got.astype(np.float64) - wide).max()) / scale


def _floats(array: NDArray[Any]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _is_half(model: Model) -> bool:
    half = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    nodes = model.edit().graph.all_nodes()
    return any(value.dtype in half for node in nodes for value in node.outputs)


def _operators(graph: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.all_nodes())


def _change(before: Counter[str], after: Counter[str]) -> list[str]:
    """Returns the account of operators: how many of each kind went, and how many came."""
    lines = [f"{before.total()} operators became {after.total()}"]
    for word, counts in (("went", before - after), ("came", after - before)):
        if counts:
            inside = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            lines.append(f"{word}: {inside}")
    return lines
