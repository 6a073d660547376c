# SPDX-License-Identifier: Apache-2.0
"""Requests made from metadata: read back by the protocol's own decoder."""

from __future__ import annotations

import numpy as np
import pytest
from load_stub import METADATA, Stub, serving

from burnish.core.errors import Misuse
from burnish.serving.load.address import Address, address, post
from burnish.serving.load.ask import asked_payload, only_model
from burnish.serving.load.payload import Sizes, given_payload, random_payload
from burnish.serving.oip.datatypes import DATATYPES
from burnish.serving.oip.request import decode_request


def document(*inputs):
    listed = [{"name": n, "datatype": d, "shape": s} for n, d, s in inputs]
    return {"name": "m", "inputs": listed}


def decoded(payload):
    wire = payload.wire(Address("h", 1))
    head, body = wire.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert int(headers["Content-Length"]) == len(body)
    return lines[0], decode_request(body, headers["Inference-Header-Content-Length"])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype(datatype):
    payload = random_payload(document(("x", datatype, [-1, 3])), Sizes(rows=4))
    line, request = decoded(payload)
    assert line == "POST /v2/models/m/infer HTTP/1.1"
    (tensor,) = request.inputs
    assert (tensor.datatype, tensor.shape, tensor.binary) == (datatype, (4, 3), True)
    assert request.binary_outputs
    if datatype.startswith(("FP", "BF")):
        values = tensor.array.astype(np.float64)
        assert np.all((values >= 0) & (values <= 1))
        assert len(np.unique(values)) > 1


def test_sizes_of_dimensions_that_vary():
    said = document(("ids", "INT64", [-1, -1]), ("image", "FP32", [-1, 3, -1, -1]))
    sizes = Sizes(2, {("ids", 1): 7, ("image", None): 8, ("image", 3): 9})
    payload = random_payload(said, sizes)
    shapes = {one.name: one.shape for one in decoded(payload)[1].inputs}
    assert shapes == {"ids": (2, 7), "image": (2, 3, 8, 9)}
    assert payload.rows == 2
    whole = Sizes(shapes={"ids": (1, 5), "image": (3, 3, 4, 4)})
    payload = random_payload(said, whole)
    assert payload.rows is None  # the inputs differ


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (Sizes(), r"dimension 1 of the shape \[-1, -1\] varies: .*--axis ids:1=128"),
        (Sizes(axes={("other", None): 3}), "no input 'other': it has ids"),
        (Sizes(axes={("ids", 2): 3}), "dimension 2 does not vary"),
        (Sizes(shapes={"ids": (1, 2, 3)}), "the model takes the shape"),
        (Sizes(axes={("ids", 1): 10**12}), "at most 1,073,741,824 bytes"),
    ],
)
def test_sizes_that_do_not_fit(sizes, said):
    with pytest.raises(Misuse, match=said):
        random_payload(document(("ids", "INT64", [-1, -1])), sizes)


def test_the_seed_is_the_only_randomness():
    said = document(("x", "FP32", [-1, 8]), ("s", "BYTES", [2]))
    first, same, other = (
        random_payload(said, seed=seed).wire(Address("h", 1)) for seed in (1, 1, 2)
    )
    assert first == same != other


def test_a_body_that_is_given():
    payload = given_payload("a b", b'{"inputs": []}', None)
    wire = payload.wire(Address("h", 1, "/p"), {"Authorization": "Bearer x"})
    assert wire.startswith(b"POST /p/v2/models/a%20b/infer HTTP/1.1\r\nHost: h:1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in wire
    assert b"\r\nAuthorization: Bearer x\r\n" in wire
    with pytest.raises(Misuse, match="expected 0 to 2"):
        given_payload("m", b"{}", 3)


@pytest.mark.parametrize(
    "url", ["ftp://h", "http://", "http://h:x", "http://h?q", "http://u@h", "h\n:1"]
)
def test_what_is_no_url(url):
    with pytest.raises(Misuse, match="URL"):
        address(url)


def test_headers_stay_on_one_line():
    for name, value in (("A", "b\r\nC: d"), ("A: b", "c"), ("", "c"), ("A", "€")):
        with pytest.raises(Misuse, match="header"):
            post(Address("h", 1), "/", {name: value}, [])


def test_the_server_is_asked():
    with serving(Stub()) as stub:
        payload = asked_payload(stub.url, sizes=Sizes(rows=3))
        assert payload.model == "m"
        assert decoded(payload)[1].inputs[0].shape == (3, METADATA["inputs"][0]["shape"][1])
        with pytest.raises(Misuse, match="404: no such model"):
            asked_payload(stub.url, "other")
        stub.models = ["a", "b"]
        with pytest.raises(Misuse, match=r"--model NAME: .* has a, b"):
            only_model(stub.url)
    with pytest.raises(Misuse, match="is the server running"):
        only_model(stub.url)
