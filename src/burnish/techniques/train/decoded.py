# SPDX-License-Identifier: Apache-2.0
"""Samples read whole into memory, once for all training that follows on the same data.

Pruning in rounds, say, trains a dozen times on one task, and decoding its images each
time would take longer than a round. The latest samples alone are held, as long as they
are in use.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.core.progress import Progress
from burnish.core.task import Batch, Samples

Arrays = dict[str, NDArray[Any]]

LABELS = "\0labels"  # beside the inputs' names, of which none has this character
_READ = 256

_lock = threading.Lock()
_held: dict[int, Arrays] = {}


def arrays_of(batch: Batch) -> Arrays:
    """Returns inputs and labels by name, the labels as `LABELS`."""
    labels = {} if batch.labels is None else {LABELS: np.asarray(batch.labels)}
    return {**batch.inputs, **labels}


def decoded(samples: Samples, progress: Progress) -> Mapping[str, NDArray[Any]]:
    """Returns all samples and labels, in order and in the types that they come in; read-only.

    Raises `Misuse` when they differ in shape or are fewer than their length says.
    """
    with _lock:
        found = _held.get(id(samples))
    if found is not None:
        return found
    arrays = read(samples, len(samples), progress)
    for array in arrays.values():
        array.flags.writeable = False
    with _lock:
        _held.clear()
        _held[id(samples)] = arrays
    # An id is another's once its object is gone.
    weakref.finalize(samples, _held.pop, id(samples), None)
    return arrays


def read(samples: Samples, n: int, progress: Progress) -> Arrays:
    """Returns the first `n` samples and labels."""
    arrays: Arrays = {}
    at = 0
    for batch in samples.batches(_READ, n):
        progress("reading training samples", at, n)
        some = arrays_of(batch)
        if not arrays:
            arrays = {key: np.empty((n, *one.shape[1:]), one.dtype) for key, one in some.items()}
        refuse_others(arrays, some, at)
        for key, array in some.items():
            arrays[key][at : at + len(batch)] = array
        at += len(batch)
    if at != n:
        raise Misuse(f"the training data ended after {at} samples, but has a length of {n}")
    return arrays


def refuse_others(
    first: Mapping[str, NDArray[Any]], some: Mapping[str, NDArray[Any]], at: int
) -> None:
    """Raises `Misuse` when a batch's samples differ from the first in shape or kind."""
    for key in {*first, *some}:
        name = "the labels" if key == LABELS else f"the input {key!r}"
        if key not in first or key not in some:
            raise Misuse(f"training samples from {at} on differ from the first: {name} is missing")
        expected, got = first[key], some[key]
        if got.shape[1:] != expected.shape[1:] or got.dtype != expected.dtype:
            raise Misuse(
                f"training needs samples of one shape: {name} is {expected.dtype}"
                f"{list(expected.shape[1:])} at first and {got.dtype}{list(got.shape[1:])} "
                f"from sample {at} on"
            )
