# SPDX-License-Identifier: Apache-2.0
"""Raw binary requests, rule by rule (Binary Tensor Data, "Raw Binary Request")."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.core.model import Signature, TensorSpec
from burnish.serving.oip.faults import Fault
from burnish.serving.oip.raw import decode_raw_request, is_raw

DATA = np.arange(6, dtype=np.float32).tobytes()


def model(*shape: int | str | None, dtype: str = "float32") -> Signature:
    return Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", dtype, shape),))


def test_header_of_zero() -> None:
    """The header is given, with the value 0."""
    assert is_raw("0")
    assert is_raw(b"0")
    assert not any(map(is_raw, (None, "", "1", b"10")))


@pytest.mark.parametrize(
    ("shape", "batched", "expected"),
    [
        ((2, 3), False, (2, 3)),
        (("N", 3), False, (2, 3)),
        (("N", 6), True, (1, 6)),
        (("N", None), True, (1, 6)),
        (("N", 2, "T"), True, (1, 2, 3)),
    ],
)
def test_shape_from_the_size(shape, batched, expected) -> None:
    """At most one dimension varies and is deduced; a model that batches gets a batch of 1."""
    request = decode_raw_request(DATA, model(*shape), batched)
    assert request.inputs[0].array.shape == expected
    assert request.inputs[0].array.tobytes() == DATA


def test_outputs_are_binary() -> None:
    """All outputs are returned as binary data."""
    assert decode_raw_request(DATA, model(6), False).wanted(("y",))[0].binary


def test_one_element_of_bytes() -> None:
    """BYTES has the shape [1]: the body is the element."""
    request = decode_raw_request(b"427", model(1, dtype="object"), False)
    assert request.inputs[0].array.tolist() == [b"427"]
    batch = decode_raw_request(b"", model("N", 1, dtype="object"), True)
    assert batch.inputs[0].array.tolist() == [[b""]]


@pytest.mark.parametrize(
    ("signature", "batched"),
    [
        (Signature((), ()), False),
        (Signature(model(6).inputs * 2, ()), False),
        (model("N", "T"), False),
        (model("N", 4), False),
        (model("N", 0), False),
        (model(5), False),
        (model("N", 3), True),
        (model(2, dtype="object"), False),
        (model(dtype="object"), False),
    ],
)
def test_what_leaves_a_choice_is_refused(signature: Signature, batched: bool) -> None:
    """One input, at most one dimension that varies, and a size that fits."""
    with pytest.raises(Fault):
        decode_raw_request(DATA, signature, batched)


def test_a_size_that_does_not_divide() -> None:
    """The message says what the size of the body has to be a multiple of."""
    with pytest.raises(Fault, match=r"input 'x': expected a multiple of 16 bytes.*got 24"):
        decode_raw_request(DATA, model("N", 4), False)
