# SPDX-License-Identifier: Apache-2.0
"""Each rewrite computes what was there before, and a near match says why it stays."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from onnx import helper
from rewriting import DOUBLE, kept, network, node, operators, rewritten, same, untouched

from burnish.core.model import Model

IMAGE = ["batch", 4, 6, 5]

# Averages over the whole picture.


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, 2]])
def test_mean_over_the_picture_is_global_average_pool(axes: list[int]) -> None:
    mean = node("ReduceMean", "x a", "y", keepdims=1)
    same(network([mean], IMAGE, {"a": axes}), ["GlobalAveragePool"])
    mean = node("ReduceMean", "x a", "y", keepdims=0)
    flat = network([mean], IMAGE, {"a": axes}, out=2)
    same(flat, ["GlobalAveragePool", "Flatten"])


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 4, 5, 6)])
def test_mean_over_one_or_three_axes(shape: tuple[int, ...]) -> None:
    axes = list(range(2, len(shape)))
    model = network(
        [node("ReduceMean", "x a", "y", keepdims=0)], ["n", *shape[1:]], {"a": axes}, out=2
    )
    same(model, ["GlobalAveragePool", "Flatten"], shape)


@pytest.mark.parametrize("axes", [[1], [1, 2], [2], [1, 2, 3]])
def test_mean_over_other_axes_stays(axes: list[int]) -> None:
    untouched(network([node("ReduceMean", "x a", "y", keepdims=1)], IMAGE, {"a": axes}))


def test_mean_in_double_stays() -> None:
    model = network([node("ReduceMean", "x a", "y")], IMAGE, {"a": [2, 3]}, DOUBLE)
    kept(model, "engines pool float and float16, not DOUBLE")


def test_mean_and_variance_of_a_normalization_stay() -> None:
    model = network(
        [
            node("ReduceMean", "x a", "m"),
            node("Sub", "x m", "d"),
            node("Mul", "d d", "q"),
            node("ReduceMean", "q a", "v"),
            node("Add", "v d", "y"),
        ],
        ["batch", 4, 6],
        {"a": [-1]},
    )
    new, done, passed = rewritten(model)
    assert operators(new) == operators(model)
    assert not done
    assert [place for place, _ in passed] == ["ReduceMean ReduceMean_m", "ReduceMean ReduceMean_v"]


@pytest.mark.parametrize(
    ("operator", "second"),
    [("Reshape", [-1, 4]), ("Reshape", [0, -1]), ("Squeeze", [2, 3]), ("Reshape", [0, 4])],
)
def test_a_pool_made_flat_is_flatten(operator: str, second: list[int]) -> None:
    nodes = [node("GlobalAveragePool", "x", "p"), node(operator, "p s", "y")]
    model = network(nodes, IMAGE, {"s": second}, out=2)
    same(model, ["GlobalAveragePool", "Flatten"])


def test_a_pool_mixed_across_the_batch_stays() -> None:
    nodes = [node("GlobalAveragePool", "x", "p"), node("Reshape", "p s", "y")]
    kept(network(nodes, IMAGE, {"s": [-1, 2]}, out=2), "batch and channels apart")


# Padding before a convolution or a pool.


def padded(pads, pool=None, before=(), **more):
    """Returns zeros padded around a picture, then a 3 by 3 convolution or a pool."""
    last = pool or node("Conv", "p w", "y", pads=[1, 0, 0, 1], **more.pop("conv", {}))
    constants = {"pads": pads, "w": np.random.default_rng(0).normal(size=(2, 4, 3, 3))}
    constants["w"] = constants["w"].astype(np.float32)
    constants |= more.pop("constants", {})
    pad = more.pop("pad", {})
    start = "b" if before else "x"
    inputs = f"{start} pads {more.pop('rest', '')}"
    return network([*before, node("Pad", inputs, "p", **pad), last], IMAGE, constants, **more)


def test_a_convolution_takes_the_zeros_before_it() -> None:
    same(padded([0, 0, 0, 1, 0, 0, 2, 1]), ["Conv"])
    axes = {"a": [-1, 2]}
    same(padded([1, 0, 2, 1], rest="- a", constants=axes), ["Conv"])
    same(padded([0, 0, 0, 1, 0, 0, 2, 1], rest="v", constants={"v": np.float32(0)}), ["Conv"])
    strided = {"strides": [2, 2], "dilations": [1, 2]}
    same(padded([0, 0, 0, 1, 0, 0, 2, 1], conv=strided), ["Conv"])


def test_one_padding_for_two_convolutions() -> None:
    nodes = [
        node("Pad", "x pads", "p"),
        node("Conv", "p w", "c"),
        node("Conv", "p w", "d"),
        node("Add", "c d", "y"),
    ]
    weights = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    model = network(nodes, IMAGE, {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "w": weights})
    same(model, ["Conv", "Conv", "Add"])


@pytest.mark.parametrize(
    ("pads", "more", "reason"),
    [
        ([0, 0, -1, 0, 0, 0, 0, 0], {}, "it crops"),
        (
            [0, 1, 0, 0, 0, 0, 0, 0],
            {"constants": {"w": np.ones((2, 5, 3, 3), np.float32)}},
            "batch or the channels",
        ),
        ([1, 0, 0, 0, 0, 0, 0, 0], {}, "batch or the channels"),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"pad": {"mode": "reflect"}}, "by reflect"),
        (
            [0, 0, 1, 1, 0, 0, 1, 1],
            {"rest": "v", "constants": {"v": np.float32(1)}},
            "else than zeros",
        ),
    ],
)
def test_other_paddings_stay(pads, more, reason: str) -> None:
    kept(padded(pads, **more), reason)


def test_a_convolution_that_pads_by_its_output_stays() -> None:
    last = helper.make_node("Conv", ["p", "w"], ["y"], "conv", auto_pad="SAME_UPPER")
    kept(padded([0, 0, 1, 1, 0, 0, 1, 1], pool=last), "auto_pad")


MAX = helper.make_node("MaxPool", ["p"], ["y"], "pool", kernel_shape=[3, 3], strides=[2, 2])


@pytest.mark.parametrize("first", ["Relu", "Sigmoid"])
def test_a_max_pool_takes_zeros_after_what_is_never_negative(first: str) -> None:
    before = (node(first, "x", "b"),)
    same(padded([0, 0, 1, 1, 0, 0, 1, 1], MAX, before), [first, "MaxPool"])


def test_a_max_pool_takes_what_never_wins() -> None:
    lowest = {"v": np.float32(-np.inf)}
    same(padded([0, 0, 1, 1, 0, 0, 1, 1], MAX, rest="v", constants=lowest), ["MaxPool"])


def test_zeros_that_could_win_stay() -> None:
    kept(padded([0, 0, 1, 1, 0, 0, 1, 1], MAX), "could be the largest")
    clip = helper.make_node("Clip", ["x", "lo"], ["b"], "clip")
    low = {"lo": np.float32(-1)}
    kept(padded([0, 0, 1, 1, 0, 0, 1, 1], MAX, (clip,), constants=low), "could be the largest")


def test_other_pools_stay() -> None:
    before = (node("Relu", "x", "b"),)
    ceil = helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[3, 3], ceil_mode=1)
    kept(padded([0, 0, 1, 1, 0, 0, 1, 1], ceil, before), "ceil_mode")
    kept(padded([0, 0, 3, 0, 0, 0, 0, 0], MAX, before), "in the padding alone")


# Activations.


def test_clip_and_max_at_zero_are_relu() -> None:
    zero, infinite = {"lo": np.float32(0)}, {"hi": np.float32(np.inf)}
    same(network([node("Clip", "x lo", "y")], IMAGE, zero), ["Relu"])
    same(network([node("Clip", "x lo hi", "y")], IMAGE, zero | infinite), ["Relu"])
    same(network([node("Max", "x lo", "y")], IMAGE, zero), ["Relu"])
    same(network([node("Max", "lo x", "y")], IMAGE, zero), ["Relu"])


def joined(clamp: list, second: str = "c2") -> Model:
    """Returns a network in which the clamp follows the join of two convolutions."""
    rng = np.random.default_rng(3)
    weights = {k: rng.normal(size=(n, 4, 1, 1)).astype(np.float32) for k, n in (("w", 2), ("v", 3))}
    limits = {"low": np.float32(-0.5), "high": np.float32(2)}
    nodes = [
        node("Conv", "x w", "c1"),
        node("Conv", "x v", "c2"),
        node("Relu", "x", "r"),
        node("Concat", f"c1 {second}", "j", axis=1),
        node(*clamp),
    ]
    nodes = [one for one in nodes if one.output[0] != "r" or second == "r"]
    return network(nodes, ["n", 4, 6, 5], weights | limits)


@pytest.mark.parametrize("clamp", [("Relu", "j", "y"), ("Clip", "j low high", "y")])
def test_a_clamp_goes_before_the_join_of_convolutions(clamp) -> None:
    kind = clamp[0]
    same(joined(clamp), ["Conv", "Conv", kind, kind, "Concat"])


def test_a_clamp_stays_behind_the_join_of_others() -> None:
    same(joined(("Relu", "j", "y"), second="r"), ["Conv", "Relu", "Concat", "Relu"])


def test_other_clips_stay() -> None:
    low = {"lo": np.float32(0), "hi": np.float32(6), "one": np.float32(1)}
    untouched(network([node("Clip", "x lo hi", "y")], IMAGE, low))
    untouched(network([node("Clip", "x", "y")], IMAGE))
    untouched(network([node("Clip", "x - hi", "y")], IMAGE, low))
    untouched(network([node("Max", "x one", "y")], IMAGE, low))
    untouched(network([node("Clip", "x lo", "y")], IMAGE, {"lo": np.float64(0)}, DOUBLE))


NUMBERS = {
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "one": np.float32(1),
    "half": np.float32(0.5),
}
GATE = [node("Add", "x three", "a"), node("Clip", "a zero six", "c")]


@pytest.mark.parametrize(
    "last",
    [
        [node("Mul", "x c", "m"), node("Div", "m six", "y")],
        [node("Mul", "c x", "m"), node("Mul", "m sixth", "y")],
        [node("Mul", "sixth c", "m"), node("Mul", "x m", "y")],
        [node("Div", "c six", "m"), node("Mul", "m x", "y")],
    ],
)
def test_hard_swish_in_any_order(last) -> None:
    same(network([*GATE, *last], IMAGE, NUMBERS), ["HardSwish"])


def test_hard_sigmoid_in_any_form() -> None:
    same(network([*GATE, node("Div", "c six", "y")], IMAGE, NUMBERS), ["HardSigmoid"])
    same(network([*GATE, node("Mul", "c sixth", "y")], IMAGE, NUMBERS), ["HardSigmoid"])
    affine = [
        node("Mul", "x sixth", "a"),
        node("Add", "a half", "b"),
        node("Clip", "b zero one", "y"),
    ]
    same(network(affine, IMAGE, NUMBERS), ["HardSigmoid"])


def test_x_times_its_hard_sigmoid_is_hard_swish() -> None:
    gate = node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5)
    same(network([gate, node("Mul", "x h", "y")], IMAGE), ["HardSwish"])


def test_what_only_looks_like_hard_swish_stays() -> None:
    gate = node("HardSigmoid", "x", "h", alpha=0.2, beta=0.5)
    kept(network([gate, node("Mul", "x h", "y")], IMAGE), "slope and offset are 0.2 and 0.5")
    shared = [
        node("HardSigmoid", "x", "h", alpha=1 / 6, beta=0.5),
        node("Mul", "x h", "z"),
        node("Add", "z h", "y"),
    ]
    kept(network(shared, IMAGE), "used elsewhere too")
    untouched(network([node("Clip", "x zero six", "c"), node("Add", "c x", "y")], IMAGE, NUMBERS))
    silu = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]
    untouched(network(silu, IMAGE))


def test_a_clip_that_is_read_twice_stays() -> None:
    nodes = [*GATE, node("Div", "c six", "d"), node("Add", "c d", "y")]
    kept(network(nodes, IMAGE, NUMBERS), "the output of Clip Clip_c is used elsewhere too")


# Local response normalization.


def response(size=5, beta=0.75, before=None, view="Unsqueeze", middle=(), **pool):
    """Returns what PyTorch's exporter makes of it, for a picture of (batch, 4, 6, 5)."""
    before = size // 2 if before is None else before
    after = size - 1 - before
    reshape = view == "Reshape"
    rank = 5
    pads = [0, 0, before, 0, 0, 0, 0, after, 0, 0]
    constants = {
        "to": np.array([-1, 1, 4, 6, 5] if reshape else [1]),
        "back": np.array([-1, 4, 6, 5] if reshape else [1]),
        "pads": np.array(pads),
        "alpha": np.float32(0.3),
        "k": np.float32(1.5),
        "beta": np.float32(beta),
    }
    kernel = pool.pop("kernel_shape", [size, 1, 1])
    assert len(kernel) == rank - 2
    nodes = [
        node("Mul", "x x", "q"),
        node(view, "q to", "v"),
        node("Pad", "v pads", "p"),
        node("AveragePool", "p", "m", kernel_shape=kernel, **pool),
        node("Reshape" if reshape else "Squeeze", "m back", "s"),
        node("Mul", "s alpha", "w"),
        node("Add", "w k", "t"),
        node("Pow", "t beta", "d"),
        node("Div", "x d", "y"),
        *middle,
    ]
    outputs = ("y", "z") if middle else ("y",)
    return network(nodes, IMAGE, constants, outputs=outputs)


@pytest.mark.parametrize("view", ["Unsqueeze", "Reshape"])
@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_local_response_normalization_is_lrn(size: int, view: str) -> None:
    done, _ = same(response(size, view=view), ["LRN"], form="operator", scale=5)
    assert done == ["Div Div_y: local response normalization to LRN"]


@pytest.mark.parametrize(
    ("beta", "power"),
    [(0.75, ["Sqrt", "Sqrt", "Mul"]), (0.5, ["Sqrt"]), (1.0, []), (0.6, ["Pow"])],
)
@pytest.mark.parametrize("size", [3, 5])
def test_local_response_normalization_is_sums(size: int, beta: float, power: list[str]) -> None:
    expected = ["Mul", "Mul", "Pad", *["Slice"] * size, "Sum", *power, "Div"]
    same(response(size, beta), expected, scale=5)


def test_an_even_window_has_its_own_sides() -> None:
    # PyTorch's window of 4 has 2 channels before and 1 after, ONNX's 1 before and 2 after.
    sums = ["Mul", "Mul", "Pad", *["Slice"] * 4, "Sum", "Sqrt", "Sqrt", "Mul", "Div"]
    for before in (0, 1, 2, 3):
        same(response(4, before=before), sums, scale=5)
        kept(response(4, before=before), "LRN with an even window of 4 channels", "operator")


def test_what_only_looks_like_local_response_stays() -> None:
    kept(
        response(3, kernel_shape=[3, 3, 1], pads=[0, 1, 0, 0, 1, 0]),
        "pools over more than channels",
    )
    kept(response(3, middle=(node("Relu", "w", "z"),)), "a part of it is used elsewhere too")


# Views.


def test_transposes_are_composed_and_dropped() -> None:
    first = node("Transpose", "x", "t", perm=[0, 2, 3, 1])
    back = node("Transpose", "t", "u", perm=[0, 3, 1, 2])
    same(network([first, back, node("Relu", "u", "y")], IMAGE), ["Relu"])
    other = node("Transpose", "t", "u", perm=[1, 0, 2, 3])
    same(network([first, other, node("Relu", "u", "y")], IMAGE), ["Transpose", "Relu"])


def test_reshapes_are_composed_and_dropped() -> None:
    nodes = [node("Reshape", "x a", "r"), node("Reshape", "r b", "s"), node("Relu", "s", "y")]
    model = network(nodes, IMAGE, {"a": [-1, 4, 30], "b": [-1, 4, 6, 5]})
    same(model, ["Relu"])
    model = network(nodes, IMAGE, {"a": [-1, 4, 30], "b": [-1, 20, 6]}, out=3)
    same(model, ["Reshape", "Relu"])


def test_a_computed_shape_with_one_free_size_is_fixed() -> None:
    nodes = [
        node("Shape", "x", "s", start=0, end=1),
        node("Concat", "s rest", "to", axis=0),
        node("Reshape", "x to", "y"),
    ]
    model = network(nodes, IMAGE, {"rest": [120]}, out=2)
    same(model, ["Reshape"])


def test_a_computed_shape_with_two_free_sizes_stays() -> None:
    nodes = [
        node("Shape", "x", "s", start=0, end=2),
        node("Concat", "s rest", "to", axis=0),
        node("Reshape", "x to", "y"),
    ]
    model = network(nodes, ["batch", "length", 6, 5], {"rest": [30]}, out=3)
    kept(model, "2 of its sizes are known only when it runs")


def test_dropout_goes_unless_it_trains() -> None:
    same(network([node("Dropout", "x", "d"), node("Relu", "d", "y")], IMAGE), ["Relu"])
    constants = {"r": np.float32(0.5), "t": np.array(True)}
    nodes = [node("Dropout", "x r t", "d"), node("Relu", "d", "y")]
    kept(network(nodes, IMAGE, constants), "training mode")


# How rules are applied.


def test_names_stay_unique_and_the_output_keeps_its_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new, _, _ = rewritten(response(5))
    graph = new.edit().graph
    names = [value.name for one in graph for value in one.outputs] + list(graph.initializers)
    assert len(set(names)) == len(names)
    assert [value.name for value in graph.outputs] == ["y"]


def test_an_output_that_is_an_input_keeps_its_node() -> None:
    # Without the Transpose, the input itself would have to be named y.
    model = network([node("Transpose", "x", "y", perm=[0, 1, 2, 3])], IMAGE)
    new, _, _ = rewritten(model)
    assert operators(new) == ["Transpose"]
    assert new.signature == model.signature
