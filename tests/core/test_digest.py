# SPDX-License-Identifier: Apache-2.0
"""The digest sees what a graph computes and nothing else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from burnish.core.digest import graph_digest
from burnish.core.model import Model

UNARY = ("Relu", "Neg", "Abs", "Sigmoid")
BINARY = ("Add", "Mul", "Sub")


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Draws nodes as (operator, place of its inputs); 0 is x, 1 and 2 are weights."""
    nodes = []
    for place in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(UNARY + BINARY))
        nodes.append((kind, draw(st.integers(0, place + 2)), draw(st.integers(0, place + 2))))
    return nodes


def build(
    nodes: list[tuple[str, int, int]],
    order: list[int] | None = None,
    prefix: str = "",
    weight: float = 1.0,
    alpha: float = 0.1,
    input_name: str = "x",
    opset: int = 21,
    last: str = "LeakyRelu",
) -> ir.Model:
    """Returns the graph: all nodes, their values summed, then LeakyRelu (or `last`)."""
    float_type = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name=input_name, type=float_type, shape=ir.Shape(["n", 3]))
    arrays = (np.full(3, weight, np.float32), np.arange(3, dtype=np.float32))
    weights = [
        ir.Value(name=f"{prefix}w{i}", const_value=ir.tensor(array))
        for i, array in enumerate(arrays)
    ]
    values = [x, *weights]
    made = []
    for place, (kind, left, right) in enumerate(nodes):
        inputs = [values[left]] if kind in UNARY else [values[left], values[right]]
        made.append(ir.node(kind, inputs, name=f"{prefix}n{place}"))
        made[-1].outputs[0].name = f"{prefix}v{place}"
        values.append(made[-1].outputs[0])
    total = ir.node("Sum", values)
    attributes = {"alpha": alpha} if last == "LeakyRelu" else {}
    tail = ir.node(last, [total.outputs[0]], attributes)
    total.outputs[0].name, tail.outputs[0].name = f"{prefix}total", "y"
    tail.outputs[0].type, tail.outputs[0].shape = float_type, ir.Shape(["n", 3])
    ordered = [made[i] for i in order] if order else made
    graph = ir.Graph(
        [x], [tail.outputs[0]], nodes=[*ordered, total, tail], initializers=weights,
        opset_imports={"": opset},
    )  # fmt: skip
    graph.sort()
    return ir.Model(graph, ir_version=10)


@given(graphs(), st.data())
def test_order_and_names_do_not_matter(nodes, data) -> None:
    expected = graph_digest(build(nodes))
    order = data.draw(st.permutations(range(len(nodes))))
    prefix = data.draw(st.sampled_from(["", "other/", "é"]))
    assert graph_digest(build(nodes, order, prefix)) == expected


@given(graphs())
def test_saving_does_not_matter(nodes) -> None:
    model = Model(build(nodes))
    assert Model.load(model.to_bytes()).digest == model.digest


@given(graphs(), st.integers(0, 22))
def test_one_bit_of_a_weight_matters(nodes, bit: int) -> None:
    flipped = np.array([1.0], np.float32).view(np.uint32) ^ np.uint32(1 << bit)
    changed = build(nodes, weight=float(flipped.view(np.float32)[0]))
    assert graph_digest(changed) != graph_digest(build(nodes))


@pytest.mark.parametrize(
    "change", [{"alpha": 0.2}, {"input_name": "z"}, {"opset": 20}, {"last": "Tanh"}], ids=str
)
@given(nodes=graphs())
def test_meaning_matters(nodes, change: dict) -> None:
    assert graph_digest(build(nodes, **change)) != graph_digest(build(nodes))


@given(graphs(), st.data())
def test_each_operator_matters(nodes, data) -> None:
    place = data.draw(st.integers(0, len(nodes) - 1))
    kind, left, right = nodes[place]
    others = UNARY if kind in UNARY else BINARY
    other = others[(others.index(kind) + 1) % len(others)]
    changed = [*nodes[:place], (other, left, right), *nodes[place + 1 :]]
    assert graph_digest(build(changed)) != graph_digest(build(nodes))


def test_order_of_inputs_of_a_node_matters() -> None:
    assert graph_digest(build([("Sub", 0, 1)])) != graph_digest(build([("Sub", 1, 0)]))


def test_dead_nodes_and_notes_do_not_matter() -> None:
    graph = build([("Relu", 0, 0)])
    expected = graph_digest(graph)
    graph.graph.append(ir.node("Neg", [graph.graph.inputs[0]]))
    graph.doc_string = "a note"
    graph.metadata_props["key"] = "value"
    assert graph_digest(graph) == expected


def test_float_attributes_count_as_a_file_holds_them() -> None:
    """A float attribute is 64-bit in Python and 32-bit in a file."""
    assert graph_digest(build([("Relu", 0, 0)], alpha=0.1)) == graph_digest(
        build([("Relu", 0, 0)], alpha=float(np.float32(0.1)))
    )


def branches(then: str, other: str = "Relu(x)", names: str = "ab") -> ir.Model:
    one, two = names
    return ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        agraph (float[3] x, bool c) => (float[3] y) <float[3] w = {{1, 2, 3}}> {{
            h = Neg(x)
            y = If(c) <then_branch = t () => (float[3] {one}) {{ {one} = {then} }},
                       else_branch = e () => (float[3] {two}) {{ {two} = {other} }}>
        }}""")
    )


def test_branches_are_hashed_with_what_they_read_from_outside() -> None:
    digests = [
        graph_digest(branches(then)) for then in ("Relu(x)", "Neg(x)", "Relu(h)", "Add(x, w)")
    ]
    assert len(set(digests)) == len(digests)
    assert graph_digest(branches("Neg(x)", "Relu(x)")) != graph_digest(
        branches("Relu(x)", "Neg(x)")
    )
    assert graph_digest(branches("Neg(x)")) == graph_digest(branches("Neg(x)", names="pq"))


def loop(body: str, state: str = "s") -> ir.Model:
    return ir.from_proto(
        parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 21]>
        agraph (float[3] x, int64 n) => (float[3] y) {{
            y = Loop(n, , x) <body = b (int64 i, bool go, float[3] {state})
                => (bool more, float[3] next) {{ more = Identity(go) next = {body} }}>
        }}""")
    )


def test_loop_bodies_are_hashed() -> None:
    assert graph_digest(loop("Add(s, x)")) != graph_digest(loop("Add(s, s)"))
    assert graph_digest(loop("Sub(s, x)")) != graph_digest(loop("Sub(x, s)"))
    assert graph_digest(loop("Add(s, x)")) == graph_digest(loop("Add(t, x)", state="t"))


def test_a_very_deep_graph() -> None:
    nodes = [("Relu", 0, 0), *(("Neg", place + 3, 0) for place in range(20_000))]
    assert graph_digest(build(nodes)) != graph_digest(build(nodes[:-1]))
