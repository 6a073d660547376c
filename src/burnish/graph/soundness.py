# SPDX-License-Identifier: Apache-2.0
"""Whether a parsed ONNX file is sound, before anything is built or allocated from it.

Every size that the file claims is compared with the bytes that are really there.
Independent faults are gathered and raised together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import Message

from burnish.core.errors import Misuse, Unsupported

DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
"""Operator domains that an engine may know; functions of the file itself come on top."""

MAX_NODES = 1_000_000
"""The most nodes after inlining: functions that call functions can grow without bound."""

_T = onnx.TensorProto
# Bits of an element, and the field that holds elements when there is no raw_data.
_ELEMENTS: dict[int, tuple[int, str]] = {
    _T.FLOAT: (32, "float_data"),
    _T.COMPLEX64: (64, "float_data"),
    _T.DOUBLE: (64, "double_data"),
    _T.COMPLEX128: (128, "double_data"),
    _T.INT64: (64, "int64_data"),
    _T.UINT64: (64, "uint64_data"),
    _T.UINT32: (32, "uint64_data"),
    _T.INT32: (32, "int32_data"),
    _T.STRING: (0, "string_data"),
    **dict.fromkeys((_T.FLOAT16, _T.BFLOAT16, _T.INT16, _T.UINT16), (16, "int32_data")),
    **dict.fromkeys((_T.BOOL, _T.INT8, _T.UINT8), (8, "int32_data")),
    **dict.fromkeys(
        (_T.FLOAT8E4M3FN, _T.FLOAT8E4M3FNUZ, _T.FLOAT8E5M2, _T.FLOAT8E5M2FNUZ), (8, "int32_data")
    ),
    **dict.fromkeys((_T.INT4, _T.UINT4), (4, "int32_data")),
}
# What a caller can pass as a numpy array of a standard dtype.
_SIGNATURE_TYPES = frozenset(
    {_T.FLOAT, _T.FLOAT16, _T.DOUBLE, _T.BOOL, _T.INT8, _T.INT16, _T.INT32, _T.INT64}
    | {_T.UINT8, _T.UINT16, _T.UINT32, _T.UINT64}
)


@dataclass
class _Faults:
    """What is wrong with the file, and what is sound but cannot be run."""

    wrong: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)

    def raise_any(self, what: str) -> None:
        if self.wrong:
            raise Misuse(f"{what} is not a sound ONNX model: {_list(self.wrong)}")
        if self.unsupported:
            raise Unsupported(f"{what} cannot be run: {_list(self.unsupported)}")


def check_proto(proto: onnx.ModelProto, what: str, folder: Path | None) -> None:
    """Raises `Misuse` or `Unsupported` that lists what is wrong with the model.

    `what` names the model in messages. External data must lie in `folder`; None (a model
    given as bytes) allows none.
    """
    faults = _Faults()
    damaged = _bad_text(proto)
    if damaged:
        raise Misuse(f"{what} is damaged: {damaged} is no UTF-8 text; copy or export it again")
    if not proto.HasField("graph") or not proto.ir_version:
        raise Misuse(
            f"{what} is no ONNX model: expected a graph and a format version, and found none; "
            "export the network to ONNX again"
        )
    if not proto.opset_import:
        raise Misuse(
            f"{what} is damaged: it does not say which operator versions it uses, so it was "
            "probably cut short; copy or export it again"
        )
    _check_opsets(proto, faults)
    _check_functions(proto, faults)
    _check_interface(proto.graph, faults)
    own = {(one.domain, one.name) for one in proto.functions}
    opsets = {one.domain: one.version for one in proto.opset_import}
    _check_graph(proto.graph, frozenset(), opsets, own, folder, faults)
    for function in proto.functions:
        versions = opsets | {one.domain: one.version for one in function.opset_import}
        known = set(function.input)
        _check_nodes(function.node, known, versions, own, folder, faults)
        faults.wrong += [
            f"function {function.name} gives {name!r}, which no node produces"
            for name in function.output
            if name not in known
        ]
    faults.raise_any(what)


def _bad_text(message: Message) -> str | None:
    """Returns the first text field that holds bytes which are no text, or None."""
    for described, value in message.ListFields():
        values = (value,) if isinstance(value, str | bytes | Message) else value
        if described.type == described.TYPE_STRING:
            if any(isinstance(one, bytes) for one in values):
                return str(described.full_name)
        elif described.type == described.TYPE_MESSAGE:
            for one in values:
                found = _bad_text(one)
                if found:
                    return found
    return None


def _check_opsets(proto: onnx.ModelProto, faults: _Faults) -> None:
    newest = onnx.defs.onnx_opset_version()
    for one in proto.opset_import:
        if one.version < 1:
            faults.wrong.append(f"operator set {one.domain or 'ai.onnx'!r} version {one.version}")
        elif one.domain in ("", "ai.onnx") and one.version > newest:
            faults.unsupported.append(
                f"it uses operator set {one.version}, and the installed onnx package knows "
                f"{newest}: update onnx, or export with a lower opset"
            )


def _check_functions(proto: onnx.ModelProto, faults: _Faults) -> None:
    """Functions must not call themselves, nor grow into more than MAX_NODES when inlined."""
    bodies = {(one.domain, one.name): one for one in proto.functions}
    if len(bodies) < len(proto.functions):
        faults.wrong.append("two functions have the same name")
    sizes: dict[tuple[str, str], int] = {}
    for start in bodies:
        stack = [start]
        while stack:
            key = stack[-1]
            calls = [
                (node.domain, node.op_type)
                for node in _nodes(bodies[key].node)
                if (node.domain, node.op_type) in bodies
            ]
            waiting = [call for call in calls if call not in sizes]
            if any(call in stack for call in waiting):
                faults.wrong.append(f"function {key[1]} calls itself")
                return
            if waiting:
                stack.append(waiting[0])
                continue
            total = sum(1 for _ in _nodes(bodies[key].node)) + sum(sizes[c] for c in calls)
            sizes[key] = min(total, MAX_NODES + 1)
            stack.pop()
    count = sum(sizes.get((node.domain, node.op_type), 1) for node in _nodes(proto.graph.node))
    if count > MAX_NODES:
        faults.wrong.append(f"it has more than {MAX_NODES} nodes once functions are inlined")


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _nodes(graph.node)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_interface(graph: onnx.GraphProto, faults: _Faults) -> None:
    weights = {one.name for one in graph.initializer}
    if not graph.output:
        faults.wrong.append("it has no output")
    for kind, infos in (("input", graph.input), ("output", graph.output)):
        names = [info.name for info in infos]
        faults.wrong += [f"{kind} name {one!r} is given twice" for one in _repeated(names)]
        for info in infos:
            if kind == "input" and info.name in weights:
                continue
            _check_type(kind, info, faults)


def _check_type(kind: str, info: onnx.ValueInfoProto, faults: _Faults) -> None:
    what = f"{kind} {info.name!r}"
    held = info.type.WhichOneof("value")
    if held is None:
        if kind == "input":
            faults.wrong.append(f"{what} has no type")
    elif held != "tensor_type":
        faults.unsupported.append(
            f"{what} is a {held.removesuffix('_type').replace('_', ' ')}; only tensors are taken"
        )
    elif info.type.tensor_type.elem_type not in _SIGNATURE_TYPES:
        number = info.type.tensor_type.elem_type
        if number in _T.DataType.values() and number:
            faults.unsupported.append(
                f"{what} has element type {_T.DataType.Name(number)}; it must be a number that "
                "numpy knows"
            )
        elif kind == "input" or number:
            faults.wrong.append(f"{what} has the unknown element type {number}")
    elif kind == "input" and not info.type.tensor_type.HasField("shape"):
        faults.unsupported.append(f"{what} does not say how many dimensions it has")
    for dim in info.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value < 0:
            faults.wrong.append(
                f"{what} has dimension {dim.dim_value}; a dimension that varies must be a name"
            )


def _check_graph(
    graph: onnx.GraphProto,
    outer: frozenset[str],
    opsets: Mapping[str, int],
    own: set[tuple[str, str]],
    folder: Path | None,
    faults: _Faults,
) -> None:
    for tensor in graph.initializer:
        check_tensor(f"initializer {tensor.name!r}", tensor, folder, faults.wrong)
    faults.unsupported += [
        f"initializer {one.values.name!r} is sparse" for one in graph.sparse_initializer
    ]
    weights = [one.name for one in graph.initializer]
    faults.wrong += [f"initializer {one!r} is given twice" for one in _repeated(weights)]
    inputs = [one.name for one in graph.input]
    if outer:
        faults.wrong += [f"input {one!r} of a subgraph twice" for one in _repeated(inputs)]
    known = set(weights) | set(inputs)
    if "" in known:
        faults.wrong.append("an input or initializer has no name")
    visible = set(outer) | known
    _check_nodes(graph.node, visible, opsets, own, folder, faults)
    for output in graph.output:
        if output.name not in visible:
            faults.wrong.append(f"output {output.name!r} is produced by no node")


def _check_nodes(
    nodes: Iterable[onnx.NodeProto],
    known: set[str],
    opsets: Mapping[str, int],
    own: set[tuple[str, str]],
    folder: Path | None,
    faults: _Faults,
) -> None:
    """Checks the nodes and adds the names that they produce to `known`.

    The order of nodes is not checked: they are sorted later, which finds cycles too.
    """
    nodes = list(nodes)
    for node in nodes:
        for name in node.output:
            if name and name in known:
                faults.wrong.append(f"two sources for the value {name!r} (one is {_say(node)})")
            elif name:
                known.add(name)
    for node in nodes:
        _check_operator(node, opsets, own, faults)
        for name in node.input:
            if name and name not in known:
                faults.wrong.append(f"{_say(node)} reads {name!r}, which nothing produces")
        for attribute in node.attribute:
            where = f"attribute {attribute.name!r} of {_say(node)}"
            if attribute.HasField("t"):
                check_tensor(where, attribute.t, folder, faults.wrong)
            for tensor in attribute.tensors:
                check_tensor(where, tensor, folder, faults.wrong)
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                faults.unsupported.append(f"{where} is sparse")
        for graph in _subgraphs(node):
            _check_graph(graph, frozenset(known), opsets, own, folder, faults)


def _check_operator(
    node: onnx.NodeProto, opsets: Mapping[str, int], own: set[tuple[str, str]], faults: _Faults
) -> None:
    if (node.domain, node.op_type) in own:
        return
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = opsets.get(domain, opsets.get("ai.onnx") if domain == "" else None)
    if domain not in DOMAINS:
        faults.unsupported.append(
            f"{_say(node)} is a custom operator of the domain {domain!r}, which no engine here "
            "knows; export the network with standard operators"
        )
    elif version is None:
        faults.wrong.append(f"{_say(node)} uses the domain {domain!r}, which is not imported")
    elif domain != "com.microsoft" and not onnx.defs.has(node.op_type, version, domain):
        faults.unsupported.append(
            f"{_say(node)} is no operator of {domain or 'ai.onnx'!r} version {version}"
        )


def check_tensor(
    where: str, tensor: onnx.TensorProto, folder: Path | None, wrong: list[str]
) -> None:
    """Adds to `wrong` every way in which the tensor's bytes do not fit what it claims."""
    shape = list(tensor.dims)
    if tensor.data_type not in _ELEMENTS:
        wrong.append(f"{where} has the unknown element type {tensor.data_type}")
        return
    if any(size < 0 for size in shape):
        wrong.append(f"{where} has the shape {shape}")
        return
    bits, name = _ELEMENTS[tensor.data_type]
    count = prod(shape)
    n_bytes = (count * bits + 7) // 8
    if tensor.HasField("segment"):
        wrong.append(f"{where} is split in segments, which no longer is ONNX")
    elif tensor.data_location == _T.EXTERNAL:
        wrong += [f"{where}: {fault}" for fault in _external_faults(tensor, n_bytes, folder)]
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != n_bytes or tensor.data_type == _T.STRING:
            wrong.append(
                f"{where} of shape {shape} needs {n_bytes} bytes and has {len(tensor.raw_data)}"
            )
    else:
        expected = count
        if tensor.data_type in (_T.COMPLEX64, _T.COMPLEX128):
            expected = 2 * count
        elif bits == 4:
            expected = n_bytes
        got = len(getattr(tensor, name))
        if got != expected:
            wrong.append(f"{where} of shape {shape} needs {expected} elements and has {got}")


def _external_faults(tensor: onnx.TensorProto, n_bytes: int, folder: Path | None) -> list[str]:
    """Returns what is wrong with a tensor that lies in another file.

    The file must be inside the model's folder, symbolic links followed: a model from
    elsewhere could otherwise read any file of this machine into its weights.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if tensor.data_type == _T.STRING:
        return ["strings cannot be external"]
    if folder is None:
        return [f"its data is in the file {location!r}: load the model by its path, not as bytes"]
    if not location or "\0" in location:
        return [f"its external file has the name {location!r}"]
    path = folder / location
    inside = not os.path.isabs(location) and ".." not in Path(location).parts
    if not inside or not path.resolve().is_relative_to(folder.resolve()):
        return [f"its external file {location!r} is outside the model's folder; move it inside"]
    if not path.is_file():
        return [f"its external file {location!r} is missing: copy it beside the model"]
    numbers = {key: entries.get(key, default) for key, default in (("offset", "0"), ("length", ""))}
    if not all(text.isascii() and (text.isdigit() or not text) for text in numbers.values()):
        return [f"its external offset or length is no number: {numbers}"]
    offset = int(numbers["offset"] or 0)
    length = int(numbers["length"]) if numbers["length"] else n_bytes
    if length != n_bytes:
        return [f"shape {list(tensor.dims)} needs {n_bytes} bytes and claims {length}"]
    size = path.stat().st_size
    if offset + length > size:
        return [f"needs bytes {offset} to {offset + length} of {location!r}, which has {size}"]
    return []


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]


def _say(node: onnx.NodeProto) -> str:
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"node {node.name!r} ({kind})" if node.name else f"a node without a name ({kind})"


def _list(faults: list[str], most: int = 8) -> str:
    more = f"; and {len(faults) - most} more" if len(faults) > most else ""
    return "; ".join(faults[:most]) + more
