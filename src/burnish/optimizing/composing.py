# SPDX-License-Identifier: Apache-2.0
"""Composes pruning, recovery and int8, for goals that static int8 alone does not meet.

1. Smaller structures are cut, quantized without any training, and raced: what a network
   takes depends on its structure alone. Of each kind the gentlest that is fast and small
   enough goes on.
2. Those that are far behind another untaught are left out. Where several are left, each is
   distilled for a tenth of the time; the one whose int8 form is nearest to the original goes
   on.
3. It is distilled from the original, without labels, for most of the time left, and
   quantized in several ways, of which the most faithful is kept.
4. Where its metric is still too low, quantization-aware training has the rest of the time.

Where only the metric is too low, and nothing need be cut, it is step 4 alone. How long each
lasts is decided once, from the pace that was measured, and remembered: the same command,
started again after a kill, asks for the same steps, and each is resumed in the store.
"""

from __future__ import annotations

from dataclasses import dataclass

from burnish.core.candidate import Candidate
from burnish.core.errors import Missing
from burnish.core.task import Samples
from burnish.core.technique import Technique
from burnish.measuring.accuracy import compare
from burnish.optimizing.allotted import Allotted
from burnish.optimizing.choose import closeness
from burnish.optimizing.entries import Entry
from burnish.optimizing.finals import Finals
from burnish.optimizing.forms import Form, pruned
from burnish.optimizing.search import Search
from burnish.optimizing.structures import Shortfall, shortfall
from burnish.optimizing.teaching import aware, taught
from burnish.techniques.quantize.static import QuantizeStatic
from burnish.techniques.train.trained import need_torch

_AWARE_SHARE = 0.2  # of the time, kept for quantization-aware training
_CUTTING_SHARE = 0.3  # of the time, after which no further structure is cut


@dataclass(frozen=True)
class Stage:
    """An int8 model on the way, and what was added to the one before it."""

    added: str
    entry: Entry


def compose(search: Search, fp32: Entry, found: Finals) -> list[Stage]:
    """Returns the stages from the int8 model that falls short to the trained ones.

    Empty when nothing that could be trained would help, which is noted with its reason.
    """
    rows = [row for row in found.rows if isinstance(_last(row[0]), QuantizeStatic)]
    if not rows:
        search.drop("training", "it starts from an int8 model, and none is left")
        return []

    def distance(row: tuple[Entry, Candidate]) -> tuple[int, int, float, int]:
        return closeness(row[1], found.fp32, search.goal)

    lead, measured = min(rows, key=distance)
    short = shortfall(measured, found.fp32, search.goal)
    if short == Shortfall():
        return []  # only the metric's interval is too wide: more samples would tell
    samples = _samples(search)
    if samples is None:
        return []
    stages = [Stage("quantization", lead)]
    time = Allotted(search, lead.key, found.again_s)
    last = Form("", (), lead)
    if short.structural:
        seconds = time.seconds_for("structures")
        if seconds <= 0:
            spent = f"the budget of {search.budget.total_s:.0f} s leaves none to cut and train"
            search.drop("training", f"{spent}: give a larger budget")
            return []
        forms = pruned(search, fp32, found.fp32, lead, short, _CUTTING_SHARE * seconds)
        if not forms:
            return []
        aware_s = _AWARE_SHARE * time.seconds_for("training")
        done = taught(search, fp32, forms, time.keeping(aware_s), samples)
        if done is None:
            return []
        stages.append(Stage("pruning", done.before.entry))
        stages.append(Stage("distillation", done.after.entry))
        last = done.after
        if not _too_low(search, fp32, last.entry):
            return stages
    trained = aware(search, last, time.seconds_for("quantization-aware training"), samples)
    if trained is not None:
        stages.append(Stage("quantization-aware training", trained))
    return stages if len(stages) > 1 else []


def _last(entry: Entry) -> Technique | None:
    steps = entry.recipe.steps()
    return steps[-1] if steps else None


def _samples(search: Search) -> Samples | None:
    """Returns what is trained on; None, with the reason noted, when training cannot be."""
    task = search.bench.task
    if task is None or task.training is None:
        reason = "the task has no training data: add a [training] table (labels are not needed)"
        search.drop("training", reason)
        return None
    try:
        need_torch("training")
    except Missing as error:
        search.drop("training", str(error))
        return None
    return task.training


def _too_low(search: Search, fp32: Entry, entry: Entry) -> bool:
    """Returns whether the entry's metric falls by more than the goal allows."""
    task = search.bench.task
    if task is None or task.validation is None or task.metric is None:
        return False
    base = search.bench.judge(fp32)
    limit = search.goal.drop_limit(base.value.value)
    if limit is None:
        return False
    own = search.bench.judge(entry)
    return compare(base, own, task.judge()).drop.value > limit
