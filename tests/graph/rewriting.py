# SPDX-License-Identifier: Apache-2.0
"""Small networks that are rewritten, and what may be said of the outcome."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from small_models import make

from burnish.core.model import Model
from burnish.graph.canonical import infer_types, name_all
from burnish.graph.rewrite import rewrite
from burnish.graph.rules import rules

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def node(operator: str, inputs: str, output: str, **attributes):
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, output.split(), f"{operator}_{output}", **attributes)


def network(nodes, shape, constants=None, element=FLOAT, out=None, outputs=("y",)) -> Model:
    """Returns a model from x to y with types and shapes inferred."""
    arrays = {name: np.asarray(array) for name, array in (constants or {}).items()}
    given = [("x", element, shape)]
    results = [(name, element, [None] * (out or len(shape))) for name in outputs]
    graph = make(nodes, given, results, arrays).edit()
    for output in graph.graph.outputs:
        output.shape = None  # what is declared would stay
    infer_types(graph, "the test's model")
    return Model(graph)


def rewritten(model: Model, form: str = "sums") -> tuple[Model, list[str], list[tuple[str, str]]]:
    graph = model.edit()
    done, passed = rewrite(graph.graph, rules(form))
    name_all(graph)
    infer_types(graph, "the rewritten model")
    return Model(graph), done, passed


def operators(model: Model) -> list[str]:
    return [one.op_type for one in model.edit().graph]


def run(model: Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})


def same(model: Model, expected: list[str], shape=(3, 4, 6, 5), form: str = "sums", scale=3.0):
    """Asserts that the rewritten model has these operators and computes the same."""
    new, done, passed = rewritten(model, form)
    assert operators(new) == expected
    assert new.signature == model.signature
    x = (scale * np.random.default_rng(5).normal(size=shape)).astype(
        model.signature.inputs[0].dtype
    )
    for one, other in zip(run(model, x), run(new, x), strict=True):
        assert other.shape == one.shape
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    return done, passed


def kept(model: Model, reason: str, form: str = "sums") -> None:
    """Asserts that nothing is rewritten, and that the near match says why."""
    new, done, passed = rewritten(model, form)
    assert operators(new) == operators(model)
    assert not done
    assert [why for _, why in passed if reason in why], passed


def untouched(model: Model) -> None:
    new, done, passed = rewritten(model)
    assert (operators(new), done, passed) == (operators(model), [], [])
