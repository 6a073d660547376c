# SPDX-License-Identifier: Apache-2.0
"""Reads an ONNX file into a Model: checked, and brought to Burnish's form."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from burnish.core.errors import Misuse
from burnish.core.model import Lineage, Model
from burnish.graph.canonical import canonical, check, first_lines, is_canonical, sort
from burnish.graph.skeleton import SMALL_BYTES, in_memory
from burnish.graph.soundness import check_proto

_FILE_LIMIT_BYTES = 2**31 - 1  # protobuf's; weights beyond it are external
_LINEAGE_KEY = "burnish.lineage"
_OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive (PyTorch saves its files so: use Model.from_torch)"),
    (b"\x80", "a Python pickle, which is never opened here (use Model.from_torch)"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?): convert it to ONNX first"),
    (b"<?xml", "XML (OpenVINO?): give the ONNX file it was made from"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with git lfs pull"),
    (b"{", "text, not a binary ONNX file"),
)


def import_onnx(source: str | Path | bytes) -> Model:
    """Returns the model in an ONNX file or its bytes, in Burnish's form (`graph.canonical`).

    External data stays in its file, memory-mapped, so models over 2 GB work. A file that
    Burnish wrote is only checked, and keeps its lineage and digest.

    Raises `Misuse` for what is not a sound ONNX file, `Unsupported` for operators or types
    that no engine here could run.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _import(bytes(source), "the model (given as bytes)", "bytes", None)
    if not isinstance(source, str | os.PathLike):
        raise Misuse(
            f"expected the path of an ONNX file or its bytes, got {type(source).__name__}; "
            "for a PyTorch module use Model.from_torch"
        )
    path = Path(source)
    return _import(_read(path), str(path), path.name, path.absolute().parent)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            raise Misuse(f"expected an ONNX file, but {path} {kind}")
        if path.stat().st_size > _FILE_LIMIT_BYTES:
            raise Misuse(
                f"{path} has {path.stat().st_size} bytes, and one ONNX file holds 2 GB at most: "
                "save the weights as external data"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise Misuse(f"cannot read {str(path)!r}: {error}") from error


def _import(content: bytes, what: str, name: str, folder: Path | None) -> Model:
    try:
        proto = _parse(content, what)
        del content
        check_proto(proto, what, folder)
        graph = ir.from_proto(proto)
        del proto
        _place(graph, folder)
        lineage = None if graph.metadata_props.get(_LINEAGE_KEY) else Lineage(source=name)
        if lineage is None and is_canonical(graph):
            sort(graph, what)
            check(graph, what)
        else:
            graph = canonical(graph, what)
        model = Model(graph, lineage)
        _ = model.signature
    except (ir.serde.SerdeError, UnicodeError, NotImplementedError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise Misuse(f"{what} is not a sound ONNX model: {first_lines(cause)}") from error
    return model


def _parse(content: bytes, what: str) -> onnx.ModelProto:
    if not content:
        raise Misuse(f"{what} is empty: expected an ONNX model")
    for start, kind in _OTHER_FILES:
        if content.startswith(start):
            raise Misuse(f"{what} is no ONNX model: it is {kind}")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
        return proto
    except DecodeError as error:
        raise Misuse(
            f"{what} cannot be read as ONNX: it is no ONNX file, or is cut short, damaged, or "
            "nested too deep; copy or export it again"
        ) from error


def _place(graph: ir.Model, folder: Path | None) -> None:
    """Says where external data lies, and reads the small tensors of it into memory."""
    if folder is None:
        return
    ir.external_data.set_base_dir(graph.graph, folder)
    for one in graph.graphs():
        for value in one.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= SMALL_BYTES:
                value.const_value = in_memory(tensor)
