# SPDX-License-Identifier: Apache-2.0
"""A Model never changes, and what is saved is what was there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser
from small_models import convolutional

import burnish.core.model as core_model
from burnish.core.errors import Misuse
from burnish.core.model import Lineage, Model, write_whole


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every model too large for one file."""
    monkeypatch.setattr(core_model, "_PROTO_LIMIT_BYTES", 100)


def nested() -> Model:
    proto = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        agraph (float[3] x, bool c) => (float[3] y) <float[3] w = {1, 2, 3}> {
            y = If(c) <then_branch = t () => (float[3] a) { a = Add(x, w) },
                       else_branch = e () => (float[3] b) { b = LeakyRelu<alpha = 0.5>(x) }>
        }""")
    return Model.load(proto.SerializeToString())


@pytest.mark.parametrize("model", [convolutional(), nested()], ids=["flat", "nested"])
def test_edits_do_not_reach_the_model(model: Model) -> None:
    digest, content = model.digest, model.to_bytes()
    graph = model.edit()
    for node in graph.graph.all_nodes():
        node.name = f"{node.name}_changed"
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.FLOAT:
                node.attributes[name] = ir.AttrFloat32(name, 9.0)
    for value in graph.graph.initializers.values():
        value.const_value = ir.tensor(np.zeros(1, np.float32))
    graph.graph.inputs[0].name = "changed"
    graph.graph.inputs[0].shape = ir.Shape([1])
    last = next(reversed(graph.graph))
    last.replace_input_with(0, graph.graph.inputs[0])
    graph.opset_imports[""] = 1
    graph.metadata_props["key"] = "value"
    assert Model(model.edit()).digest == model.digest == digest
    assert model.to_bytes() == content


def test_signature_lineage_and_size() -> None:
    model = Model(nested().edit(), Lineage("here", ({"technique": "t"},), {"a": 1.5}))
    assert str(model.signature) == "(x: float32[3], c: bool[]) -> (y: float32[3])"
    assert Lineage.from_json(model.lineage.to_json()) == model.lineage
    assert Model.load(model.to_bytes()).lineage == model.lineage
    assert model.size_bytes == len(model.to_bytes())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"source": "x"}', '{"source":1,"steps":2,"notes":3}']
)
def test_damaged_lineage(text: str) -> None:
    with pytest.raises(Misuse, match="damaged"):
        Lineage.from_json(text)


def test_saved_whole(tmp_path: Path) -> None:
    model = convolutional()
    path = model.save(tmp_path / "new" / "net.onnx")
    assert path.stat().st_size == model.size_bytes
    assert Model.load(path).digest == model.digest
    assert os.listdir(path.parent) == ["net.onnx"]


@pytest.mark.usefixtures("small_limit")
def test_huge_models_are_saved_beside(tmp_path: Path) -> None:
    model = convolutional()
    with pytest.raises(Misuse, match=r"Model\.save"):
        model.to_bytes()
    path = model.save(tmp_path / "net.onnx")
    data = tmp_path / f"net.onnx.{model.digest[:12]}.data"
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, data.name])
    again = Model.load(path)
    assert (again.digest, again.signature) == (model.digest, model.signature)
    assert abs(model.size_bytes - path.stat().st_size - data.stat().st_size) < 4096
    assert Model.load(again.save(path)).digest == model.digest  # over its own data
    payload = model.payload()
    assert isinstance(payload, Path)
    assert Model.load(payload).digest == model.digest


def test_external_data_comes_into_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(core_model, "_PROTO_LIMIT_BYTES", 100)
        convolutional().save(tmp_path / "net.onnx")
    model = Model.load(tmp_path / "net.onnx")
    assert Model.load(model.to_bytes()).digest == convolutional().digest
    model.save(tmp_path / "net.onnx")  # now small enough for one file
    assert os.listdir(tmp_path) == ["net.onnx"]


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("moment", ["data", "graph"])
def test_a_failure_midway_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = convolutional(seed=0).save(tmp_path / "net.onnx")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    if moment == "data":
        monkeypatch.setattr(ir, "save", fail)
    else:
        monkeypatch.setattr(core_model.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        convolutional(seed=1).save(path)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert Model.load(path).digest == convolutional(seed=0).digest


@pytest.mark.usefixtures("small_limit")
def test_replacing_removes_the_old_data_only(tmp_path: Path) -> None:
    (tmp_path / "net.onnx.mine.data").write_bytes(b"mine")
    path = convolutional(seed=0).save(tmp_path / "net.onnx")
    new = convolutional(seed=1)
    new.save(path)
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["net.onnx", f"net.onnx.{new.digest[:12]}.data", "net.onnx.mine.data"]
    )
    assert Model.load(path).digest == new.digest


def test_write_whole_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(core_model.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
