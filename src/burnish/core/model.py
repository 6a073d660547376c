# SPDX-License-Identifier: Apache-2.0
"""An immutable ONNX graph with its signature, lineage and digest.

Source files are read by the importers (`graph.importers`), found through the catalogue;
`Model(...)` itself takes a graph that is already in Burnish's form: opset `OPSET`,
shapes inferred, functions inlined.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from burnish.core import catalogue
from burnish.core.digest import graph_digest
from burnish.core.errors import Misuse

if TYPE_CHECKING:
    from burnish.core.technique import Technique

OPSET = 21
"""The version of the default ONNX operator set that every Model is brought to."""

_PROTO_LIMIT_BYTES = 1_900_000_000  # protobuf holds at most 2 GiB in one message
_LINEAGE_KEY = "burnish.lineage"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and dimensions (names when dynamic)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        inside = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype}[{inside}]"


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"


@dataclass(frozen=True)
class Lineage:
    """Where a model came from: its source, and each technique with the digest it was applied to."""

    source: str = "unknown"
    steps: tuple[Mapping[str, Any], ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the lineage as JSON text; `from_json` is its inverse."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Lineage:
        """Returns the lineage that `to_json` wrote, or raises `Misuse`."""
        try:
            data = json.loads(text)
            return Lineage(str(data["source"]), tuple(data["steps"]), dict(data["notes"]))
        except (ValueError, KeyError, TypeError) as error:
            raise Misuse(f"the model's {_LINEAGE_KEY} entry is damaged: {error!r}") from error


class Model:
    """An ONNX graph that does not change; techniques make new ones with `derive`."""

    def __init__(self, graph: ir.Model, lineage: Lineage | None = None) -> None:
        """Takes `graph` over: the caller must not change it afterwards."""
        if lineage is None:
            text = graph.metadata_props.get(_LINEAGE_KEY)
            lineage = Lineage.from_json(text) if text else Lineage()
        self._graph = graph
        self._lineage = lineage

    @staticmethod
    def load(source: str | Path | bytes) -> Model:
        """Returns the model in an ONNX file or its bytes, brought to Burnish's form.

        Raises `Misuse` for what is not a sound ONNX file, `Unsupported` for operators
        or types that no engine here could run.
        """
        loaded: Model = catalogue.find("importers", "onnx")(source)
        return loaded

    @staticmethod
    def from_torch(module: Any, example_inputs: Any, **options: Any) -> Model:
        """Returns the model of a PyTorch module; see `graph.importers.torch.import_torch`."""
        imported: Model = catalogue.find("importers", "torch")(module, example_inputs, **options)
        return imported

    @cached_property
    def digest(self) -> str:
        """What the graph computes, as 64 hexadecimal digits (`core.digest`)."""
        return graph_digest(self._graph)

    @cached_property
    def signature(self) -> Signature:
        """Names, dtypes and shapes of the inputs and outputs."""
        return Signature(
            tuple(map(_spec, self._graph.graph.inputs)),
            tuple(map(_spec, self._graph.graph.outputs)),
        )

    @property
    def lineage(self) -> Lineage:
        """Where the model came from."""
        return self._lineage

    @cached_property
    def size_bytes(self) -> int:
        """The size of the model's file, weights included."""
        weights = self._weight_bytes()
        if weights < _PROTO_LIMIT_BYTES:
            return len(self.to_bytes())
        return weights + len(_without_weights(self.edit()).SerializeToString())

    def edit(self) -> ir.Model:
        """Returns a private copy of the graph; tensors are shared, since they never change."""
        return self._graph.clone()

    def derive(self, graph: ir.Model, technique: Technique, **notes: Any) -> Model:
        """Returns a new model of `graph`, with `technique` added to this one's lineage."""
        step = technique.to_dict() | {"parent": self.digest} | ({"notes": notes} if notes else {})
        return Model(graph, replace(self._lineage, steps=(*self._lineage.steps, step)))

    def to_bytes(self) -> bytes:
        """Returns the ONNX file. Raises `Misuse` above 1.9 GB, which one file cannot hold."""
        if self._weight_bytes() >= _PROTO_LIMIT_BYTES:
            raise Misuse(
                f"the weights take {self._weight_bytes()} bytes and a single ONNX file holds "
                f"{_PROTO_LIMIT_BYTES}: use Model.save, which writes them beside it"
            )
        graph = self._stamped()
        ir.external_data.load_to_model(graph)  # bytes have no file beside them
        proto = ir.to_proto(graph)
        assert isinstance(proto, onnx.ModelProto)
        content: bytes = proto.SerializeToString(deterministic=True)
        return content

    def save(self, path: str | Path) -> Path:
        """Writes the model to `path`, replacing it whole or not at all, and returns the path.

        Weights above 1.9 GB go beside it, to `<name>.<digest>.data`.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._weight_bytes() < _PROTO_LIMIT_BYTES:
            write_whole(path, self.to_bytes())
            _remove_data(path, keep=None)
            return path
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        # Named by content, so that the old graph keeps its own data until it is replaced.
        data = path.with_name(f"{path.name}.{self.digest[:12]}.data")
        present = data.exists()
        try:
            ir.save(self._stamped(), temporary, external_data=data.name)
            os.replace(temporary, path)
        except BaseException:
            if not present:
                data.unlink(missing_ok=True)
            raise
        finally:
            temporary.unlink(missing_ok=True)
        _remove_data(path, keep=data)
        return path

    def payload(self) -> bytes | Path:
        """Returns what an engine loads: the bytes, or for a huge model a file that holds it."""
        return self._on_disk if self._weight_bytes() >= _PROTO_LIMIT_BYTES else self.to_bytes()

    @cached_property
    def _on_disk(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="burnish-model-")
        weakref.finalize(self, folder.cleanup)
        return self.save(Path(folder.name) / "model.onnx")

    def _stamped(self) -> ir.Model:
        graph = self.edit()
        graph.metadata_props[_LINEAGE_KEY] = self._lineage.to_json()
        return graph

    def _weight_bytes(self) -> int:
        return sum(
            value.const_value.nbytes
            for value in self._graph.graph.initializers.values()
            if value.const_value is not None
        )

    def __repr__(self) -> str:
        return f"Model({self.digest[:12]}, {self.signature})"


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file under a temporary name, flushes it to disk, then renames it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _remove_data(path: Path, keep: Path | None) -> None:
    """Removes the data files of models that were at `path` before."""
    for old in path.parent.iterdir():
        rest = old.name.removeprefix(path.name)
        if rest != old.name and re.fullmatch(r"\.[0-9a-f]{12}\.data", rest) and old != keep:
            old.unlink(missing_ok=True)


def _without_weights(graph: ir.Model) -> onnx.ModelProto:
    names: Sequence[str] = list(graph.graph.initializers)
    for name in names:
        graph.graph.initializers.pop(name)
    proto = ir.to_proto(graph)
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _spec(value: ir.Value) -> TensorSpec:
    if value.name is None or value.dtype is None:
        raise Misuse(f"the input or output {value.name!r} has no name or no type")
    shape: tuple[int | str | None, ...] = ()
    if value.shape is not None:
        shape = tuple(size if isinstance(size, int) else size.value for size in value.shape)
    return TensorSpec(value.name, value.dtype.numpy().name, shape)
