# SPDX-License-Identifier: Apache-2.0
"""The messages: against the public protocol's own, as `tritonclient` has it, and by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as client
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_running import ELEMENTS, example
from oip_messages import same
from tritonclient.grpc import service_pb2 as public

from burnish.serving.grpc_service import generate, oip_pb2
from burnish.serving.grpc_service.messages import parse, read_request, write_response
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.response import InferResponse
from burnish.serving.oip.tensors import Tensor

TYPED = {
    "BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64",
    "UINT8": "uint", "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64",
    "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes",
}  # fmt: skip
"""Source: Open Inference Protocol, message InferTensorContents."""


def request(**fields: Any) -> Any:
    """Returns a request of the public protocol, as our side reads it."""
    body = public.ModelInferRequest(**fields).SerializeToString()
    return read_request(parse(oip_pb2.ModelInferRequest, body))


def one_input(datatype: str, shape: list[int], **fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape} | fields


def refused(**fields: Any) -> str:
    with pytest.raises(Fault) as caught:
        request(**fields)
    assert caught.value.status == 400
    return str(caught.value)


def test_the_generated_file_fits_the_definition() -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    compiled, _ = generate.compiled()
    own = FileDescriptorProto()
    oip_pb2.DESCRIPTOR.CopyToProto(own)
    assert own == FileDescriptorProto.FromString(compiled)


def test_names_numbers_and_types_are_the_public_ones() -> None:
    """Each message, field and value that we have is in the public definition, just so."""
    config = client.model_config_pb2.DESCRIPTOR
    known = {**public.DESCRIPTOR.message_types_by_name, **config.message_types_by_name}
    for name, message in oip_pb2.DESCRIPTOR.message_types_by_name.items():
        compare_messages(message, known[name])
    for name, values in oip_pb2.DESCRIPTOR.enum_types_by_name.items():
        assert numbers(values) == numbers(config.enum_types_by_name[name])
    (service,) = oip_pb2.DESCRIPTOR.services_by_name.values()
    theirs = public.DESCRIPTOR.services_by_name[service.name]
    assert service.full_name == theirs.full_name
    for method in service.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name


def compare_messages(own: Any, theirs: Any) -> None:
    for field in own.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (
            other.number, other.type, other.is_repeated,
        ), field.full_name  # fmt: skip
        for kind in ("message_type", "enum_type", "containing_oneof"):
            mine, its = getattr(field, kind), getattr(other, kind)
            assert (mine and mine.full_name) == (its and its.full_name)
    for nested in own.nested_types:
        compare_messages(nested, theirs.nested_types_by_name[nested.name])
    for values in own.enum_types:
        assert numbers(values) == numbers(theirs.enum_types_by_name[values.name])


def numbers(values: Any) -> dict[str, int]:
    return {value.name: value.number for value in values.values}


@pytest.mark.parametrize("turn", [1, -1])
def test_lives_beside_another_copy_of_the_protocol(turn: int) -> None:
    """Whichever is loaded first."""
    lines = [
        "from tritonclient.grpc import service_pb2 as public",
        "from burnish.serving.grpc_service import oip_pb2 as own",
    ][::turn]
    lines += [
        "body = public.ModelReadyRequest(name='m').SerializeToString()",
        "assert own.ModelReadyRequest.FromString(body).name == 'm'",
        "assert own.ModelReadyRequest is not public.ModelReadyRequest",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120)


@pytest.mark.parametrize("datatype", [*ELEMENTS, "BF16"])
def test_raw_contents(datatype: str) -> None:
    sent = example(datatype)
    if datatype == "BF16":
        raw = sent.tobytes()
        message = public.ModelInferRequest(
            inputs=[one_input(datatype, [2, 3])], raw_input_contents=[raw]
        )
    else:
        made = client.InferInput("x", [2, 3], datatype).set_data_from_numpy(sent)
        message = public.ModelInferRequest(
            inputs=[made._get_tensor()], raw_input_contents=[made._get_content()]
        )
    own = read_request(parse(oip_pb2.ModelInferRequest, message.SerializeToString()))
    array = own.inputs[0].array
    assert same(array, sent)
    if datatype != "BYTES":
        assert array.base is not None  # a view
        assert array.flags.aligned


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents(datatype: str) -> None:
    sent = example(datatype)
    contents = {f"{TYPED[datatype]}_contents": sent.ravel().tolist()}
    own = request(inputs=[one_input(datatype, [2, 3], contents=contents)])
    assert same(own.inputs[0].array, sent)


@pytest.mark.parametrize("datatype", TYPED)
def test_no_elements(datatype: str) -> None:
    own = request(inputs=[one_input(datatype, [0, 3])])
    assert own.inputs[0].array.shape == (0, 3)


def test_what_is_refused() -> None:
    two = {"fp32_contents": [1.0, 2.0]}
    assert "got fp32_contents" in refused(inputs=[one_input("INT32", [2], contents=two)])
    assert "expected 3 elements" in refused(inputs=[one_input("FP32", [3], contents=two)])
    assert "no typed contents" in refused(inputs=[one_input("FP16", [2], contents=two)])
    assert "no typed contents" in refused(inputs=[one_input("BF16", [2])])
    assert "unknown datatype" in refused(inputs=[one_input("FP8", [2], contents=two)])
    assert "0 or more" in refused(inputs=[one_input("FP32", [-2], contents=two)])
    wide = {"int_contents": [1, 300]}
    assert "-128 to 127" in refused(inputs=[one_input("INT8", [2], contents=wide)])
    assert "0 to 255" in refused(
        inputs=[one_input("UINT8", [1], contents={"uint_contents": [256]})]
    )
    assert "got both" in refused(
        inputs=[one_input("FP32", [2], contents=two)], raw_input_contents=[b"12345678"]
    )
    assert "got 2 for 1 inputs" in refused(
        inputs=[one_input("FP32", [1])], raw_input_contents=[b"1234", b"1234"]
    )
    assert "expected 8 bytes" in refused(
        inputs=[one_input("FP32", [2])], raw_input_contents=[b"1234"]
    )
    assert "more elements than memory" in refused(inputs=[one_input("FP32", [2**62, 2**62])])
    assert "given twice" in refused(inputs=[one_input("FP32", [0])] * 2)
    assert "expected a name" in refused(outputs=[{"name": ""}])
    shared = {"shared_memory_region": {"string_param": "r"}}
    assert "shared memory" in refused(inputs=[one_input("FP32", [0], parameters=shared)])
    none = {"classification": {"int64_param": 0}}
    assert "classification" in refused(outputs=[{"name": "y", "parameters": none}])
    with pytest.raises(Fault, match="ModelInferRequest"):
        parse(oip_pb2.ModelInferRequest, b"\xff\xff")


def test_too_many_tensors() -> None:
    with pytest.raises(Fault) as caught:
        request(outputs=[{"name": str(i)} for i in range(1025)])
    assert caught.value.status == 413


def test_parameters_of_every_type() -> None:
    given = {
        "a": {"bool_param": False}, "b": {"int64_param": -1}, "c": {"string_param": ""},
        "d": {"double_param": 0.5}, "e": {"uint64_param": 2**64 - 1}, "f": {},
    }  # fmt: skip
    own = request(parameters=given, id="7")
    assert own.parameters == {"a": False, "b": -1, "c": "", "d": 0.5, "e": 2**64 - 1}
    assert (own.id, own.binary_outputs) == ("7", True)


@pytest.mark.parametrize("datatype", [*ELEMENTS, "BF16"])
@pytest.mark.parametrize("raw", [True, False])
def test_answers(datatype: str, raw: bool) -> None:
    """The public client reads raw contents; typed ones it cannot read beside numpy 2."""
    sent = example(datatype)
    response = InferResponse("m", (Tensor("y", sent), Tensor("z", np.zeros(70_000))), "2", "7")
    if not raw and datatype not in TYPED:
        with pytest.raises(Fault, match="no typed contents"):
            write_response(response, raw)
        return
    message = public.ModelInferResponse.FromString(write_response(response, raw))
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "7")
    assert len(message.raw_output_contents) == (2 if raw else 0)
    assert list(message.outputs[0].shape) == [2, 3]
    if not raw:
        values = list(getattr(message.outputs[0].contents, f"{TYPED[datatype]}_contents"))
        assert same(np.array(values, sent.dtype).reshape(2, 3), sent)
        return
    result = client.InferResult(message)
    assert same(result.as_numpy("z"), np.zeros(70_000))
    got = result.as_numpy("y")
    if datatype == "BF16":  # the client reads it as FP32
        assert got.astype(sent.dtype).tobytes() == sent.tobytes()
    else:
        assert same(got, sent)


def test_empty_tensors_and_strings() -> None:
    tensors = (Tensor("none", np.zeros((0, 2), np.int16)), Tensor("s", np.array(["é"], object)))
    typed = public.ModelInferResponse.FromString(write_response(InferResponse("m", tensors), False))
    assert list(typed.outputs[1].contents.bytes_contents) == ["é".encode()]
    raw = public.ModelInferResponse.FromString(write_response(InferResponse("m", tensors)))
    result = client.InferResult(raw)
    assert result.as_numpy("none").shape == (0, 2)
    assert result.as_numpy("s").tolist() == ["é".encode()]
