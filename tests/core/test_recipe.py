# SPDX-License-Identifier: Apache-2.0
"""Techniques guard both ends, and recipes go to TOML and back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import convolutional

from burnish.core import catalogue
from burnish.core.errors import Broken, Misuse
from burnish.core.model import Lineage, Model
from burnish.core.recipe import Recipe
from burnish.core.store import Store
from burnish.core.technique import Context, Outcome, Skipped, Technique, technique_from_dict


@dataclass(frozen=True)
class Note(Technique):
    """Changes the lineage only."""

    text: str = "plain"
    count: int = 1
    share: float = 0.5
    deep: bool = False
    layers: tuple[str, ...] = ()
    name: ClassVar[str] = "note"

    def transform(self, model: Model, context: Context) -> Outcome:
        return Outcome(model.derive(model.edit(), self), (self.text,), (Skipped("conv", "a test"),))


@dataclass(frozen=True)
class Rename(Technique):
    """Breaks the promise that the signature stays."""

    name: ClassVar[str] = "rename"

    def transform(self, model: Model, context: Context) -> Outcome:
        graph = model.edit()
        graph.graph.inputs[0].name = "other"
        return Outcome(Model(graph))


@pytest.fixture(autouse=True, scope="module")
def registered() -> object:
    """Registers the test's technique beside the real ones."""
    real = catalogue.find

    def find(group: str, name: str) -> object:
        return Note if (group, name) == ("techniques", "note") else real(group, name)

    patch = pytest.MonkeyPatch()
    patch.setattr(catalogue, "find", find)
    yield
    patch.undo()


notes = st.builds(
    Note,
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    count=st.integers(-(2**60), 2**60),
    share=st.floats(allow_nan=False, allow_infinity=False),
    deep=st.booleans(),
    layers=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3).map(
        tuple
    ),
)


@given(st.lists(notes, max_size=4).map(tuple))
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, steps) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(Recipe(steps).to_toml(), encoding="utf-8", newline="")
    assert Recipe.load(path) == Recipe(steps)


def test_nested_recipes_are_written_flat_and_read_as_dicts(tmp_path: Path) -> None:
    nested = Recipe((Note("a"), Recipe((Note("b"), Recipe((Note("c"),))))))
    assert [step.text for step in nested.steps()] == ["a", "b", "c"]
    path = tmp_path / "recipe.toml"
    path.write_text(nested.to_toml())
    assert Recipe.load(path).steps() == nested.steps()
    assert technique_from_dict(nested.to_dict()) == nested


def test_recipe_of_a_real_technique(tmp_path: Path) -> None:
    fuse = catalogue.find("techniques", "fuse")()
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe((fuse, Note("é 😀 \x7f\n"))).to_toml())
    assert Recipe.load(path) == Recipe((fuse, Note("é 😀 \x7f\n")))


def test_applying_gathers_what_was_done_and_keeps_the_model() -> None:
    model = convolutional()
    before = model.to_bytes()
    outcome = Recipe((Note("a"), Note("b", count=2))).apply(model)
    assert outcome.applied == ("a", "b")
    assert len(outcome.skipped) == 2
    assert [step["technique"] for step in outcome.model.lineage.steps] == ["note", "note"]
    assert outcome.model.lineage.steps[1]["parent"] == model.digest
    assert model.to_bytes() == before
    assert model.lineage == Lineage()
    assert Recipe().apply(model).model is model


def test_a_changed_signature_is_our_fault() -> None:
    with pytest.raises(Broken, match="rename changed the model's signature"):
        Rename().apply(convolutional())


def test_key_follows_every_field() -> None:
    keys = {Note().key(), Note("a").key(), Note(count=2).key(), Note(layers=("a",)).key()}
    assert len(keys) == 4
    assert Note().key() == Note("plain", 1, 0.5).key()
    assert str(Note("a", deep=True)) == "note(text=a, deep=True)"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("step = 3", r"\[\[step\]\]"),
        ("[[steps]]\ntechnique = 'note'", "steps"),
        ("[[step]]\ntext = 'a'", "needs the key 'technique'"),
        ("[[step]]\ntechnique = 'note'\ntxt = 'a'", "did you mean 'text'"),
        ("[[step]]\ntechnique = 'fusee'", "did you mean 'fuse'"),
        ("[[step", "cannot read"),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(Misuse, match=word):
        Recipe.load(path)


def test_missing_file_and_bytes(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot read"):
        Recipe.load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Misuse, match="cannot read"):
        Recipe.load(tmp_path / "binary.toml")


def test_context(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="note needs data"):
        Context().need_task("note")
    assert Context().folder("kind", "key", lambda folder: None) is None
    made = Context(store=Store(tmp_path)).folder("kind", "key", lambda folder: None)
    assert made is not None
    assert os.path.isdir(made)


def test_catalogue() -> None:
    assert {"fuse", "quantize_static", "recipe"} <= set(catalogue.names("techniques"))
    with pytest.raises(Misuse, match="unknown engine 'onnxruntim': did you mean 'onnxruntime'"):
        catalogue.find("engines", "onnxruntim")
    with pytest.raises(Misuse, match=r"unknown importer 'zzz': Known: onnx, task, torch"):
        catalogue.find("importers", "zzz")
    with pytest.raises(Broken, match="installed"):
        catalogue.names("nothing")
