# SPDX-License-Identifier: Apache-2.0
"""An ordered list of techniques: plain data that goes to TOML and back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from burnish.core.errors import Misuse
from burnish.core.technique import Context, Outcome, Technique, technique_from_dict

if TYPE_CHECKING:
    from burnish.core.model import Model


@dataclass(frozen=True)
class Recipe(Technique):
    """Techniques applied one after another; itself a technique, so recipes nest.

    >>> Recipe().apply  # the empty recipe is the baseline's  # doctest: +ELLIPSIS
    <bound method Technique.apply of Recipe(techniques=())>
    """

    techniques: tuple[Technique, ...] = ()
    name: ClassVar[str] = "recipe"

    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the last model, with everything that was applied and skipped on the way."""
        outcome = Outcome(model)
        context = replace(context, original=context.original or model)
        for technique in self.techniques:
            step = technique.apply(outcome.model, context)
            outcome = Outcome(
                step.model, outcome.applied + step.applied, outcome.skipped + step.skipped
            )
        return outcome

    def steps(self) -> tuple[Technique, ...]:
        """Returns the techniques in order, those of nested recipes in their places."""
        found: list[Technique] = []
        for technique in self.techniques:
            found.extend(technique.steps() if isinstance(technique, Recipe) else [technique])
        return tuple(found)

    def to_toml(self) -> str:
        """Returns the recipe as TOML: one `[[step]]` table for each technique."""
        tables = []
        for technique in self.steps():
            lines = [f"{key} = {_toml(value)}" for key, value in technique.to_dict().items()]
            tables.append("[[step]]\n" + "\n".join(lines) + "\n")
        return "\n".join(tables)

    @staticmethod
    def from_steps(steps: Sequence[dict[str, Any]]) -> Recipe:
        """Returns the recipe of these steps, each as `Technique.to_dict` writes it."""
        return Recipe(tuple(technique_from_dict(step) for step in steps))

    @staticmethod
    def load(path: str | Path) -> Recipe:
        """Returns the recipe in a TOML file. Raises `Misuse` when it is not one."""
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise Misuse(f"cannot read the recipe {path}: {error}") from error
        if set(data) - {"step"} or not isinstance(data.get("step", []), list):
            raise Misuse(f"{path}: a recipe holds [[step]] tables only, got {sorted(data)}")
        return Recipe.from_steps(data.get("step", []))

    def __str__(self) -> str:
        return " → ".join(str(technique) for technique in self.techniques) or "as given"


def _toml(value: Any) -> str:
    """Returns plain data as TOML, whose strings are JSON's but for two kinds of characters."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
