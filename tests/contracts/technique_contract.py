# SPDX-License-Identifier: Apache-2.0
"""What every technique promises. Inherit it, give `technique`, and pytest holds yours to it:

class TestMine(TechniqueContract):
    @pytest.fixture
    def technique(self):
        return Mine()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from small_models import convolutional, quantized, random_inputs, two_inputs

from burnish.core import catalogue
from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.technique import Context, Outcome, Technique, technique_from_dict
from burnish.engines.onnxruntime import OnnxRuntime


class TechniqueContract:
    """The contract; a technique that needs data overrides `context`, one that takes fewer
    models overrides `models`."""

    models: ClassVar[tuple[Callable[[], Model], ...]] = (convolutional, two_inputs, quantized)

    @pytest.fixture
    def technique(self) -> Technique:
        raise NotImplementedError("a subclass gives the technique")

    @pytest.fixture
    def context(self) -> Context:
        return Context(seed=7)

    @pytest.fixture
    def outcomes(self, technique: Technique, context: Context) -> list[tuple[Model, Outcome]]:
        models = [build() for build in self.models]
        return [(model, technique.apply(model, context)) for model in models]

    def test_is_in_the_catalogue(self, technique: Technique) -> None:
        assert catalogue.find("techniques", technique.name) is type(technique)

    def test_leaves_its_input_alone(self, technique: Technique, context: Context) -> None:
        for build in self.models:
            model = build()
            before, content = model.digest, model.to_bytes()
            technique.apply(model, context)
            # The digest is computed once, so a fresh Model of the same graph has to agree.
            assert Model(model.edit()).digest == before
            assert model.to_bytes() == content

    def test_same_seed_same_digest(
        self, technique: Technique, context: Context, outcomes: list[tuple[Model, Outcome]]
    ) -> None:
        for build, (_, outcome) in zip(self.models, outcomes, strict=True):
            again = technique.apply(build(), context)
            assert again.model.digest == outcome.model.digest
            assert again.model.to_bytes() == outcome.model.to_bytes()
            assert (again.applied, again.skipped) == (outcome.applied, outcome.skipped)

    def test_keeps_the_signature(self, outcomes: list[tuple[Model, Outcome]]) -> None:
        for model, outcome in outcomes:
            assert outcome.model.signature == model.signature

    def test_adds_itself_to_the_lineage(
        self, technique: Technique, outcomes: list[tuple[Model, Outcome]]
    ) -> None:
        for model, outcome in outcomes:
            *earlier, last = outcome.model.lineage.steps
            assert tuple(earlier) == model.lineage.steps
            assert last["technique"] == technique.name
            assert last["parent"] == model.digest

    def test_saved_and_loaded_it_is_the_same(
        self, outcomes: list[tuple[Model, Outcome]], tmp_path
    ) -> None:
        for position, (_, outcome) in enumerate(outcomes):
            path = outcome.model.save(tmp_path / f"{position}.onnx")
            assert path.stat().st_size == outcome.model.size_bytes
            loaded = Model.load(path)
            assert loaded.digest == outcome.model.digest
            assert loaded.signature == outcome.model.signature
            assert loaded.lineage == outcome.model.lineage

    def test_every_weight_is_used(self, outcomes: list[tuple[Model, Outcome]]) -> None:
        for _, outcome in outcomes:
            graph = outcome.model.edit().graph
            unused = [name for name, value in graph.initializers.items() if not value.uses()]
            assert not [name for name in unused if not graph.initializers[name].is_graph_output()]

    @pytest.mark.parametrize("batch", [1, 5])
    def test_the_result_runs(self, outcomes: list[tuple[Model, Outcome]], batch: int) -> None:
        for model, outcome in outcomes:
            with OnnxRuntime().open(outcome.model, Setting()) as session:
                got = session.run(random_inputs(model, batch))
            for spec in model.signature.outputs:
                assert got[spec.name].dtype == np.dtype(spec.dtype)
                assert got[spec.name].shape[0] == batch

    def test_says_what_it_did_and_why_not(self, outcomes: list[tuple[Model, Outcome]]) -> None:
        for _, outcome in outcomes:
            assert all(line.strip() for line in outcome.applied)
            for skipped in outcome.skipped:
                assert skipped.place.strip()
                assert skipped.reason.strip()

    def test_goes_to_toml_and_back(self, technique: Technique, tmp_path) -> None:
        path = tmp_path / "recipe.toml"
        path.write_text(Recipe((technique,)).to_toml(), encoding="utf-8")
        (back,) = Recipe.load(path).steps()
        assert back == technique
        assert back.key() == technique.key()

    def test_refuses_an_unknown_field(self, technique: Technique) -> None:
        with pytest.raises(Misuse, match="no_such_field"):
            technique_from_dict({"technique": technique.name, "no_such_field": 1})
