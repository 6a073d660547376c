# SPDX-License-Identifier: Apache-2.0
"""The shortcut that takes every second pixel and adds empty channels is one convolution."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import DOUBLE, kept, network, node, rewritten, same, untouched

IMAGE = ["batch", 4, 7, 5]
LAST = np.iinfo(np.int64).max


def shortcut(pads=(0, 2, 0, 0, 0, 3, 0, 0), steps=((2, 2), (3, 2)), image=IMAGE, **more):
    """Returns slices along axes, each given as (axis, step), then a Pad, then a sum."""
    constants = {"pads": np.array(pads), "zero": np.array([0]), "last": np.array([LAST])}
    constants |= more.pop("constants", {})
    nodes, before = [], "x"
    for position, (axis, step) in enumerate(steps):
        constants[f"axis{position}"] = np.array([axis])
        constants[f"step{position}"] = np.array([step])
        inputs = f"{before} zero last axis{position} step{position}"
        nodes.append(node("Slice", inputs, f"s{position}"))
        before = f"s{position}"
    nodes.append(node("Pad", f"{before} pads {more.pop('rest', '')}", "p", **more.pop("pad", {})))
    return network([*nodes, node("Relu", "p", "y")], image, constants, **more)


@pytest.mark.parametrize(
    "steps",
    [
        ((2, 2), (3, 2)),
        ((0, 1), (-2, 2), (-1, 2)),
        ((2, 2), (2, 2), (1, 1), (3, 3)),
        ((3, 4),),
    ],
)
def test_every_second_pixel_and_empty_channels_are_a_convolution(steps) -> None:
    same(shortcut(steps=steps), ["Conv", "Relu"], (3, 4, 7, 5))


def test_channels_go_before_or_behind_or_nowhere() -> None:
    same(shortcut((0, 0, 0, 0, 0, 4, 0, 0)), ["Conv", "Relu"], (3, 4, 7, 5))
    same(shortcut((0, 4, 0, 0, 0, 0, 0, 0)), ["Conv", "Relu"], (3, 4, 7, 5))
    same(
        shortcut((1, 2), rest="- a", constants={"a": np.array([1])}), ["Conv", "Relu"], (3, 4, 7, 5)
    )
    zero = {"v": np.float32(0)}
    same(shortcut(rest="v", constants=zero), ["Conv", "Relu"], (3, 4, 7, 5))


def test_sides_may_vary_and_a_sequence_has_one() -> None:
    same(shortcut(image=["batch", 4, "height", "width"]), ["Conv", "Relu"], (2, 4, 9, 6))
    sequence = shortcut((0, 2, 0, 0, 2, 0), ((2, 2),), ["batch", 4, 9])
    same(sequence, ["Conv", "Relu"], (2, 4, 9))


def test_slices_that_are_read_elsewhere_stay_for_that() -> None:
    nodes = [
        node("Slice", "x zero last axis step", "s"),
        node("Pad", "s pads", "p"),
        node("ReduceMax", "s", "m"),
        node("Add", "p m", "y"),
    ]
    constants = {
        "zero": np.array([0]),
        "last": np.array([LAST]),
        "axis": np.array([2]),
        "step": np.array([2]),
        "pads": np.array([0, 2, 0, 0, 0, 2, 0, 0]),
    }
    model = network(nodes, IMAGE, constants)
    same(model, ["Slice", "Conv", "ReduceMax", "Add"], (3, 4, 7, 5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (shortcut((0, 0, 1, 0, 0, 4, 0, 0)), "more than the channels"),
        (shortcut((1, 0, 0, 0, 0, 4, 0, 0)), "more than the channels"),
        (shortcut((0, -1, 0, 0, 0, 4, 0, 0)), "it crops"),
        (shortcut((0, 1, 0, 0, 0, 1, 0, 0), pad={"mode": "edge"}), "else than zeros"),
        (shortcut(rest="v", constants={"v": np.float32(1)}), "else than zeros"),
        (shortcut(image=["batch", 200, 7, 5]), "200 channels"),
    ],
)
def test_others_stay(model, reason: str) -> None:
    kept(model, reason)


@pytest.mark.parametrize(
    "model",
    [
        shortcut(steps=((1, 2), (2, 2)), pads=(0, 2, 0, 0, 0, 2, 0, 0)),
        shortcut(constants={"zero": np.array([1])}),
        shortcut(constants={"last": np.array([4])}),
        shortcut(constants={"last": np.array([-1])}),
        shortcut(element=DOUBLE),
    ],
)
def test_other_slices_stay(model) -> None:
    untouched(model)


def test_a_pad_alone_is_not_convolved() -> None:
    untouched(shortcut(steps=()))


def test_a_slice_that_takes_all_goes() -> None:
    constants = {"zero": np.array([0]), "last": np.array([LAST]), "axis": np.array([0])}
    nodes = [node("Slice", "x zero last axis", "s"), node("Relu", "s", "y")]
    same(network(nodes, IMAGE, constants), ["Relu"], (3, 4, 7, 5))


def test_what_was_done_is_told() -> None:
    _, done, _ = rewritten(shortcut())
    assert done == ["Pad Pad_p: to a convolution with ones"]
