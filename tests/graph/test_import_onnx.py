# SPDX-License-Identifier: Apache-2.0
"""What the importer makes of sound files, held to what ONNX Runtime makes of the original.

(ONNX's reference evaluator gives some old operators, such as Softmax-11, their new meaning.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from small_models import convolutional

import burnish.core.model
from burnish.core.errors import Unsupported
from burnish.core.model import OPSET, Model
from burnish.graph.importers.onnx import import_onnx

RNG = np.random.default_rng(0)


def parse(opset: int, body: str, weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> agraph {body}')
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def assert_same(proto: onnx.ModelProto, model: Model, **inputs: np.ndarray) -> None:
    """The imported model gives what the original does."""
    onnx.checker.check_model(onnx.load_from_string(model.to_bytes()), full_check=True)
    assert model.edit().opset_imports[""] == OPSET
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    got, expected = (
        onnxruntime.InferenceSession(content, options).run(None, inputs)
        for content in (model.to_bytes(), proto.SerializeToString())
    )
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_opset_9_network_is_raised() -> None:
    """Upsample, axes as attributes, Softmax over flattened axes, Dropout and Clip of old."""
    weights = {
        "w": RNG.normal(size=(4, 3, 3, 3)),
        "scale": RNG.uniform(0.5, 2, 4),
        "shift": RNG.normal(size=4),
        "mean": RNG.normal(size=4),
        "var": RNG.uniform(0.5, 2, 4),
        "scales": np.array([1, 1, 2, 2]),
        "fc": RNG.normal(size=(4, 5)),
        "bias": RNG.normal(size=5),
    }
    proto = parse(9, """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
        c = Conv<pads=[1,1,1,1]>(x, w)
        b = BatchNormalization(c, scale, shift, mean, var)
        r = Clip<min=0.0, max=6.0>(b)
        u = Upsample<mode="nearest">(r, scales)
        d = Dropout<ratio=0.5>(u)
        m = ReduceMean<axes=[2], keepdims=1>(d)
        s = Squeeze<axes=[2]>(m)
        a = ReduceSum<axes=[2], keepdims=0>(s)
        g = Gemm<transB=0>(a, fc, bias)
        y = Softmax<axis=1>(g)
    }""", weights)  # fmt: skip
    model = import_onnx(proto.SerializeToString())
    assert "BatchNormalization" in [node.op_type for node in model.edit().graph]
    assert_same(proto, model, x=RNG.normal(size=(2, 3, 8, 8)).astype(np.float32))


def test_old_softmax_keeps_its_meaning_inside_a_branch() -> None:
    proto = parse(12, """(float[2, 3, 4] x, bool c) => (float[2, 3, 4] y) {
        y = If(c) <then_branch = t () => (float[2, 3, 4] a) { a = Softmax<axis=1>(x) },
                   else_branch = e () => (float[2, 3, 4] b) { b = Relu(x) }>
    }""")  # fmt: skip
    model = import_onnx(proto.SerializeToString())
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    for c in (True, False):
        assert_same(proto, model, x=x, c=np.array(c))


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 21, 22, 23, 24, 25])
def test_ordinary_network_of_any_opset(opset: int) -> None:
    proto = parse(opset, """(float[n, 2, 6, 6] x) => (float[n, 2] y) {
        c = Conv<pads=[1,1,1,1]>(x, w)
        r = Relu(c)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        g = GlobalAveragePool(p)
        t = Transpose<perm=[0,2,3,1]>(g)
        shape = Constant<value_ints=[-1, 2]>()
        f = Reshape(t, shape)
        z = Cast<to=1>(f)
        y = Elu(z)
    }""", {"w": RNG.normal(size=(2, 2, 3, 3))})  # fmt: skip
    model = import_onnx(proto.SerializeToString())
    assert_same(proto, model, x=RNG.normal(size=(3, 2, 6, 6)).astype(np.float32))


@pytest.mark.parametrize(
    ("opset", "node", "word"),
    [(24, "Swish(x)", "Swish"), (24, 'Cast<to=1, round_mode="up">(x)', "round_mode")],
)
def test_what_came_later_is_named(opset: int, node: str, word: str) -> None:
    proto = parse(opset, f"(float[3] x) => (float[3] y) {{ y = {node} }}")
    with pytest.raises(Unsupported, match=word):
        import_onnx(proto.SerializeToString())


def test_types_that_came_later_are_refused() -> None:
    """4-bit floats exist from opset 23: the same nodes are no model of 21."""
    proto = parse(23, "(float[3] x) => (float[3] y) { h = Cast<to=23>(x) y = Cast<to=1>(h) }")
    with pytest.raises(Unsupported, match="operator set 21 instead of 23"):
        import_onnx(proto.SerializeToString())


def test_unused_nodes_do_not_hinder() -> None:
    proto = parse(24, "(float[3] x) => (float[3] y) { y = Relu(x) z = Swish(y) }")
    model = import_onnx(proto.SerializeToString())
    assert [node.op_type for node in model.edit().graph] == ["Relu"]


def test_functions_are_inlined() -> None:
    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21, "own": 1]>
        agraph (float[n] x) => (float[n] y) { t = own.twice(x) y = own.twice(t) }
        <domain: "own", opset_import: ["": 21]>
        twice (a) => (b) { two = Constant<value = float {2.0}>() b = Mul(a, two) }""")
    model = import_onnx(proto.SerializeToString())
    graph = model.edit()
    assert not graph.functions
    assert [node.op_type for node in graph.graph] == ["Mul", "Mul"]
    assert_same(proto, model, x=np.arange(3, dtype=np.float32))


def test_normal_form() -> None:
    proto = parse(21, """(float[n, 4] x, float[4] b) => (float[n, 4] y) {
        y = Mul(d, c)
        c = Constant<value_floats=[1.0, 2.0, 3.0, 4.0]>()
        d = Add(x, b)
        unused = Neg(x)
    }""", {"b": RNG.normal(size=4)})  # fmt: skip
    proto.doc_string = "x" * 1000
    proto.metadata_props.add(key="tool", value="x" * 1000)
    proto.graph.node[0].metadata_props.add(key="trace", value="x" * 1000)
    model = import_onnx(proto.SerializeToString())
    graph = model.edit()
    assert [node.op_type for node in graph.graph] == ["Add", "Mul"]
    assert all(node.name for node in graph.graph)
    assert set(graph.graph.initializers) == {"b", "c"}
    assert [spec.name for spec in model.signature.inputs] == ["x"]
    assert str(next(iter(graph.graph)).outputs[0].shape) == "[n,4]"
    assert b"xxx" not in model.to_bytes()
    assert model.lineage.source == "bytes"
    assert_same(proto, model, x=RNG.normal(size=(2, 4)).astype(np.float32))


def test_names_are_unique_and_kept() -> None:
    proto = parse(21, """(float[3] x, bool c) => (float[3] y) {
        a = Relu(x)
        y = If(c) <then_branch = t () => (float[3] p) { h = Neg(a) p = Abs(h) },
                   else_branch = e () => (float[3] q) { h = Sin(a) q = Cos(h) }>
    }""")  # fmt: skip
    for node in proto.graph.node:
        node.name = "same"
    model = import_onnx(proto.SerializeToString())
    nodes = list(model.edit().graph.all_nodes())
    values = [value.name for node in nodes for value in node.outputs]
    assert len({node.name for node in nodes}) == len(nodes)
    assert len(set(values)) == len(values)
    assert "same" in {node.name for node in nodes}
    again = import_onnx(model.to_bytes())
    assert [node.name for node in again.edit().graph.all_nodes()] == [node.name for node in nodes]
    for node in proto.graph.node:  # the oracle takes no name twice
        node.name = ""
    assert_same(proto, model, x=np.arange(3, dtype=np.float32), c=np.array(True))


def test_our_own_file_keeps_digest_and_lineage(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(parse(17, "(float[n] x) => (float[n] y) { y = Relu(x) }").SerializeToString())
    model = import_onnx(path)
    assert model.lineage.source == "net.onnx"
    saved = model.save(tmp_path / "other.onnx")
    again = import_onnx(saved)
    assert (again.digest, again.lineage) == (model.digest, model.lineage)
    assert again.to_bytes() == model.to_bytes()


def test_external_data_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a model over 2 GB, whose limit is lowered here."""
    model = convolutional()
    monkeypatch.setattr(burnish.core.model, "_PROTO_LIMIT_BYTES", 100)
    again = import_onnx(model.save(tmp_path / "net.onnx"))
    kinds = {type(value.const_value) for value in again.edit().graph.initializers.values()}
    assert ir.ExternalTensor in kinds
    assert again.digest == model.digest
    assert again.signature == model.signature


def test_thousands_of_nodes_in_a_row() -> None:
    body = "".join(f"v{i + 1} = Relu(v{i}) " for i in range(5000))
    proto = parse(17, f"(float[3] v0) => (float[3] v5000) {{ {body} }}")
    model = import_onnx(proto.SerializeToString())
    assert len(model.digest) == 64
    assert len(list(model.edit().graph)) == 5000
