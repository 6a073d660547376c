# SPDX-License-Identifier: Apache-2.0
"""Rows land next to each other, are run where they lie, and are free when nobody holds them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from burnish.core.model import Signature, TensorSpec
from burnish.serving.landing import Landing
from burnish.serving.rows import Piece, Rows

WIDTH = 64 * 1024
ROW_BYTES = 4 * WIDTH
MOST = 32 * 2**20 // ROW_BYTES
"""Rows that the memory has."""


def rows(*inputs: TensorSpec) -> Rows:
    return Rows(Signature(inputs, (TensorSpec("y", "float32", ("batch", 2)),)))


def landing() -> Landing:
    return Landing(rows(TensorSpec("x", "float32", ("batch", WIDTH))))


def landed(one: Landing, n: int = 1, value: float = 0.0) -> NDArray[Any]:
    """Returns an array of `n` rows that lies in the memory, as a request's tensor does."""
    place = one.place(n * ROW_BYTES)
    assert place is not None
    array = np.frombuffer(place[:], np.float32).reshape(n, WIDTH)
    array[:] = value
    return array


def piece(array: NDArray[Any], batch_row: int, first_row: int = 0, n: int | None = None) -> Piece:
    return Piece({"x": array}, first_row, len(array) if n is None else n, batch_row)


def test_neighbours_are_run_where_they_lie() -> None:
    one = landing()
    first, second = landed(one, 1, 1.0), landed(one, 2, 2.0)
    spanned = one.span([piece(first, 0), piece(second, 1)])
    assert spanned is not None
    batch, placed = spanned
    assert batch.shape == (3, WIDTH)
    assert np.shares_memory(batch, first)
    assert np.shares_memory(batch, second)
    assert [one.batch_row for one in placed] == [0, 1]


def test_their_order_is_that_in_memory() -> None:
    one = landing()
    arrays = [landed(one, 1, value) for value in range(4)]
    spanned = one.span([piece(arrays[place], row) for row, place in enumerate((2, 0, 3, 1))])
    assert spanned is not None
    batch, placed = spanned
    assert batch[:, 0].tolist() == [0, 1, 2, 3]
    assert [each.batch_row for each in placed] == [2, 0, 3, 1]


def test_parts_of_a_request_are_where_they_are() -> None:
    one = landing()
    large, other = landed(one, 5), landed(one, 1)
    large[:] = np.arange(5, dtype=np.float32)[:, None]
    spanned = one.span([piece(large, 0, first_row=3, n=2), piece(other, 2)])
    assert spanned is not None
    assert spanned[0][:, 0].tolist() == [3, 4, 0]
    assert one.span([piece(large, 0, first_row=1, n=2), piece(other, 2)]) is None


def test_what_did_not_land_here_is_no_span() -> None:
    one, other = landing(), landing()
    mine = landed(one)
    assert one.span([piece(mine, 0), piece(np.zeros((1, WIDTH), np.float32), 1)]) is None
    assert one.span([piece(mine, 0), piece(landed(other), 1)]) is None
    assert other.span([piece(mine, 0)]) is None
    assert landing().span([piece(mine, 0)]) is None
    assert one.span([piece(mine[:, ::2], 0)]) is None
    assert one.span([piece(mine[:, : WIDTH // 2], 0)]) is None


def test_a_row_is_free_when_nothing_holds_a_view_of_it() -> None:
    one = landing()
    kept = landed(one, 1, 7.0)
    first = kept.__array_interface__["data"][0]
    for _ in range(3 * MOST):
        again = one.place(ROW_BYTES)
        if again is not None:  # the one that is held is not given out
            address = np.frombuffer(again, np.uint8).__array_interface__["data"][0]
            assert address != first
            again[:4] = b"\xff" * 4
    assert kept[0, 0] == 7.0
    view = kept[:, 5:6]
    del kept
    assert not _given_again(one, first)
    assert view[0, 0] == 7.0
    del view
    assert _given_again(one, first)


def _given_again(one: Landing, address: int) -> bool:
    for _ in range(2 * MOST):
        place = one.place(ROW_BYTES)
        if place is not None:
            found = np.frombuffer(place, np.uint8).__array_interface__["data"][0]
            if found == address:
                return True
    return False


def test_no_more_is_given_than_there_is() -> None:
    one = landing()
    held = [one.place(ROW_BYTES) for _ in range(MOST)]
    assert all(place is not None for place in held)
    assert one.place(ROW_BYTES) is None
    held.clear()
    assert one.place(ROW_BYTES) is not None


@pytest.mark.parametrize(
    "size", [0, -ROW_BYTES, 1, ROW_BYTES - 1, ROW_BYTES + 4, 2**40 * ROW_BYTES]
)
def test_only_whole_rows_and_not_too_many_have_a_place(size: int) -> None:
    assert landing().place(size) is None


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("x", "float32", (1, WIDTH)),),
        (TensorSpec("x", "float32", ("batch", "length")),),
        (TensorSpec("x", "float32", ("batch", None)),),
        (TensorSpec("x", "object", ("batch", 4)),),
        (TensorSpec("x", "float32", ("batch", 4)), TensorSpec("z", "float32", ("batch", 4))),
        (TensorSpec("x", "float32", ("batch", 0)),),
        (TensorSpec("x", "float32", ("batch", 2**40)),),
    ],
)
def test_other_models_have_none(inputs: tuple[TensorSpec, ...]) -> None:
    one = Landing(rows(*inputs))
    assert one.place(64) is None
    assert one.place(0) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_span_holds_what_gathering_would(data: st.DataObject) -> None:
    """Whatever came and went before, and in whatever order."""
    one, model = landing(), rows(TensorSpec("x", "float32", ("batch", WIDTH)))
    values = itertools.count(1)
    held: list[NDArray[Any]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        else:
            n = data.draw(st.integers(1, 3))
            if one.place(0) is None and (place := one.place(n * ROW_BYTES)) is not None:
                array = np.frombuffer(place, np.float32).reshape(n, WIDTH)
                array[:] = np.array([next(values) for _ in range(n)], np.float32)[:, None]
                held.append(array)
    if not held:
        return
    start = data.draw(st.integers(0, len(held) - 1))
    chosen = data.draw(st.permutations(held[start : start + data.draw(st.integers(1, 4))]))
    ends = list(itertools.accumulate(len(array) for array in chosen))
    pieces = [piece(array, end - len(array)) for array, end in zip(chosen, ends, strict=True)]
    gathered = model.gather(pieces, (), {})["x"]
    spanned = one.span(pieces)
    if spanned is None:
        addresses = sorted((each.__array_interface__["data"][0], len(each)) for each in chosen)
        assert any(
            low + n * ROW_BYTES != high for (low, n), (high, _) in itertools.pairwise(addresses)
        )
        return
    batch, placed = spanned
    assert len(batch) == len(gathered)
    for before, after in zip(pieces, placed, strict=True):
        there = batch[after.batch_row : after.batch_row + after.rows]
        here = gathered[before.batch_row : before.batch_row + before.rows]
        assert np.array_equal(there, here)
