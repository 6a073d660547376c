# SPDX-License-Identifier: Apache-2.0
"""A request that a model answers, made from its signature, and the command line that sends it.

Tensors are zeros, in the sizes that the model was warmed up with: what is known to run.
"""

from __future__ import annotations

import json
import math
import shlex
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.core.model import TensorSpec
from burnish.serving.oip.datatypes import BYTES, datatype_of, element_bytes
from burnish.serving.oip.framing import HEADER
from burnish.serving.served_model import ServedModel

BASE = "http://localhost:8000"
"""Where the command lines send to; the pages put their own address in its place."""

CURL = "curl -sS"
"""How the command lines begin to ask; the pages put the token behind it."""

_JSON = "-H 'Content-Type: application/json'"
_MOST_IN_JSON = 64


@dataclass(frozen=True)
class Sample:
    """One request for a model. `document` is None where its tensors are too many for JSON."""

    document: dict[str, Any] | None
    command: str


def infer_sample(served: ServedModel) -> Sample:
    """Returns a request for the protocol's infer route."""
    tensors = [_tensor(spec, served) for spec in served.signature.inputs]
    url = shlex.quote(f"{BASE}/v2/models/{urllib.parse.quote(served.name, safe='')}/infer")
    sizes = [math.prod(one["shape"]) for one in tensors]
    if sum(sizes) <= _MOST_IN_JSON:
        document = {
            "inputs": [
                {**one, "data": [_zero(one["datatype"])] * size}
                for one, size in zip(tensors, sizes, strict=True)
            ]
        }
        body = shlex.quote(json.dumps(document))
        return Sample(document, f"{CURL} {url} {_JSON} -d {body}")
    bytes_ = [
        size * element_bytes(one["datatype"]) for one, size in zip(tensors, sizes, strict=True)
    ]
    header = json.dumps(
        {
            "inputs": [
                {**one, "parameters": {"binary_data_size": size}}
                for one, size in zip(tensors, bytes_, strict=True)
            ]
        }
    )
    zeros = f"head -c {sum(bytes_)} /dev/zero"
    return Sample(
        None,
        f"(printf %s {shlex.quote(header)}; {zeros}) | {CURL} {url} "
        f"-H '{HEADER}: {len(header)}' --data-binary @-",
    )


def predict_samples(served: ServedModel) -> list[tuple[str, str, Any]]:
    """Returns (content type, command line, example) for the plain route of a bundle.

    The example is None where the body is a file of the client's own. Empty for what is no
    bundle, or takes several inputs in a way that is not known.
    """
    bundle = getattr(served.session, "bundle", None)
    if bundle is None:
        return []
    url = shlex.quote(f"{BASE}/v1/models/{urllib.parse.quote(served.name, safe='')}/predict")
    preprocessing = bundle.manifest.get("preprocessing") or {}
    done = {one.get("input"): one for one in preprocessing.get("inputs", ())}
    kinds = {name: one.get("kind") for name, one in done.items()}
    specs = served.signature.inputs
    found: list[tuple[str, str, Any]] = []
    if len(specs) == 1 and kinds.get(specs[0].name) == "image":
        command = f"{CURL} {url} -H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
        return [("image/jpeg", command, None)]
    by_input = {}
    for spec in specs:
        one = done.get(spec.name, {})
        sizes = _sizes(spec, served)[1 if served.rows.batched else 0 :]
        if not _takes_json(spec, one) or math.prod(sizes) > _MOST_IN_JSON:
            return found
        sizes = _before(sizes, one.get("transpose") or ())
        by_input[spec.name] = _nested(_zero(datatype_of(spec.dtype)), sizes)
    (first, *others) = by_input.values()
    if not others and isinstance(first, list) and first and not isinstance(first[0], list | str):
        text = ",".join(str(one) for one in first)
        command = f"{CURL} {url} -H 'Content-Type: text/csv' --data-binary {shlex.quote(text)}"
        found.append(("text/csv", command, text))
    document = {"samples": [by_input if others else first]}
    command = f"{CURL} {url} {_JSON} -d {shlex.quote(json.dumps(document))}"
    return [*found, ("application/json", command, document)]


def _takes_json(spec: TensorSpec, preprocessing: Mapping[str, Any]) -> bool:
    """Says whether lists of numbers become this input: not where bytes are wanted, or the
    preprocessing keeps an array's type, and JSON's is another than the model's.
    """
    kind = preprocessing.get("kind")
    kept = kind == "array" and not preprocessing.get("dtype")
    return kind != "image" and not (kept and spec.dtype not in ("float64", "int64", "bool"))


def _before(sizes: list[int], transpose: Sequence[int]) -> list[int]:
    """Returns the shape that a transposition makes `sizes` of.

    >>> _before([3, 8, 9], (2, 0, 1))
    [8, 9, 3]
    """
    if len(transpose) != len(sizes):
        return sizes
    by_axis = dict(zip(transpose, sizes, strict=True))
    return [by_axis[axis] for axis in range(len(sizes))]


def _tensor(spec: TensorSpec, served: ServedModel) -> dict[str, Any]:
    return {
        "name": spec.name,
        "shape": _sizes(spec, served),
        "datatype": datatype_of(spec.dtype, f"tensor {spec.name!r}"),
    }


def _sizes(spec: TensorSpec, served: ServedModel) -> list[int]:
    """Returns a shape as the warm-up had it: one row, free axes at their largest padding or 1."""
    declared = served.batching.padding.sizes
    sizes = []
    for place, size in enumerate(spec.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif place == 0 and served.rows.batched:
            sizes.append(1)
        else:
            sizes.append(declared.get(size or f"{spec.name}.{place}", (1,))[-1])
    return sizes


def _zero(datatype: str) -> Any:
    if datatype == BYTES:
        return ""
    if datatype == "BOOL":
        return False
    return 0.0 if datatype.startswith(("FP", "BF")) else 0


def _nested(value: Any, sizes: Iterable[int]) -> Any:
    """Returns nested lists of a shape that hold one value.

    >>> _nested(0, [2, 3])
    [[0, 0, 0], [0, 0, 0]]
    """
    for size in reversed(list(sizes)):
        value = [value] * size
    return value
