# SPDX-License-Identifier: Apache-2.0
"""Turns raw samples into model inputs, by plain data that travels in a bundle.

>>> rows = preprocessing_from_dict({"inputs": [{"input": "row", "kind": "table", "std": 2}]})
>>> rows([2.0, 4.0])
{'row': array([1., 2.], dtype=float32)}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse, unknown
from burnish.data.array_input import ArrayInput, TableInput
from burnish.data.image_input import ImageInput
from burnish.data.toml_table import Table, raise_faults

Input = ImageInput | ArrayInput | TableInput
_KINDS: dict[str, type[Input]] = {
    "image": ImageInput,
    "array": ArrayInput,
    "table": TableInput,
}


@dataclass(frozen=True)
class InputPreprocessing:
    """The preprocessing of each input.

    A raw sample is a dict by input name; with a single input it may be the bare value.
    """

    inputs: tuple[Input, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, which `preprocessing_from_dict` reads."""
        return {"inputs": [one.to_dict() for one in self.inputs]}

    def __call__(self, raw: Any) -> dict[str, NDArray[Any]]:
        """Returns the inputs for one raw sample, without a batch axis."""
        return {name: batch[0] for name, batch in self.finish([self.prepare(raw)]).items()}

    def prepare(self, raw: Any) -> tuple[NDArray[Any], ...]:
        """Returns each input's array for one raw sample, ready to be stacked.

        Raises `Misuse` when the sample does not fit.
        """
        if not isinstance(raw, Mapping):
            if len(self.inputs) > 1:
                names = [one.input for one in self.inputs]
                raise Misuse(f"a raw sample must be a dict with {names}, got {type(raw).__name__}")
            raw = {self.inputs[0].input: raw}
        for name in raw:
            if name not in {one.input for one in self.inputs}:
                raise unknown("input", str(name), [one.input for one in self.inputs])
        missing = [one.input for one in self.inputs if one.input not in raw]
        if missing:
            raise Misuse(f"the raw sample lacks {missing}")
        return tuple(one.prepare(raw[one.input]) for one in self.inputs)

    def finish(self, prepared: Sequence[tuple[NDArray[Any], ...]]) -> dict[str, NDArray[Any]]:
        """Returns the inputs by name for several prepared samples: (batch, …).

        Raises `Misuse` when they differ in shape.
        """
        batch: dict[str, NDArray[Any]] = {}
        for place, one in enumerate(self.inputs):
            arrays = [sample[place] for sample in prepared]
            shapes = {array.shape for array in arrays}
            if len(shapes) > 1:
                raise Misuse(
                    f"the samples of {one.input!r} differ in shape, {sorted(shapes)[:4]}: "
                    + ("set resize or crop" if one.kind == "image" else "they must be alike")
                )
            batch[one.input] = np.asarray(one.finish(arrays))
        return batch


def preprocessing_from_dict(data: Mapping[str, Any]) -> InputPreprocessing:
    """Returns the preprocessing that `to_dict` wrote.

    Raises `Misuse` listing every unknown key and wrong value.
    """
    faults: list[str] = []
    inputs = data.get("inputs")
    if set(data) != {"inputs"} or not isinstance(inputs, list) or not inputs:
        raise Misuse(f"preprocessing must be a dict with a list 'inputs', got {sorted(data)}")
    found = []
    for position, one in enumerate(inputs):
        if not isinstance(one, Mapping):
            raise Misuse(f"preprocessing input {position} must be a dict, got {one!r:.60}")
        made = input_from_table(Table(one, f"preprocessing input {position}", faults))
        found += [] if made is None else [made]
    raise_faults(faults)
    return InputPreprocessing(tuple(found))


def input_from_table(table: Table, name: str | None = None) -> Input | None:
    """Returns one input's preprocessing; faults are noted in the table.

    `name` is the input's when the table's own name says it, else the key `input` does.
    """
    if name is None:
        table.need("input", "the model's input, as netron or `burnish list` shows it")
        name = table.text("input")
    table.need("kind", f"one of {', '.join(_KINDS)}")
    kind = table.text("kind", one_of=_KINDS)
    if kind is None:
        return None
    made = _KINDS[kind].from_table(table, name or "")
    table.finish()
    return made
