# SPDX-License-Identifier: Apache-2.0
"""Recovers smaller forms by distillation, and int8 forms by quantization-aware training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from burnish.core.errors import BurnishError, Unsupported
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.task import Samples
from burnish.core.technique import Technique
from burnish.optimizing.allotted import Allotted
from burnish.optimizing.entries import Entry
from burnish.optimizing.forms import Form, quantizing
from burnish.optimizing.pace import Lesson, distillation, pace
from burnish.optimizing.planner import Family, ways
from burnish.optimizing.screening import faithful
from burnish.optimizing.search import Search
from burnish.techniques.quantize.aware import QuantizeAware

_TRIAL_SHARE = 0.1  # of the time, for each form's first lesson
_FAR_RATIO = 4.0  # a form's error untaught, against the least, from which it gets no lesson


@dataclass(frozen=True)
class Taught:
    """A form before it was taught, and afterwards."""

    before: Form
    after: Form


def taught(
    search: Search,
    fp32: Entry,
    forms: Sequence[Form],
    time: Allotted,
    samples: Samples,
) -> Taught | None:
    """Returns the form that learns best, distilled and quantized; None, noted, without time.

    Where several are left that are not far behind another, each is taught for a tenth of the
    time, and the one whose int8 outputs are nearest to those of `fp32` for the rest; where
    that took all of it, the first lesson is what it learns. When the time is spent, no further
    way to quantize is tried.
    """
    forms = _near(search, fp32, forms)
    if len(forms) == 1:
        before = after = forms[0]
    else:
        seconds = _TRIAL_SHARE * time.seconds_for("first lessons")
        tried = _trials(search, fp32, forms, seconds, samples)
        if not tried:
            return None
        _, before, after = tried[0]
    lesson = _distillation(search, after, time.seconds_for("distillation"), samples)
    if lesson is None:
        return Taught(before, after) if after is not before else None
    steps = (*after.steps, lesson)
    fuse, static = quantizing(after.entry)
    name = f"{after.name} distilled int8"
    recipes = [(f"{name} {way}", Recipe((*steps, *fuse, step))) for way, step in ways(static)]
    family = Family(name, tuple(recipes))
    best = faithful(
        search,
        fp32,
        [(family, replace(after.entry, name=name))],
        is_late=lambda: time.left_s <= 0,
    )
    return Taught(before, Form(after.name, steps, best[0])) if best else None


def _near(search: Search, fp32: Entry, forms: Sequence[Form]) -> list[Form]:
    """Returns the forms that are not far behind another before any lesson."""
    if len(forms) == 1:
        return list(forms)
    measured: list[tuple[float, Form]] = []
    for form in forms:
        try:
            measured.append((search.bench.fidelity(form.entry, fp32)[0], form))
        except Unsupported as failure:
            search.drop(f"{form.name} distilled int8", str(failure))
    least = min((error for error, _ in measured), default=0.0)
    for error, form in measured:
        if error > _FAR_RATIO * least:
            search.drop(
                f"{form.name} distilled int8",
                "another is nearer to the original before it is taught: relative squared error "
                f"{least:.2g} against {error:.2g}",
            )
    return [form for error, form in measured if error <= _FAR_RATIO * least]


def _trials(
    search: Search, fp32: Entry, forms: Sequence[Form], seconds: float, samples: Samples
) -> list[tuple[float, Form, Form]]:
    """Returns (error, form, form after a first lesson), the least error first."""
    tried: list[tuple[float, Form, Form]] = []
    for form in forms:
        lesson = _distillation(search, form, seconds, samples)
        if lesson is None:
            continue
        steps = (*form.steps, lesson)
        fuse, static = quantizing(form.entry)
        name = f"{form.name} begun int8"
        entry = _entry(search, form, name, Recipe((*steps, *fuse, static)))
        if entry is None:
            continue
        try:
            error, _ = search.bench.fidelity(entry, fp32)
        except Unsupported as failure:
            search.drop(name, str(failure))
            continue
        tried.append((error, form, Form(form.name, steps, entry)))
    tried.sort(key=lambda one: one[0])
    for error, form, _ in tried[1:]:
        search.drop(
            f"{form.name} distilled int8",
            f"{tried[0][1].name} learned more in as much time: relative squared error "
            f"{tried[0][0]:.2g} against {error:.2g}",
        )
    return tried


def aware(search: Search, form: Form, seconds: float, samples: Samples) -> Entry | None:
    """Returns the form after quantization-aware training; None, noted, without time for it."""
    fuse, static = quantizing(form.entry)
    name = f"{form.name} aware int8".strip()
    fused = search.build(name, Recipe((*form.steps, *fuse)))
    if fused is None:
        return None
    augment = distillation(search.bench.original).augment
    untimed = QuantizeAware.after(static, augment=augment)
    lesson = _as_long(search, name, fused.model, untimed, seconds, samples)
    if lesson is None:
        return None
    return _entry(search, form, name, Recipe((*form.steps, *fuse, lesson)))


def _distillation(search: Search, form: Form, seconds: float, samples: Samples) -> Technique | None:
    """Returns the distillation that the seconds allow; None, noted, when they allow none."""
    float_form = search.build(form.name, Recipe(form.steps))
    if float_form is None:
        return None
    untimed = distillation(search.bench.original)
    name = f"{form.name} distilled int8"
    return _as_long(search, name, float_form.model, untimed, seconds, samples)


def _as_long(
    search: Search, name: str, model: Model, lesson: Lesson, seconds: float, samples: Samples
) -> Technique | None:
    """Returns the lesson made as long as the seconds allow at the pace of this model."""
    try:
        timed = pace(search.bench, model, lesson)
    except BurnishError as error:  # what cannot be trained must not cost what int8 gave
        search.drop(name, str(error))
        return None
    made = timed.afford(seconds, samples)
    if made is None:
        search.drop(
            name,
            f"it takes {timed.least_s:.0f} s of training at the least, and the budget of "
            f"{search.budget.total_s:.0f} s leaves {max(seconds, 0):.0f} s: give a larger budget",
        )
    return made


def _entry(search: Search, form: Form, name: str, recipe: Recipe) -> Entry | None:
    outcome = search.build(name, recipe)
    if outcome is None:
        return None
    return replace(form.entry, name=name, model=outcome.model, recipe=recipe, outcome=outcome)
