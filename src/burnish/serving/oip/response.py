# SPDX-License-Identifier: Apache-2.0
"""An inference response: made for a request, written as buffers, and read by clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy.typing as npt

from burnish.serving.oip.binary import write_binary
from burnish.serving.oip.classification import classify
from burnish.serving.oip.datatypes import datatype_of
from burnish.serving.oip.faults import Fault, shown
from burnish.serving.oip.framing import (
    NO_PARAMETERS,
    Buffer,
    Encoded,
    Limits,
    Parameter,
    as_json,
    join,
    parameters,
    parse,
    split,
    text,
)
from burnish.serving.oip.request import InferRequest
from burnish.serving.oip.tensors import (
    SIZE,
    Tensor,
    declared_tensors,
    read_tensors,
    write_tensors,
)

_KNOWN_DOCUMENTS = 256
"""Documents before binary outputs that are kept written."""


class InferResponse(NamedTuple):
    """What a model answered; `model_version` is None where there are no versions."""

    model_name: str
    outputs: tuple[Tensor, ...]
    model_version: str | None = None
    id: str | None = None
    parameters: Mapping[str, Parameter] = NO_PARAMETERS


def respond(
    request: InferRequest,
    arrays: Mapping[str, npt.NDArray[Any]],
    model_name: str,
    model_version: str | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> InferResponse:
    """Returns the response to `request`, with what it asked for of the model's outputs.

    arrays: the outputs by name, in the model's order; labels: class names by output.
    """
    outputs = []
    for wanted in request.wanted(tuple(arrays)):
        array = arrays[wanted.name]
        if wanted.classification is not None:
            names = (labels or {}).get(wanted.name, ())
            array = classify(array, wanted.classification, names, f"output {shown(wanted.name)}")
        outputs.append(Tensor(wanted.name, array, wanted.binary))
    return InferResponse(model_name, tuple(outputs), model_version, request.id)


def encode_response(response: InferResponse) -> Encoded:
    """Returns the body as buffers, views of the arrays where they can be, and the headers.

    >>> import numpy as np
    >>> encoded = encode_response(InferResponse("m", (Tensor("y", np.array([1.5])),), id="42"))
    >>> encoded.buffers[0].decode()[:40]
    '{"model_name":"m","id":"42","outputs":[{'
    """
    if _all_binary(response):
        return _binary(response)
    outputs, sections = write_tensors(response.outputs, "output")
    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        document["model_version"] = response.model_version
    if response.id is not None:
        document["id"] = response.id
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    return join(document | {"outputs": outputs}, sections)


def _all_binary(response: InferResponse) -> bool:
    """Whether the document says nothing but what the outputs are, and which request's."""
    if response.parameters or not response.outputs:
        return False
    return all(one.binary and not one.parameters for one in response.outputs)


def _binary(response: InferResponse) -> Encoded:
    """Returns the same as `write_tensors` and `join` give, from a document that is kept."""
    listed, sections = [], []
    for name, array, _, _ in response.outputs:
        where = f"output {name!r}"
        datatype = datatype_of(array.dtype, where)
        section = write_binary(array, datatype, where)
        listed.append((name, datatype, array.shape, len(section)))
        if len(section):
            sections.append(section)
    before, behind = _document(response.model_name, response.model_version, tuple(listed))
    if response.id is not None:
        before += b'"id":' + as_json(response.id) + b","
    header = before + behind
    return Encoded((header, *sections), len(header))


@lru_cache(_KNOWN_DOCUMENTS)
def _document(
    model_name: str,
    model_version: str | None,
    outputs: tuple[tuple[str, str, tuple[int, ...], int], ...],
) -> tuple[bytes, bytes]:
    """Returns the JSON of binary outputs, in two parts: the request's id stands between."""
    document = {"model_name": model_name}
    if model_version is not None:
        document["model_version"] = model_version
    listed = [
        {"name": name, "shape": list(shape), "datatype": datatype, "parameters": {SIZE: size}}
        for name, datatype, shape, size in outputs
    ]
    before, behind = join(document, None).buffers[0], join({"outputs": listed}, None).buffers[0]
    return bytes(before[:-1]) + b",", bytes(behind[1:])


_NO_LIMITS_GIVEN = Limits()


def decode_response(
    body: Buffer,
    header_length: str | bytes | int | None = None,
    limits: Limits = _NO_LIMITS_GIVEN,
) -> InferResponse:
    """Returns the response in the body of a 200 answer; binary tensors are views of it."""
    raw, sections = split(body, header_length, limits)
    document = parse(raw)
    if "outputs" not in document:
        raise Fault("the response has no outputs: expected an array of tensors")
    version, identifier = document.get("model_version"), document.get("id")
    return InferResponse(
        # The examples of the protocol leave the model's name out.
        model_name=text(document.get("model_name", ""), "model_name"),
        outputs=read_tensors(declared_tensors(document["outputs"], "output", limits), sections),
        model_version=None if version is None else text(version, "model_version"),
        id=None if identifier is None else text(identifier, "id"),
        parameters=parameters(document.get("parameters"), "the response"),
    )


def decode_error(body: Buffer, status: int) -> Fault:
    """Returns the fault that the body of any other answer tells of."""
    return Fault(text(parse(body).get("error"), "error"), status)
