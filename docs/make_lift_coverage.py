# SPDX-License-Identifier: Apache-2.0
"""Runs ONNX's own operator tests through the lift and writes lift.md."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from burnish.core.errors import BurnishError
from burnish.graph.lift import families
from burnish.graph.lift.dtypes import as_array, as_tensor
from burnish.graph.lift.module import lift
from burnish.graph.lift.registry import operators

PAGE = Path(__file__).parent / "lift.md"
_TEXT, _LISTS, _RANDOM = "text", "sequences and optional values", "random numbers"
_FOREIGN, _TYPE = "another domain than ONNX's default one", "an element type PyTorch lacks"
_LIVE = "Dropout in training mode: the random mask is its own"
_REASONS = {
    "ImageDecoder": "decoding image files",
    "StringConcat": _TEXT,
    "StringNormalizer": _TEXT,
    "StringSplit": _TEXT,
    "RegexFullMatch": _TEXT,
    "TfIdfVectorizer": _TEXT,
    "SequenceAt": _LISTS,
    "SequenceConstruct": _LISTS,
    "SequenceEmpty": _LISTS,
    "SequenceErase": _LISTS,
    "SequenceInsert": _LISTS,
    "SequenceLength": _LISTS,
    "SequenceMap": _LISTS,
    "SplitToSequence": _LISTS,
    "ConcatFromSequence": _LISTS,
    "Optional": _LISTS,
    "OptionalGetElement": _LISTS,
    "OptionalHasElement": _LISTS,
    "Bernoulli": _RANDOM,
    "Multinomial": _RANDOM,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
}
_LACKING = {
    onnx.TensorProto.STRING: _TEXT,
    onnx.TensorProto.FLOAT4E2M1: _TYPE,
    onnx.TensorProto.FLOAT8E8M0: _TYPE,
}
# What two correct programs may differ by, relative to 1: half precision has 11 bits, bfloat16 8.
_TOLERANCE = {"float16": 4e-3, "bfloat16": 2e-2}
_INTRO = """<!-- Made by docs/make_lift_coverage.py; do not edit. -->

# Operators that can be trained

`graph.lift` turns a model into a PyTorch module. It is held to ONNX's own operator tests:
every case of `onnx.backend.test` (onnx {version}, node tests, operator sets up to {opset}) is
lifted, run and compared. **{passed} pass, {failed} fail, {skipped} are skipped**, each for a
reason below. `python docs/make_lift_coverage.py` runs them again and writes this page.

An operator that has no form here is an error that names all nodes concerned, before
anything is run. Cases named `_expanded` count for the operator that they spell out.
"""


@dataclass(frozen=True)
class Verdict:
    """What came of one case: `outcome` is "passed", "skipped" or "failed"."""

    name: str
    operator: str
    outcome: str
    reason: str = ""


@cache
def cases() -> tuple[Any, ...]:
    """Returns ONNX's node tests: name, model, data sets and tolerances of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of computing the expected values
        from onnx.backend.test.loader import load_model_tests

        return tuple(load_model_tests(kind="node"))


def subjects() -> dict[str, str]:
    """Returns the operator that each case is about."""
    first = {case.name: case.model.graph.node[0].op_type for case in cases()}
    alone = {case.name for case in cases() if len(case.model.graph.node) == 1}
    found = {}
    for name, operator in first.items():
        base = name.split("_expanded")[0]
        found[name] = first[base] if base in alone else operator
    return found


def judge(case: Any, operator: str) -> Verdict:
    """Returns what came of one case."""
    reason = skip_reason(case)
    if reason:
        return Verdict(case.name, operator, "skipped", reason)
    try:
        wrong = _run(case)
    except (BurnishError, RuntimeError, ValueError, TypeError, IndexError) as error:
        wrong = repr(error)
    return Verdict(case.name, operator, "failed" if wrong else "passed", wrong)


def skip_reason(case: Any) -> str:
    """Returns why a case has no meaning for the lift, "" if it has one."""
    graph = case.model.graph
    for node in _nodes(graph):
        if node.domain not in ("", "ai.onnx"):
            return _FOREIGN
        if node.op_type in _REASONS:
            return _REASONS[node.op_type]
    for value in (*graph.input, *graph.output):
        if value.type.WhichOneof("value") != "tensor_type":
            return _LISTS
        if value.type.tensor_type.elem_type in _LACKING:
            return _LACKING[value.type.tensor_type.elem_type]
    for node in _nodes(graph):
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in _LACKING:
                return _LACKING[attribute.i]
    return _LIVE if case.name.startswith("test_training_dropout") and _drops(case) else ""


def _drops(case: Any) -> bool:
    ratio = case.data_sets[0][0][1] if len(case.data_sets[0][0]) > 1 else 0.5
    return bool(np.asarray(ratio) != 0)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g) if attribute.HasField("g") else ()


def _run(case: Any) -> str:
    """Returns what is wrong with the lifted case's outputs, "" if nothing is."""
    graph = ir.from_proto(case.model)
    module = lift(graph)
    for inputs, outputs in case.data_sets:
        given = zip(graph.graph.inputs, inputs, strict=True)
        made = module({str(value.name): as_tensor(_tensor(one)) for value, one in given})
        for value, one in zip(graph.graph.outputs, outputs, strict=True):
            expected = _tensor(one).numpy()
            assert value.dtype is not None
            got = as_array(made[str(value.name)], value.dtype)
            if got.shape != expected.shape or got.dtype != expected.dtype:
                return f"{value.name}: {got.dtype}{got.shape}, not {expected.dtype}{expected.shape}"
            relative = max(case.rtol, _TOLERANCE.get(got.dtype.name, 0.0))
            absolute = max(case.atol, _TOLERANCE.get(got.dtype.name, 1e-6))
            if got.dtype.isbuiltin != 1:
                got, expected = got.astype(np.float32), expected.astype(np.float32)
            if not np.allclose(got, expected, relative, absolute, equal_nan=True):
                return f"{value.name}: {got.ravel()[:8]}, not {expected.ravel()[:8]}"
    return ""


def _tensor(one: Any) -> Any:
    return ir.from_proto(one) if isinstance(one, onnx.TensorProto) else ir.tensor(np.asarray(one))


def page(verdicts: Sequence[Verdict]) -> str:
    """Returns lift.md as it should be."""
    families.load()
    lifted = operators()
    counts = Counter(one.outcome for one in verdicts)
    text = _INTRO.format(
        version=onnx.__version__,
        opset=onnx.defs.onnx_opset_version(),
        **{word: counts[word] for word in ("passed", "failed", "skipped")},
    )
    rows = []
    for family in families.FAMILIES:
        names = [name for name, one in lifted.items() if one.family == family]
        mine = Counter(one.outcome for one in verdicts if one.operator in names)
        rows.append(
            f"| {family} | {', '.join(names)} | {mine['passed']} | {mine['skipped']} "
            f"| {mine['failed']} |"
        )
    text += "\n| family | operators | passed | skipped | failed |\n|---|---|--:|--:|--:|\n"
    text += "\n".join(rows) + "\n\n## Skipped\n\n| reason | operators | cases |\n|---|---|--:|\n"
    skipped = [one for one in verdicts if one.outcome == "skipped"]
    for reason, count in Counter(one.reason for one in skipped).most_common():
        names = sorted({one.operator for one in skipped if one.reason == reason})
        text += f"| {reason} | {', '.join(names)} | {count} |\n"
    seen = {one.operator for one in verdicts if one.outcome == "passed"}
    rest = sorted(set(lifted) - seen)
    text += f"\nLifted, and not among ONNX's cases: {', '.join(rest)}.\n"
    without = sorted(default_operators() - set(lifted))
    return text + f"\nIn the default domain and not lifted: {', '.join(without)}.\n"


def default_operators() -> set[str]:
    """Returns the operators of ONNX's default domain, those long deprecated left out."""
    return {
        one.name for one in onnx.defs.get_all_schemas() if one.domain == "" and not one.deprecated
    }


def main() -> None:
    """Writes the page and prints the count."""
    about = subjects()
    verdicts = [judge(case, about[case.name]) for case in cases()]
    for one in verdicts:
        if one.outcome == "failed":
            print(f"failed: {one.name}: {one.reason}")
    PAGE.write_text(page(verdicts), encoding="utf-8")
    print(", ".join(f"{n} {word}" for word, n in Counter(v.outcome for v in verdicts).items()))


if __name__ == "__main__":
    main()
