# SPDX-License-Identifier: Apache-2.0
"""What channel groups say of small graphs, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_builder import Network
from onnx import TensorProto
from small_models import convolutional
from test_channels_random import check_equal

from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.graph.channels import channel_groups, cut, describe, zero
from burnish.graph.channels.atoms import Atoms
from burnish.graph.channels.rules.reshaping import common_factors


def by_name(model: Model) -> dict:
    return {group.name: group for group in channel_groups(model)}


def initializer(graph: ir.Model, name: str) -> np.ndarray:
    return graph.graph.initializers[name].const_value.numpy()


def test_a_residual_sum_ties_its_convolutions() -> None:
    groups = by_name(convolutional())
    assert list(groups) == ["conv1.input", "conv1", "head"]
    assert groups["conv1.input"].locked == "it is the model's input image"
    assert groups["head"].locked == "it is the model's output logits"
    tied = groups["conv1"]
    assert (tied.size, tied.locked) == (8, None)
    assert tied.producers == ("conv1", "conv2")
    assert tied.consumers == ("conv2", "head")
    assert [(one.initializer, one.axis, one.role) for one in tied.slices] == [
        ("w1", 0, "producer"),
        ("w2", 0, "producer"),
        ("w2", 1, "consumer"),
        ("w3", 1, "consumer"),
    ]
    assert tied.slices[0].positions == tuple((one,) for one in range(8))


def test_cut_and_zero_change_the_same_weights() -> None:
    model = convolutional()
    small, dense = cut(model, {"conv1": [0, 2, 7]}), zero(model, {"conv1": [0, 2, 7]})
    assert initializer(small, "w2").shape == (3, 3, 3, 3)
    assert initializer(dense, "w2").shape == (8, 8, 3, 3)
    gone = [1, 3, 4, 5, 6]
    assert not initializer(dense, "w2")[:, gone].any()
    assert not initializer(dense, "w3")[:, gone].any()
    np.testing.assert_array_equal(
        initializer(dense, "w1"), initializer(model.edit(), "w1")
    )  # what makes the channels stays
    assert Model(small).signature == model.signature
    assert initializer(model.edit(), "w2").shape == (8, 8, 3, 3)  # the model is as it was


def test_nothing_to_cut_gives_the_same_graph() -> None:
    model = convolutional()
    assert Model(cut(model, {})).digest == model.digest
    assert Model(cut(model, {"conv1": range(8)})).digest == model.digest
    assert Model(zero(model, {"conv1": range(8)})).digest == model.digest
    assert Model(cut(model, {"head": range(10)})).digest == model.digest  # locked, but whole


@pytest.mark.parametrize("change", [cut, zero])
def test_faults_are_said_at_once(change) -> None:
    keep = {"conv": [0], "conv1": [], "head": [0, 1]}
    with pytest.raises(Misuse) as caught:
        change(convolutional(), keep)
    text = str(caught.value)
    assert "did you mean 'conv1'?" in text
    assert "'conv1' must keep at least one of its 8 channels" in text
    assert "'head' must stay whole: it is the model's output logits" in text
    with pytest.raises(Misuse, match=r"has the channels 0 to 7, and is to keep \[8\]"):
        change(convolutional(), {"conv1": [0, 8]})
    with pytest.raises(Misuse, match="twice"):
        change(convolutional(), {"conv1": [0, 0]})


def test_description_says_what_goes_together_and_what_stays() -> None:
    assert describe(channel_groups(convolutional())) == (
        "conv1.input: 3 channels stay: it is the model's input image\n"
        "conv1: 8 channels, each cut together in\n"
        "    w1 axis 0: producer of Conv conv1\n"
        "    w2 axis 0: producer of Conv conv2\n"
        "    w2 axis 1: consumer of Conv conv2\n"
        "    w3 axis 1: consumer of Gemm head\n"
        "head: 10 channels stay: it is the model's output logits"
    )


def chain(build, seed: int = 0) -> Model:
    """Returns image → Conv (8 channels) → what `build` makes of it → mean → Gemm."""
    n = Network(seed)
    x = n.input("image", TensorProto.FLOAT, (3, 8, 8))
    x = n.one("Conv", [x, n.weight(8, 3, 1, 1)], (8, 8, 8))
    y = build(n, x)
    y = n.one("GlobalAveragePool", [y], (n.shapes[y][0], 1, 1))
    y = n.one("Flatten", [y], (n.shapes[y][0],))
    return n.model([n.one("Gemm", [y, n.weight(n.shapes[y][0], 3)], (3,))])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda n, x: n.one("Softmax", [x], (8, 8, 8), axis=1), "Softmax_1 normalizes over it"),
        (lambda n, x: n.one("LRN", [x], (8, 8, 8), size=3), "LRN_1 mixes neighbouring channels"),
        (
            lambda n, x: n.one("CumSum", [x, n.constant(np.int64(1))], (8, 8, 8)),
            "CumSum CumSum_1 is an operator through which channels cannot be followed",
        ),
        (
            lambda n, x: n.one(
                "Slice", [x, n.ints(0), n.ints(8), n.ints(1), n.ints(2)], (4, 8, 8)
            ),
            "Slice_1 takes a part of it",
        ),
        (
            lambda n, x: n.one(
                "Mul",
                [x, n.one("ReduceMean", [x, n.ints(1)], (1, 8, 8))],
                (8, 8, 8),
            ),
            "ReduceMean_1 reduces over it",
        ),
        (
            lambda n, x: n.one("Pad", [x, n.ints(0, 1, 0, 0, 0, 1, 0, 0)], (10, 8, 8),
                               mode="reflect"),
            "Pad_1 pads it",
        ),
    ],
)  # fmt: skip
def test_what_needs_all_channels_locks_them(build, reason: str) -> None:
    groups = by_name(chain(build))
    assert reason in str(groups["Conv_0"].locked)


def test_a_product_of_two_computed_tensors_keeps_what_it_sums_over() -> None:
    def build(n: Network, x: str) -> str:
        left = n.one("Reshape", [x, n.ints(0, 8, 64)], (8, 64))
        right = n.one("Transpose", [left], (64, 8), perm=[0, 2, 1])
        y = n.one("MatMul", [right, left], (64, 64))
        return n.one("Reshape", [y, n.ints(0, 1, 64, 64)], (1, 64, 64))

    group = by_name(chain(build))["Conv_0"]
    assert "MatMul_3 sums over it the products of two computed tensors" in str(group.locked)


def test_a_size_that_is_computed_with_stays() -> None:
    """A mean written as a sum divided by the number of channels would change with it."""

    def build(n: Network, x: str) -> str:
        size = n.one("Shape", [x], (), start=1, end=2)
        number = n.one("Cast", [size], (), to=TensorProto.FLOAT)
        y = n.one("Div", [x, number], (8, 8, 8))
        n.hide(size, number)
        return y

    group = by_name(chain(build))["Conv_0"]
    assert "computes with its size" in str(group.locked)
    assert "Div_3" in str(group.locked) or "Cast" in str(group.locked)


def test_a_size_that_is_only_written_again_follows() -> None:
    def build(n: Network, x: str) -> str:
        size = n.one("Shape", [x], ())
        y = n.one("Sigmoid", [x], (8, 8, 8))
        y = n.one("Reshape", [y, size], (8, 8, 8))
        n.hide(size)
        return y

    model = chain(build)
    assert by_name(model)["Conv_0"].locked is None
    assert cut(model, {"Conv_0": [1, 2]}).graph.initializers["w0"].shape == (2, 3, 1, 1)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms())
def test_common_factors_make_up_both_shapes(factors: list[int], random) -> None:
    def merged() -> list[int]:
        shape = [1]
        for one in factors:
            if random.random() < 0.5:
                shape.append(one)
            else:
                shape[-1] *= one
        return shape

    before, after = merged(), merged()
    found = common_factors(before, after)
    for shape, parts in ((before, found.before), (after, found.after)):
        assert [int(np.prod([size for size, _ in part])) for part in parts] == shape
    for place, factor in enumerate(found.common):
        assert (factor.size, place) in found.before[factor.before]
        assert (factor.size, place) in found.after[factor.after]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30), st.data())
def test_atoms_join_as_sets_do(pairs: list[tuple[int, int]], data) -> None:
    atoms = Atoms()
    ids = atoms.new(20)
    locked = data.draw(st.sets(st.integers(0, 19), max_size=3))
    before = data.draw(st.booleans())
    if before:
        atoms.lock(ids[sorted(locked)], "why")
    if pairs:
        one, other = (np.asarray(side) for side in zip(*pairs, strict=True))
        atoms.join(ids[one], ids[other])
    if not before:
        atoms.lock(ids[sorted(locked)], "why")
    sets = {number: {number} for number in range(20)}
    for one, other in pairs:
        union = sets[one] | sets[other]
        for member in union:
            sets[member] = union
    assert atoms.find(ids).tolist() == [min(sets[number]) for number in range(20)]
    assert atoms.locked(ids).tolist() == [bool(sets[number] & locked) for number in range(20)]


def test_a_size_given_to_a_reshape_that_is_not_followed_stays() -> None:
    """(8, 8, 8) to (8, 6, …) has no common factors after the second axis."""

    def build(n: Network, x: str) -> str:
        other = n.one("Conv", [x, n.weight(6, 8, 1, 1)], (6, 8, 8))
        size = n.one("Shape", [other], (), start=1, end=2)
        shape = n.one("Concat", [n.ints(-1), size, n.ints(8)], (), axis=0)
        y = n.one("Reshape", [n.one("Pad", [x, n.ints(0, 0, 0, 0, 0, 1, 0, 0)], (9, 8, 8)), shape],
                  (6, 8))  # fmt: skip
        n.hide(size, shape, y)
        mean = n.one("ReduceMean", [y, n.ints(0, 1, 2)], (), keepdims=0)
        n.hide(mean)
        return n.one("Mul", [x, mean], (8, 8, 8))

    groups = by_name(chain(build))
    assert "Reshape_5" in str(groups["Conv_0"].locked)
    assert groups["Conv_1"].locked is not None


EXACT = {
    "depth to space, depth first": (
        lambda n, x: n.one("DepthToSpace", [x], (2, 16, 16), blocksize=2, mode="DCR"),
        2,
    ),
    "depth to space, column first": (
        lambda n, x: n.one("DepthToSpace", [x], (2, 16, 16), blocksize=2, mode="CRD"),
        2,
    ),
    "space to depth": (lambda n, x: n.one("SpaceToDepth", [x], (32, 4, 4), blocksize=2), 8),
    "tile": (lambda n, x: n.one("Tile", [x, n.ints(1, 3, 1, 1)], (24, 8, 8)), 8),
    "two groups of four, by place": (
        lambda n, x: n.one("Conv", [x, n.weight(6, 4, 1, 1)], (6, 8, 8), group=2),
        4,
    ),
    "four groups of two, whole": (
        lambda n, x: n.one("Conv", [x, n.weight(12, 2, 1, 1)], (12, 8, 8), group=4),
        4,
    ),
    "depthwise, twice as many": (
        lambda n, x: n.one("Conv", [x, n.weight(16, 1, 1, 1), n.weight(16)], (16, 8, 8), group=8),
        8,
    ),
    "transposed, four groups of two": (
        lambda n, x: n.one("ConvTranspose", [x, n.weight(8, 3, 1, 1)], (12, 8, 8), group=4),
        4,
    ),
    "transposed, two groups of four": (
        lambda n, x: n.one("ConvTranspose", [x, n.weight(8, 3, 1, 1)], (6, 8, 8), group=2),
        4,
    ),
    "group normalization": (
        lambda n, x: n.one(
            "GroupNormalization", [x, n.weight(8), n.weight(8)], (8, 8, 8), num_groups=4
        ),
        4,
    ),
    "picked, some twice": (
        lambda n, x: n.one(
            "Gather", [x, n.constant(np.asarray([-1, 0, 3, 3, -7, 2, 5, 4, 6]))], (9, 8, 8), axis=1
        ),
        8,
    ),
    "a product with weights before": (
        lambda n, x: n.one("MatMul", [n.weight(5, 8), x], (8, 5, 8)),
        8,
    ),
    "interleaved": (
        lambda n, x: n.one(
            "Reshape",
            [
                n.one(
                    "Transpose",
                    [n.one("Reshape", [x, n.ints(0, 2, 4, 8, 8)], (2, 4, 8, 8))],
                    (4, 2, 8, 8),
                    perm=[0, 2, 1, 3, 4],
                ),
                n.ints(-1, 8, 8, 8),
            ],
            (8, 8, 8),
        ),
        2,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_rare_ways_to_move_channels_are_exact(name: str) -> None:
    build, size = EXACT[name]
    model = chain(build)
    group = by_name(model)["Conv_0"]
    assert (group.size, group.locked) == (size, None)
    for seed in range(4):
        check_equal(model, seed)
