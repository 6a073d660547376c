# SPDX-License-Identifier: Apache-2.0
"""Damaged and malicious files: a clear Misuse or Unsupported, or a sound Model; nothing else."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from small_models import convolutional

from burnish.core.errors import BurnishError, Misuse, Unsupported
from burnish.core.model import Model
from burnish.graph.importers.onnx import import_onnx

OURS = convolutional().to_bytes()


def foreign() -> bytes:
    """Returns a file of another tool, which takes the long way in: old opset, constants, If."""
    proto = parser.parse_model("""
        <ir_version: 7, opset_import: ["": 13]>
        agraph (float[n, 4] x, bool c) => (float[n, 3] y)
        <float[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}> {
            h = MatMul(x, w)
            two = Constant<value = float {2.0}>()
            z = Mul(h, two)
            y = If(c) <then_branch = t () => (float[n, 3] p) { p = Add(z, b) },
                       else_branch = e () => (float[n, 3] q) { q = Relu(z) }>
        }""")
    return proto.SerializeToString()


def survives(content: bytes) -> None:
    """Imports; what is accepted must also give its digest and bytes."""
    try:
        model = import_onnx(content)
    except (Misuse, Unsupported):
        return
    assert len(model.digest) == 64
    assert model.to_bytes()


@pytest.mark.parametrize("content", [OURS, foreign()], ids=["ours", "foreign"])
def test_truncated_at_a_hundred_places(content: bytes) -> None:
    for end in np.linspace(0, len(content) - 1, 100, dtype=int):
        survives(content[:end])
    # Nearly all of the file is one graph: any cut inside it must be noticed.
    for end in np.linspace(1, len(content) // 2, 30, dtype=int):
        with pytest.raises(BurnishError):
            import_onnx(content[:end])


@pytest.mark.parametrize("content", [OURS, foreign()], ids=["ours", "foreign"])
def test_flipped_bytes_at_two_hundred_places(content: bytes) -> None:
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 200):
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        survives(bytes(damaged))


def test_flipped_bytes_where_structure_is() -> None:
    """A file almost without weights, so that each flip hits structure."""
    content = foreign()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        survives(bytes(damaged))


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_random_bytes(content: bytes) -> None:
    survives(content)


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_random_bytes_inside_a_model(content: bytes, place: int) -> None:
    base = foreign()
    survives(base[:place] + content + base[place + len(content) :])


def test_other_files_are_named(tmp_path: Path) -> None:
    zipped = tmp_path / "net.pt"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("data.pkl", b"x")
    for content, word in (
        (zipped.read_bytes(), "zip"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"", "empty"),
        (b"hello, this is plain text\n" * 9, "ONNX"),
        (os.urandom(0) + b"\x08" * 40, "ONNX"),
    ):
        path = tmp_path / "file.onnx"
        path.write_bytes(content)
        with pytest.raises(Misuse, match=word):
            import_onnx(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="does not exist"):
        import_onnx(tmp_path / "absent.onnx")
    with pytest.raises(Misuse, match="is a folder"):
        import_onnx(tmp_path)
    with pytest.raises(Misuse, match="got dict"):
        import_onnx({})  # type: ignore[arg-type]
    with pytest.raises(Misuse):
        import_onnx("a\0b")


def linear(weight: TensorProto, **inputs: object) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g", [x], [y], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def good_weight() -> TensorProto:
    return numpy_helper.from_array(np.ones((4, 3), np.float32), "w")


@pytest.mark.parametrize(
    "dims", [[4, 4], [-4, 3], [2**40, 2**20], [2**62, 2**62], [4], [0, 3]], ids=str
)
def test_dims_that_do_not_fit_the_bytes(dims: list[int]) -> None:
    weight = good_weight()
    weight.dims[:] = dims
    with pytest.raises(Misuse, match="initializer 'w'"):
        import_onnx(linear(weight).SerializeToString())


def external(folder: Path, location: str, size: int = 48, **entries: str) -> Path:
    weight = TensorProto(name="w", dims=[4, 3], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "net.onnx"
    path.write_bytes(linear(weight).SerializeToString())
    (folder / "w.bin").write_bytes(np.ones(12, np.float32).tobytes()[:size])
    return path


def test_external_data(tmp_path: Path) -> None:
    model = import_onnx(external(tmp_path, "w.bin"))
    assert model.digest == import_onnx(linear(good_weight()).SerializeToString()).digest
    assert import_onnx(model.to_bytes()).digest == model.digest


@pytest.mark.parametrize(
    ("location", "size", "entries", "word"),
    [
        ("absent.bin", 48, {}, "missing"),
        ("w.bin", 47, {}, "has 47"),
        ("w.bin", 48, {"offset": "1"}, "has 48"),
        ("w.bin", 48, {"offset": "-48"}, "no number"),
        ("w.bin", 48, {"length": "40"}, "claims 40"),
        ("w.bin", 48, {"offset": str(2**70)}, "has 48"),
        ("../secret.bin", 48, {}, "outside"),
        ("sub/../../secret.bin", 48, {}, "outside"),
        ("/etc/hostname", 48, {}, "outside"),
        ("link.bin", 48, {}, "outside"),
        ("", 48, {}, "name ''"),
        (".", 48, {}, "missing"),
    ],
)
def test_external_data_faults(
    tmp_path: Path, location: str, size: int, entries: dict[str, str], word: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(Misuse, match=word):
        import_onnx(external(folder, location, size, **entries))


def test_external_data_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="by its path"):
        import_onnx(external(tmp_path, "w.bin").read_bytes())


def test_custom_operator_is_named() -> None:
    proto = linear(good_weight())
    proto.graph.node[0].domain = "acme"
    proto.opset_import.add(domain="acme", version=1)
    with pytest.raises(Unsupported, match=r"'product' \(acme::MatMul\).*'acme'"):
        import_onnx(proto.SerializeToString())


def test_unknown_operator_is_named() -> None:
    proto = linear(good_weight())
    proto.graph.node[0].op_type = "MutMal"
    with pytest.raises(Unsupported, match="MutMal"):
        import_onnx(proto.SerializeToString())


def test_contrib_operators_are_let_through() -> None:
    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
        agraph (float[n, 4] x) => (float[n, 4] y) { y = com.microsoft.Gelu(x) }""")
    assert import_onnx(proto.SerializeToString()).signature.outputs[0].name == "y"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("(seq(float[3]) x) => (float[3] y) { i = Constant<value_int=0>() y = SequenceAt(x, i) }",
         "input 'x' is a sequence"),
        ("(optional(float[3]) x) => (float[3] y) { y = OptionalGetElement(x) }",
         "input 'x' is a optional"),
        ("(string[3] x) => (string[3] y) { y = Identity(x) }", "'x' has element type STRING"),
        ("(bfloat16[3] x) => (bfloat16[3] y) { y = Identity(x) }", "BFLOAT16"),
    ],
)  # fmt: skip
def test_unsupported_inputs_are_named(text: str, word: str) -> None:
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> agraph {text}')
    with pytest.raises(Unsupported, match=word):
        import_onnx(proto.SerializeToString())


@pytest.mark.parametrize(
    ("nodes", "word"),
    [
        ("y = Relu(a)  a = Relu(b)  b = Relu(a)", "cycle"),
        ("y = Relu(x)  y = Neg(x)", "two sources"),
        ("x = Relu(x)  y = Neg(x)", "two sources"),
        ("y = Relu(ghost)", "'ghost', which nothing produces"),
        ("z = Relu(x)", "output 'y' is produced by no node"),
        ("y = Relu(x, x)", "not a sound"),
    ],
)
def test_broken_graphs(nodes: str, word: str) -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> agraph (float[3] x) => (float[3] y) '
        f"{{ {nodes} }}"
    )
    with pytest.raises(Misuse, match=word):
        import_onnx(proto.SerializeToString())


def test_faults_are_gathered() -> None:
    proto = linear(good_weight())
    proto.graph.initializer[0].dims[0] = 9
    proto.graph.node[0].input[0] = "ghost"
    with pytest.raises(Misuse, match=r"'w'.*'ghost'"):
        import_onnx(proto.SerializeToString())


def test_negative_dimension_of_an_input() -> None:
    proto = linear(good_weight())
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    with pytest.raises(Misuse, match="dimension -1"):
        import_onnx(proto.SerializeToString())


def test_nesting_without_end() -> None:
    def inside(tag: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length += bytes([size % 128 + 128])
            size //= 128
        return bytes([tag]) + length + bytes([size]) + content

    graph = onnx.GraphProto(name="leaf").SerializeToString()
    for _ in range(3000):
        attribute = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH)
        nested = attribute.SerializeToString() + inside(0x32, graph)
        graph = inside(
            0x0A, onnx.NodeProto(op_type="If").SerializeToString() + inside(0x2A, nested)
        )
    with pytest.raises(Misuse, match="nested too deep"):
        import_onnx(onnx.ModelProto(ir_version=10).SerializeToString() + inside(0x3A, graph))


def test_functions_that_grow_without_end_or_call_themselves() -> None:
    def function(name: str, calls: str) -> onnx.FunctionProto:
        nodes = [
            helper.make_node(calls, ["x"], ["t"], domain="f"),
            helper.make_node(calls, ["t"], ["y"], domain="f"),
        ]
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
        return helper.make_function("f", name, ["x"], ["y"], nodes, opsets)

    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21, "f": 1]>
        agraph (float[3] x) => (float[3] y) { y = f.d0(x) }""")
    proto.functions.extend(function(f"d{i}", f"d{i + 1}") for i in range(40))
    leaf = helper.make_function(
        "f", "d40", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    with pytest.raises(Misuse, match="1000000 nodes"):
        import_onnx(
            onnx.ModelProto.FromString(
                proto.SerializeToString() + onnx.ModelProto(functions=[leaf]).SerializeToString()
            ).SerializeToString()
        )
    proto.functions[-1].CopyFrom(function("d39", "d0"))
    with pytest.raises(Misuse, match="calls itself"):
        import_onnx(proto.SerializeToString())


def test_damaged_lineage() -> None:
    proto = linear(good_weight())
    proto.metadata_props.add(key="burnish.lineage", value="{")
    with pytest.raises(Misuse, match="lineage"):
        import_onnx(proto.SerializeToString())


def test_model_load_goes_through_the_importer() -> None:
    assert Model.load(OURS).digest == import_onnx(OURS).digest
