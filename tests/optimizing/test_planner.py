# SPDX-License-Identifier: Apache-2.0
"""What is proposed for a task and a machine."""

from __future__ import annotations

from dataclasses import replace

import digits_net
import pytest

from burnish.core.recipe import Recipe
from burnish.measuring.machine import machine
from burnish.optimizing.planner import given, propose
from burnish.techniques.fuse import Fuse
from burnish.techniques.quantize.static import QuantizeStatic


def on(*instruction_sets):
    found = replace(machine(), instruction_sets=instruction_sets)
    return found


def quantizers(families):
    return [
        step
        for family in families
        for _, recipe in family.recipes
        for step in recipe.steps()
        if isinstance(step, QuantizeStatic)
    ]


@pytest.mark.parametrize(
    ("sets", "bits"), [(("avx2", "avx512_vnni"), 8), (("avx2",), 7), (("avx2", "avx512f"), 7)]
)
def test_weight_bits_follow_the_dot_product(sets, bits):
    here = on(*sets)
    assert here.int8_dot == (bits == 8)
    families, passed = propose(digits_net.task(), here, [Fuse()])
    steps = quantizers(families)
    assert steps
    assert {step.weight_bits for step in steps} == {bits}
    assert {step.activations for step in steps} == {"u8", "s8"}
    assert any("saturate" in one.reason for one in passed) == (bits == 7)


def test_a_family_holds_one_structure_and_its_recipes_are_all_different():
    families, _ = propose(digits_net.task(), machine(), [Fuse(), Fuse(local_response="operator")])
    names = [name for family in families for name, _ in family.recipes]
    recipes = [recipe.key() for family in families for _, recipe in family.recipes]
    assert len(set(recipes)) == len(recipes)
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert len({name for name, _ in family.recipes}) == len(family.recipes)
        kinds = {(one.activations, one.weight_bits) for one in quantizers([family])}
        assert len(kinds) <= 1
    assert any("operator" in name for name in names)
    assert families[0].recipes[0][1] == Recipe((Fuse(),))


@pytest.mark.parametrize("task", [None, replace(digits_net.task(), calibration=None)])
def test_without_calibration_data_nothing_is_quantized_and_it_says_so(task):
    families, passed = propose(task, machine(), [Fuse()])
    assert not quantizers(families)
    assert [one.place for one in passed] == ["quantize_static"]
    assert "calibration" in passed[0].reason


def test_recipes_that_are_given_are_taken_as_they_are():
    recipe = Recipe((Fuse(), QuantizeStatic(ranges="entropy")))
    (family,) = given([recipe])
    assert family.recipes == ((str(recipe), recipe),)
    assert "entropy" in family.name
