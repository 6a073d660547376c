# SPDX-License-Identifier: Apache-2.0
"""A bundle is read back as it was written, replaced whole, and never written over others' files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from small_models import convolutional

import burnish.core.bundle as core_bundle
from burnish.core.bundle import Bundle
from burnish.core.errors import Misuse

NEW, OLD = convolutional(seed=1), convolutional(seed=0)


def write(path: Path) -> Bundle:
    return Bundle.write(path, NEW, OLD, {"plan": {"engine": "onnxruntime"}}, {"report.md": b"# R"})


def test_round_trip(tmp_path: Path) -> None:
    bundle = write(tmp_path / "a" / "bundle")
    assert Bundle.is_bundle(bundle.path)
    again = Bundle.load(str(bundle.path))
    assert again.model.digest == NEW.digest
    assert again.original.digest == OLD.digest
    assert again.manifest["plan"] == {"engine": "onnxruntime"}
    assert again.manifest["signature"]["inputs"][0]["shape"] == list(NEW.signature.inputs[0].shape)
    assert sorted(os.listdir(bundle.path)) == [
        "manifest.json", "model.onnx", "original.onnx", "report.md",
    ]  # fmt: skip
    assert os.listdir(tmp_path / "a") == ["bundle"]


def test_replaces_a_bundle_and_an_empty_folder(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    write(path)
    (path / "left-over").write_text("old")
    write(path)
    assert not (path / "left-over").exists()
    assert os.listdir(tmp_path) == ["bundle"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_does_not_write_over_something_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "precious"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("work")
    else:
        path.write_text("work")
    with pytest.raises(Misuse, match="is no bundle: choose another"):
        write(path)
    assert (path / "thesis.tex" if kind == "folder" else path).read_text() == "work"


@pytest.mark.parametrize("moment", ["files", "swap"])
def test_a_failure_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "bundle"
    write(path)
    rename = os.rename

    def fail(source: object, target: object) -> None:
        if moment == "swap" and Path(str(target)) == path and ".old" not in str(source):
            raise OSError("no")
        rename(source, target)  # type: ignore[arg-type]

    def full(*_: object) -> None:
        raise OSError("disk full")

    if moment == "files":
        monkeypatch.setattr(core_bundle, "write_whole", full)
    else:
        monkeypatch.setattr(core_bundle.os, "rename", fail)
    with pytest.raises(OSError, match=r"no|disk full"):
        Bundle.write(path, OLD, OLD, {"plan": {}}, {"x": b""})
    monkeypatch.undo()
    assert Bundle.load(path).model.digest == NEW.digest
    assert os.listdir(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "damaged"),
        ("[]", "format 'list'"),
        ("{}", "format None"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1, "plan": {}}', r"lacks \['model', 'original', 'signature'\]"),
        ('{"format": 1, "plan": {}, "signature": {}, "original": {}, "model": 3}', "no digest"),
        ('{"format": 1, "plan": {}, "signature": {}, "original": {}, "model": {}}', "no digest"),
        ("\xff", "format|damaged"),
    ],
)
def test_damaged_manifest(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(Misuse, match=word):
        Bundle.load(tmp_path)


def test_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(Misuse, match="is no bundle"):
            Bundle.load(path)


def test_another_model_in_its_place(tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle")
    OLD.save(bundle.path / "model.onnx")
    with pytest.raises(Misuse, match="not the model that was bundled"):
        _ = Bundle.load(bundle.path).model
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert manifest["model"]["digest"] == NEW.digest
