# SPDX-License-Identifier: Apache-2.0
"""QuantizeStatic refuses what it cannot take, and goes to a file and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from quantizable_models import context, convolutional_classifier
from small_models import quantized, two_inputs

from burnish.core.errors import Misuse, Unsupported
from burnish.core.recipe import Recipe
from burnish.core.task import Task
from burnish.core.technique import Context
from burnish.data.samples import ArraySamples
from burnish.techniques.quantize.static import QuantizeStatic


def test_the_recipe_is_plain_text(tmp_path) -> None:
    step = QuantizeStatic("percentile", 99.5, "s8", 7, "gptq", False, False, 20, ("conv 1", "é"))
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe((step,)).to_toml(), encoding="utf-8")
    assert Recipe.load(path).steps() == (step,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ranges": "mean"}, "range method"),
        ({"ranges": 3}, "range method"),
        ({"activations": "u7"}, "activation type 'u7'"),
        ({"rounding": "up"}, "rounding"),
        ({"weight_bits": 1}, "weight_bits"),
        ({"weight_bits": "8"}, "weight_bits='8'"),
        ({"percentile": 3.0}, "percentile"),
        ({"percentile": float("nan")}, "percentile"),
        ({"percentile": "high"}, "percentile='high'"),
        ({"samples": -1}, "samples"),
        ({"samples": 2.5}, "samples=2.5"),
        ({"per_channel": "no", "correct_bias": 3}, "per_channel='no', correct_bias=3"),
        ({"keep_float": "conv1"}, "keep_float='conv1'"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        QuantizeStatic(**fields)


def test_refuses_what_it_cannot_take() -> None:
    model = convolutional_classifier()
    step, ready = QuantizeStatic(), context(model)
    with pytest.raises(Misuse, match="needs data"):
        step.apply(model)
    with pytest.raises(Misuse, match="no calibration data"):
        step.apply(model, Context(Task("empty")))
    with pytest.raises(Misuse, match="did you mean 'c2'"):
        replace(step, keep_float=("c22",)).apply(model, ready)
    with pytest.raises(Misuse, match="quantized already"):
        step.apply(step.apply(model, ready).model, ready)
    image = {"image": np.zeros((2, 3, 8, 8), np.float32)}
    with pytest.raises(Misuse, match="quantized already: it holds QuantizeLinear q_in"):
        step.apply(quantized(), Context(Task("t", ArraySamples(image))))
    with pytest.raises(Misuse, match="missing input x"):
        step.apply(model, Context(Task("t", ArraySamples(image))))
    ids = {"ids": np.zeros((2, 5), np.int64), "mask": np.ones((2, 5), bool)}
    with pytest.raises(Unsupported, match="nothing to quantize"):
        step.apply(two_inputs(), Context(Task("t", ArraySamples(ids))))
