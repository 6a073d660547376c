# SPDX-License-Identifier: Apache-2.0
"""The raw binary request: a body that is one tensor's data, and no JSON before it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from burnish.core.model import Signature, TensorSpec
from burnish.serving.oip.binary import read_binary
from burnish.serving.oip.datatypes import BYTES, datatype_of, element_bytes
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.framing import Buffer
from burnish.serving.oip.request import InferRequest
from burnish.serving.oip.tensors import Tensor


def is_raw(header_length: str | bytes | int | None) -> bool:
    """Says whether the header Inference-Header-Content-Length announces a raw request: it is 0."""
    return header_length in ("0", b"0", 0)


def decode_raw_request(body: Buffer, signature: Signature, batched: bool) -> InferRequest:
    """Returns the request whose one input is `body`; its outputs are all asked for as binary.

    batched: whether the first dimension is the batch; it is 1 then. Of the others one may
    vary, and is found from the size of the body. A BYTES input has one element, the body
    itself. Raises `Fault` for models and sizes that leave a choice.
    """
    if len(signature.inputs) != 1:
        raise Fault(f"a raw request is for models with 1 input, got {len(signature.inputs)}")
    (spec,) = signature.inputs
    where = f"input {spec.name!r}"
    datatype = datatype_of(spec.dtype, where)
    shape = _shape(spec, datatype, batched, len(body))
    if datatype == BYTES:
        array = np.empty(shape, object)
        array.ravel()[0] = bytes(body)
    else:
        array = read_binary(memoryview(body), datatype, shape, where)
    return InferRequest((Tensor(spec.name, array, binary=True),), binary_outputs=True)


@lru_cache(256)
def _shape(spec: TensorSpec, datatype: str, batched: bool, n_bytes: int) -> tuple[int, ...]:
    """Returns the shape that a body of so many bytes has."""
    where = f"input {spec.name!r}"
    sizes = [size if isinstance(size, int) else None for size in spec.shape]
    if batched and sizes:
        sizes[0] = 1
    if datatype == BYTES:
        if not sizes or any(size not in (1, None) for size in sizes):
            raise Fault(f"{where}: a raw request has 1 element of BYTES, the model has {spec}")
        return (1,) * len(sizes)
    if sizes.count(None) > 1:
        raise Fault(
            f"{where}: a raw request is for at most 1 dimension that varies, the model has {spec}"
        )
    if None in sizes:
        step = math.prod(size for size in sizes if size is not None) * element_bytes(datatype)
        if not step or n_bytes % step:
            raise Fault(f"{where}: expected a multiple of {step} bytes for {spec}, got {n_bytes}")
        sizes[sizes.index(None)] = n_bytes // step
    return tuple(size or 0 for size in sizes)
