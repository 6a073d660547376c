# SPDX-License-Identifier: Apache-2.0
"""Whole messages: an inference request read, its answer written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from burnish.serving.grpc_service import oip_pb2 as oip
from burnish.serving.grpc_service.contents import read_contents, write_contents
from burnish.serving.oip.binary import read_binary, write_binary
from burnish.serving.oip.datatypes import checked_shape, dtype_of
from burnish.serving.oip.faults import TOO_LARGE, Fault, shown
from burnish.serving.oip.framing import Limits, Parameter, flag
from burnish.serving.oip.request import InferRequest, RequestedOutput
from burnish.serving.oip.response import InferResponse
from burnish.serving.oip.tensors import Tensor, refuse_shared_memory

Message = TypeVar("Message")

_CLASSIFICATION = "classification"
_RAW_OUTPUTS = "binary_data_output"
_MOST_TENSORS = Limits().tensors
_MOST_BYTES = 2**31 - 1  # protobuf's own
_RAW_TAG = bytes([oip.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2])


def parse(kind: type[Message], body: bytes) -> Message:
    """Returns the message in `body`, or raises `Fault`."""
    try:
        message: Message = kind.FromString(body)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise Fault(f"the body is no {kind.__name__} of the protocol") from error
    return message


def written(kind: type[Any], document: Mapping[str, Any]) -> bytes:
    """Returns a document, in protobuf's JSON form, as the bytes of a message."""
    body: bytes = ParseDict(document, kind()).SerializeToString()
    return body


def read_request(message: oip.ModelInferRequest) -> InferRequest:
    """Returns the request of a message; arrays of raw contents are views. Raises `Fault`."""
    own = _parameters(message.parameters)
    raw = list(message.raw_input_contents)  # out of the parser's memory, once
    for what, tensors in (("input", message.inputs), ("output", message.outputs)):
        _check_names(what, [tensor.name for tensor in tensors])
    if raw and len(raw) != len(message.inputs):
        raise Fault(
            f"expected one of raw_input_contents for each input, got {len(raw)} for "
            f"{len(message.inputs)} inputs"
        )
    pieces: Iterable[bytes | None] = raw or [None] * len(message.inputs)
    return InferRequest(
        inputs=tuple(_input(one, piece) for one, piece in zip(message.inputs, pieces, strict=True)),
        outputs=tuple(_output(one) for one in message.outputs),
        id=message.id or None,
        binary_outputs=flag(own, _RAW_OUTPUTS, True, "the request"),
        parameters=own,
    )


def write_response(response: InferResponse, raw: bool = True) -> bytes:
    """Returns the message ModelInferResponse, its tensors raw or typed; copied once.

    Raw contents are put behind the rest as they lie: a message's fields may stand in any
    order, and two messages one after the other are one.
    """
    message = oip.ModelInferResponse(
        model_name=response.model_name,
        model_version=response.model_version or "",
        id=response.id or "",
    )
    pieces: list[bytes | memoryview] = []
    for tensor in response.outputs:
        where, datatype = f"output {shown(tensor.name)}", tensor.datatype
        listed = message.outputs.add(name=tensor.name, datatype=datatype, shape=tensor.shape)
        if raw:
            section = write_binary(tensor.array, datatype, where)
            pieces += (_RAW_TAG + _varint(section.nbytes), section)
        else:
            listed.contents.CopyFrom(write_contents(tensor.array, datatype, where))
    head = message.SerializeToString()
    size = len(head) + sum(map(len, pieces))
    if size > _MOST_BYTES:
        raise Fault(f"the answer has {size} bytes, and a message holds {_MOST_BYTES}", TOO_LARGE)
    return b"".join((head, *pieces))


def _input(tensor: oip.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    where = f"input {shown(tensor.name)}"
    own = _parameters(tensor.parameters)
    refuse_shared_memory(own, where)
    dtype_of(tensor.datatype, where)
    shape = checked_shape(list(tensor.shape), tensor.datatype, where)
    if raw is None:
        array = read_contents(tensor.contents, tensor.datatype, shape, where)
    elif tensor.HasField("contents"):
        raise Fault(f"{where}: expected typed contents or raw_input_contents, got both")
    else:
        array = read_binary(memoryview(raw), tensor.datatype, shape, where)
    return Tensor(tensor.name, array, raw is not None, own)


def _output(tensor: oip.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    where = f"output {shown(tensor.name)}"
    own = _parameters(tensor.parameters)
    refuse_shared_memory(own, where)
    count = own.get(_CLASSIFICATION)
    if count is not None and (type(count) is not int or count < 1):
        raise Fault(
            f"{where}: expected a classification that is a whole number of 1 or more, "
            f"got {shown(count)}"
        )
    return RequestedOutput(tensor.name, True, count, own)


def _check_names(what: str, names: list[str]) -> None:
    if len(names) > _MOST_TENSORS:
        raise Fault(f"{what}s: expected at most {_MOST_TENSORS}, got {len(names)}", TOO_LARGE)
    for place, name in enumerate(names):
        if not name:
            raise Fault(f"{what} {place}: expected a name, got an empty string")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Fault(f"{what} {shown(twice)} is given twice")


def _parameters(given: Mapping[str, oip.InferParameter]) -> dict[str, Parameter]:
    """Returns the parameters by name; one without a value is left out."""
    chosen = {key: one.WhichOneof("parameter_choice") for key, one in given.items()}
    return {key: getattr(given[key], field) for key, field in chosen.items() if field is not None}


def _varint(value: int) -> bytes:
    """Returns a number as protobuf has it: 7 bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
