# SPDX-License-Identifier: Apache-2.0
"""A cut network computes what the dense one does when nothing reads the channels that went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_builder import Network
from onnx import TensorProto, helper
from random_networks import finish, random_network

from burnish.core.model import Model
from burnish.graph.channels import ChannelGroup, channel_groups, cut, zero

onnxruntime.set_default_logger_severity(3)


def run(graph: ir.Model | Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    model = graph if isinstance(graph, Model) else Model(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(inputs))


def random_inputs(model: Model, rng: np.random.Generator) -> dict[str, np.ndarray]:
    inputs = {}
    for one in model.signature.inputs:
        shape = [size if isinstance(size, int) else 3 for size in one.shape]
        whole = rng.integers(0, 20, shape) if one.dtype == "int64" else rng.normal(size=shape)
        inputs[one.name] = whole.astype(one.dtype)
    return inputs


def random_keep(groups: Sequence[ChannelGroup], rng: np.random.Generator) -> dict[str, list[int]]:
    """Some of the channels of most groups, in order."""
    keep = {}
    for group in groups:
        if group.locked is None and rng.random() < 0.8:
            count = int(rng.integers(1, group.size + 1))
            keep[group.name] = sorted(rng.choice(group.size, count, replace=False).tolist())
    return keep


def check_equal(model: Model, seed: int) -> tuple[ChannelGroup, ...]:
    """Cuts at random and compares with zeroing; returns the groups."""
    rng = np.random.default_rng(seed)
    groups = channel_groups(model)
    keep = random_keep(groups, rng)
    small, dense = cut(model.edit(), keep), zero(model.edit(), keep)
    inputs = random_inputs(model, rng)
    for got, expected in zip(run(small, inputs), run(dense, inputs), strict=True):
        assert got.shape == expected.shape
        assert np.isfinite(expected).all()
        limit = 1e-5 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got, expected, rtol=0, atol=limit)
    weights = small.graph.initializers
    for group in groups:  # what is cut is gone, what is kept is there
        for one in group.slices:
            if one.initializer in weights and one.axis == 0 and group.name in keep:
                size = weights[one.initializer].shape[0]
                assert size >= sum(len(one.positions[c]) for c in keep[group.name])
    return groups


@given(seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 15))
@settings(max_examples=15, deadline=None)
def test_cutting_equals_zeroing(seed: int, n_steps: int) -> None:
    check_equal(finish(random_network(seed, n_steps)), seed)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_cutting_equals_zeroing_in_many(seed: int, n_steps: int) -> None:
    check_equal(finish(random_network(seed, n_steps)), seed)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_what_was_cut_can_be_cut_again(seed: int, n_steps: int) -> None:
    model = finish(random_network(seed, n_steps))
    keep = random_keep(channel_groups(model), np.random.default_rng(seed))
    check_equal(Model(cut(model, keep)), seed)


# Operators through which channels cannot be followed; each takes and gives one shape.


def _plant(n: Network, x: str, kind: str) -> str:
    shape = n.shapes[x]
    if kind == "CumSum":
        return n.one(kind, [x, n.constant(np.int64(1))], shape)
    if kind == "TopK":
        y, places = n.node(kind, [x, n.ints(shape[0])], shape, shape, axis=1)
        n.hide(places)
        return y
    if kind == "Einsum":
        letters = "abcd"[: len(shape) + 1]
        return n.one(kind, [x, x], shape, equation=f"{letters},{letters}->{letters}")
    if kind == "ReverseSequence":
        lengths = n.constant(np.full(3, shape[0], np.int64))
        return n.one(kind, [x, lengths], shape, batch_axis=0, time_axis=1)
    if kind == "ScatterND":
        places = n.constant(np.asarray([[0, 0]], np.int64))
        updates = n.weight(1, *shape[1:])
        return n.one(kind, [x, places, updates], shape)
    if kind == "QuickGelu":
        return n.one(kind, [x], shape, domain="com.microsoft")
    if kind == "If":
        inner = [
            helper.make_graph(
                [helper.make_node(operator, [x], [f"{x}_{operator}"], f"inner_{operator}")],
                operator,
                [],
                [helper.make_tensor_value_info(f"{x}_{operator}", TensorProto.FLOAT, None)],
            )
            for operator in ("Relu", "Neg")
        ]
        condition = n.constant(np.asarray(True))
        n.unread.pop(x, None)  # the bodies read it, as an Identity in its place would
        return n.one(kind, [condition], shape, then_branch=inner[0], else_branch=inner[1])
    raise ValueError(kind)


PLANTED = ("CumSum", "TopK", "Einsum", "ReverseSequence", "ScatterND", "QuickGelu", "If")


def planted_pair(seed: int) -> tuple[Model, Model, str, str]:
    """The same network with an Identity and with an unknown operator; its kind and name."""
    kind = PLANTED[seed % len(PLANTED)]
    models, names = [], []
    for unknown in (False, True):
        n = random_network(seed, 6)
        rng = np.random.default_rng(seed + 1)
        fits = [one for one, shape in n.shapes.items() if one != "image" and shape[0] > 1]
        x = fits[rng.integers(len(fits))]
        y = _plant(n, x, kind) if unknown else n.one("Identity", [x], n.shapes[x])
        names.append(n.nodes[-1].name)
        tail = n.one("Neg", [y], n.shapes[y])
        n.unread[tail] = None
        n.rng = np.random.default_rng(seed + 2)
        models.append(finish(n))
    return models[0], models[1], kind, names[1]


@pytest.mark.parametrize("count", [14, pytest.param(100, marks=pytest.mark.slow)])
def test_unknown_operators_lock_what_reaches_them(count: int) -> None:
    locked_by: Counter[str] = Counter()
    for seed in range(count):
        plain, planted, kind, name = planted_pair(seed)
        groups = check_equal(planted, seed)
        # A channel is known by the weights it has: what was free and is not, names the node.
        free = {one for group in groups if group.locked is None for one in _places(group)}
        locked = {one: group.locked for group in groups if group.locked for one in _places(group)}
        for group in channel_groups(plain):
            if group.locked is not None:
                continue
            for one in _places(group, "producer"):
                if one not in free:
                    assert name in str(locked[one]), (seed, one)
                    assert kind in str(locked[one]), (seed, one)
                    locked_by[kind] += 1
    assert count < 100 or all(locked_by[kind] >= 10 for kind in PLANTED), locked_by
    assert sum(locked_by.values()) >= count / 2


def _places(group: ChannelGroup, role: str | None = None) -> set[tuple[str, int, int]]:
    return {
        (one.initializer, one.axis, place)
        for one in group.slices
        if role in (None, one.role)
        for places in one.positions
        for place in places
    }
