# SPDX-License-Identifier: Apache-2.0
"""An inference request: read from the body of a POST, or written for one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from burnish.serving.oip.faults import Fault, shown
from burnish.serving.oip.framing import (
    NO_PARAMETERS,
    Buffer,
    Encoded,
    Limits,
    Parameter,
    entries,
    flag,
    join,
    parameters,
    parse,
    split,
    text,
)
from burnish.serving.oip.tensors import (
    Declared,
    Tensor,
    declared_tensors,
    read_tensors,
    refuse_shared_memory,
    write_tensors,
)

_ALL_BINARY = "binary_data_output"
_BINARY = "binary_data"
_CLASSIFICATION = "classification"

_KNOWN_HEADS, _KNOWN_BYTES = 256, 1024
"""JSON documents that are kept read, and the length of the largest."""


class RequestedOutput(NamedTuple):
    """An output that is asked for: as binary or JSON, as it is or as its top classes.

    parameters: those given with this output, the ones above among them.
    """

    name: str
    binary: bool = False
    classification: int | None = None
    parameters: Mapping[str, Parameter] = NO_PARAMETERS


@lru_cache(_KNOWN_HEADS)
def _all_of(names: tuple[str, ...], binary: bool) -> tuple[RequestedOutput, ...]:
    return tuple(RequestedOutput(name, binary) for name in names)


class InferRequest(NamedTuple):
    """What is asked of a model; empty `outputs` mean all, in the form of `binary_outputs`."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str | None = None
    binary_outputs: bool = False
    parameters: Mapping[str, Parameter] = NO_PARAMETERS

    def wanted(self, names: tuple[str, ...]) -> tuple[RequestedOutput, ...]:
        """Returns what to answer with, of the outputs that the model has.

        Raises `Fault` for an output that it has not.
        """
        if not self.outputs:
            return _all_of(names, self.binary_outputs)
        for output in self.outputs:
            if output.name not in names:
                raise Fault(
                    f"output {shown(output.name)} is unknown: the model has {', '.join(names)}"
                )
        return self.outputs


class _Head(NamedTuple):
    """What the JSON document of a request says."""

    inputs: tuple[Declared, ...]
    outputs: tuple[RequestedOutput, ...]
    id: str | None
    binary_outputs: bool
    parameters: Mapping[str, Parameter]


_NO_LIMITS_GIVEN = Limits()


def decode_request(
    body: Buffer,
    header_length: str | bytes | int | None = None,
    limits: Limits = _NO_LIMITS_GIVEN,
    behind: memoryview | None = None,
) -> InferRequest:
    """Returns the request in a body; binary tensors are views of it, so it must not change.

    header_length: the value of the header Inference-Header-Content-Length, None without it.
    behind: what comes behind the JSON document, where `body` has only that.
    Raises `Fault` (400, or 413 beyond `limits`) for whatever is wrong, and nothing else.

    >>> request = decode_request(
    ...     b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}]}'
    ... )
    >>> request.inputs[0].array
    array([1. , 2.5], dtype=float32)
    """
    document, sections = split(body, header_length, limits, behind)
    if header_length is not None and len(document) <= _KNOWN_BYTES:
        head = _known_head(bytes(document), limits)
    else:
        head = _head(document, limits)
    return InferRequest(
        read_tensors(head.inputs, sections),
        head.outputs,
        head.id,
        head.binary_outputs,
        head.parameters,
    )


def encode_request(request: InferRequest) -> Encoded:
    """Returns the body and headers of a request; `decode_request` is its inverse."""
    inputs, sections = write_tensors(request.inputs, "input")
    document: dict[str, Any] = {} if request.id is None else {"id": request.id}
    own = dict(request.parameters)
    if request.binary_outputs:
        own[_ALL_BINARY] = True
    if own:
        document["parameters"] = own
    document["inputs"] = inputs
    if request.outputs:
        document["outputs"] = [_listed(output) for output in request.outputs]
    return join(document, sections)


def _head(raw: Buffer, limits: Limits) -> _Head:
    document = parse(raw)
    own = parameters(document.get("parameters"), "the request")
    binary_outputs = flag(own, _ALL_BINARY, False, "the request")
    listed = document.get("outputs")
    outputs = entries(listed, "output", limits) if listed is not None else []
    identifier = document.get("id")
    if "inputs" not in document:
        raise Fault("the request has no inputs: expected an array of tensors")
    return _Head(
        declared_tensors(document["inputs"], "input", limits),
        tuple(_output(entry, binary_outputs) for entry in outputs),
        None if identifier is None else text(identifier, "id"),
        binary_outputs,
        own,
    )


# A client that sends its tensors as bytes says the same before each of them.
_known_head = lru_cache(_KNOWN_HEADS)(_head)


def _output(entry: dict[str, Any], binary: bool) -> RequestedOutput:
    where = f"output {shown(entry['name'])}"
    own = parameters(entry.get("parameters"), where)
    refuse_shared_memory(own, where)
    count = own.get(_CLASSIFICATION)
    if count is not None and (type(count) is not int or count < 1):
        raise Fault(
            f"{where}: expected a classification that is a whole number of 1 or more, "
            f"got {shown(count)}"
        )
    return RequestedOutput(entry["name"], flag(own, _BINARY, binary, where), count, own)


def _listed(output: RequestedOutput) -> dict[str, Any]:
    own = dict(output.parameters) | {_BINARY: output.binary}
    if output.classification is not None:
        own[_CLASSIFICATION] = output.classification
    return {"name": output.name, "parameters": own}
