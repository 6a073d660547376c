# SPDX-License-Identifier: Apache-2.0
"""Writes a trained module's weights back into the graph that it was lifted from."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.graph.lift.dtypes import as_array
from burnish.graph.lift.module import LiftedModule


def lower(module: LiftedModule, model: Model) -> ir.Model:
    """Returns `model.edit()` with the module's current parameters and buffers.

    What did not change keeps its tensor, so an untouched module gives the same digest.
    A module that was moved or cast is brought back to the graph's own element types.
    Raises `Misuse` when the module is not this model's: an initializer that one of them
    lacks, another shape, or a weight that is no longer finite.
    """
    graph = model.edit()
    held = dict(module.named_initializers())
    faults: list[str] = []
    for name, value in graph.graph.initializers.items():
        old = value.const_value
        if old is None or old.dtype == ir.DataType.STRING:
            continue
        if name not in held:
            faults.append(f"{name} {list(old.shape)} is not in the module")
            continue
        tensor = held[name]
        if list(tensor.shape) != list(old.shape):
            faults.append(f"{name} is {list(old.shape)} in the model, {list(tensor.shape)} here")
            continue
        new = as_array(tensor, old.dtype)
        before = np.asarray(old.numpy())
        if new.tobytes() == np.ascontiguousarray(before).tobytes():
            continue
        if not _finite(new) and _finite(before):
            faults.append(f"{name} {list(old.shape)} has values that are not finite")
            continue
        value.const_value = ir.Tensor(new, dtype=old.dtype, name=name)
    if faults:
        raise Misuse(f"the module's weights cannot be written back: {'; '.join(faults)}")
    return graph


def _finite(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bool:
    if array.dtype.kind in "iub":
        return True
    return bool(np.isfinite(array.astype(np.float64)).all())
