# SPDX-License-Identifier: Apache-2.0
"""Which of the smaller forms are worth a lesson."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from burnish.core.errors import Unsupported
from burnish.optimizing import teaching
from burnish.optimizing.forms import Form
from burnish.optimizing.teaching import _near


class Search:
    """Measures forms as it was told to: an error of their outputs, or one that is raised."""

    def __init__(self, errors):
        self.errors, self.noted = errors, {}
        self.bench = self

    def fidelity(self, entry, reference):
        error = self.errors[entry]
        if isinstance(error, Exception):
            raise error
        return error, 1.0

    def drop(self, place, reason):
        self.noted[place] = reason


@pytest.mark.parametrize(
    ("errors", "near"),
    [
        ({"a": 0.01, "b": 0.04, "c": 0.05}, ["a", "b"]),
        ({"a": 9.0, "b": 0.5}, ["b"]),
        ({"a": float("inf"), "b": float("inf")}, ["a", "b"]),
        ({"a": 0.0, "b": 0.0, "c": 1e-9}, ["a", "b"]),
        ({"a": Unsupported("it takes batches of 1"), "b": 0.5}, ["b"]),
        ({"a": Unsupported("it takes batches of 1")}, ["a"]),  # alone, it is not compared
        ({"a": Unsupported("no"), "b": Unsupported("no")}, []),
    ],
)
def test_those_far_behind_get_no_lesson_and_it_is_said_why(errors, near):
    search = Search(errors)
    forms = [Form(name, (), name) for name in errors]
    assert [form.name for form in _near(search, SimpleNamespace(), forms)] == near
    assert set(search.noted) == {f"{name} distilled int8" for name in errors if name not in near}
    assert all(search.noted.values())


def test_where_the_first_lessons_took_all_the_time_what_they_taught_is_kept(monkeypatch):
    forms = [Form(name, (), name) for name in "ab"]
    begun = Form("b", (), "b begun")
    monkeypatch.setattr(teaching, "_trials", lambda *_: [(0.1, forms[1], begun)])
    monkeypatch.setattr(teaching, "_distillation", lambda *_: None)  # no time for a longer one
    time = SimpleNamespace(seconds_for=lambda stage: 0.0)
    search = Search({"a": 0.5, "b": 0.5})
    done = teaching.taught(search, SimpleNamespace(), forms, time, SimpleNamespace())
    assert done == teaching.Taught(forms[1], begun)
    alone = teaching.taught(search, SimpleNamespace(), forms[:1], time, SimpleNamespace())
    assert alone is None  # nothing was taught
