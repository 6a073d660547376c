# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on shapes, in Python integers, against ONNX Runtime's tensors."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from burnish.graph.lift.module import lift

_SMALL = st.sampled_from([-3, -2, -1, 1, 2, 3, 5])


def _graph(steps, sizes):
    """Returns a model that takes a shape through the steps, with every value an output."""
    nodes, constants, names = [helper.make_node("Shape", ["x"], ["v0"])], [], ["v0"]

    def constant(value):
        constants.append(numpy_helper.from_array(np.array(value, np.int64), f"c{len(constants)}"))
        return constants[-1].name

    for operator, number in steps:
        last, made = names[-1], f"v{len(names)}"
        if operator == "Slice":
            given = [last, *(constant([n]) for n in (0, 2 + abs(number), 0))]
            if number < 0:
                given = [last, *(constant([n]) for n in (-1, -99, 0, -1))]
            nodes.append(helper.make_node("Slice", given, [made]))
        elif operator == "Concat":
            nodes.append(helper.make_node("Concat", [last, constant([number])], [made], axis=0))
        elif operator == "Gather":
            nodes.append(helper.make_node("Gather", [last, constant([0, -1])], [made]))
        elif operator == "Scalar":
            nodes.append(helper.make_node("Gather", [last, constant(0)], [made + "s"]))
            nodes.append(helper.make_node("Unsqueeze", [made + "s", constant([0])], [made]))
        elif operator == "Where":
            nodes.append(helper.make_node("Equal", [last, constant(number)], [made + "e"]))
            inputs = [made + "e", constant(7), last]
            nodes.append(helper.make_node("Where", inputs, [made]))
        elif operator == "ReduceProd":
            nodes.append(helper.make_node("ReduceProd", [last], [made], keepdims=1))
        else:
            nodes.append(helper.make_node(operator, [last, constant(number)], [made]))
        names.append(made)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * len(sizes))],
        [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in names],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Slice", "Concat", "Gather",
                 "Scalar", "Where", "ReduceProd"]
            ),
            _SMALL,
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
)  # fmt: skip
def test_shapes_are_computed_as_onnx_runtime_does_and_stay_integers(steps, sizes):
    model = _graph(steps, sizes)
    x = np.zeros(sizes, np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    expected = session.run(None, {"x": x})
    module = lift(ir.from_proto(model))
    made = module({"x": torch.from_numpy(x)})
    for one, theirs in zip(made.values(), expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), theirs)
    assert not any(step.hosts for step in module._program.steps)  # no tensor on the way
