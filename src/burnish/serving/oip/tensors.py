# SPDX-License-Identifier: Apache-2.0
"""A named tensor in a message: as JSON, or as JSON that says how many bytes it has behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy.typing as npt

from burnish.serving.oip.binary import read_binary, write_binary
from burnish.serving.oip.datatypes import checked_shape, datatype_of, dtype_of
from burnish.serving.oip.elements import read_elements, write_elements
from burnish.serving.oip.faults import Fault, shown
from burnish.serving.oip.framing import (
    NO_PARAMETERS,
    Limits,
    Parameter,
    Sections,
    entries,
    parameters,
)

SIZE = "binary_data_size"
_SHARED_MEMORY = "shared_memory_region"


class Tensor(NamedTuple):
    """An input or output with its data; `binary` is how it came or is to be sent."""

    name: str
    array: npt.NDArray[Any]
    binary: bool = False
    parameters: Mapping[str, Parameter] = NO_PARAMETERS

    @property
    def datatype(self) -> str:
        """The protocol's name for the array's dtype."""
        return datatype_of(self.array.dtype, f"tensor {self.name!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return self.array.shape


class Declared(NamedTuple):
    """A tensor as the JSON document has it: with its data, or with the size of it behind."""

    name: str
    where: str
    datatype: str
    shape: tuple[int, ...]
    size: object
    """The bytes behind the document that are its data; None where it has `data`."""
    data: object
    parameters: Mapping[str, Parameter]


def declared_tensors(value: object, what: str, limits: Limits) -> tuple[Declared, ...]:
    """Returns the tensors of a list in a message, without their bytes."""
    return tuple(_declared(entry, what) for entry in entries(value, what, limits))


def read_tensors(declared: Iterable[Declared], sections: Sections) -> tuple[Tensor, ...]:
    """Returns the tensors with their data, and takes their bytes from `sections`, all of them."""
    tensors = tuple([_read(one, sections) for one in declared])
    sections.finish()
    return tensors


def write_tensors(
    tensors: Iterable[Tensor], what: str
) -> tuple[list[dict[str, Any]], list[memoryview] | None]:
    """Returns the list for the JSON, and the bytes behind it (None when none is binary)."""
    listed, sections = [], []
    for tensor in tensors:
        where = f"{what} {tensor.name!r}"
        own = {key: value for key, value in tensor.parameters.items() if key != SIZE}
        entry: dict[str, Any] = {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
        }
        if tensor.binary:
            sections.append(write_binary(tensor.array, tensor.datatype, where))
            own[SIZE] = len(sections[-1])
        else:
            entry["data"] = write_elements(tensor.array, tensor.datatype, where)
        if own:
            entry["parameters"] = own
        listed.append(entry)
    return listed, sections or None


def refuse_shared_memory(own: Mapping[str, Parameter], where: str) -> None:
    """Raises `Fault` where a tensor is said to lie in memory that we do not share."""
    if _SHARED_MEMORY in own:
        raise Fault(f"{where}: shared memory is not supported: send the data in the body")


def _declared(entry: dict[str, Any], what: str) -> Declared:
    where = f"{what} {shown(entry['name'])}"
    datatype = entry.get("datatype")
    dtype_of(datatype, where)
    shape = checked_shape(entry.get("shape"), str(datatype), where)
    own = parameters(entry.get("parameters"), where)
    refuse_shared_memory(own, where)
    if SIZE in own and "data" in entry:
        raise Fault(f"{where}: expected data or {SIZE}, got both")
    if SIZE not in own and "data" not in entry:
        raise Fault(f"{where}: expected data or the parameter {SIZE}, got neither")
    return Declared(
        entry["name"], where, str(datatype), shape, own.get(SIZE), entry.get("data"), own
    )


def _read(one: Declared, sections: Sections) -> Tensor:
    name, where, datatype, shape, size, data, own = one
    if size is None:
        return Tensor(name, read_elements(data, datatype, shape, where), False, own)
    section = sections.take(size, where)
    return Tensor(name, read_binary(section, datatype, shape, where), True, own)
