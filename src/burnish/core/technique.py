# SPDX-License-Identifier: Apache-2.0
"""The contract of everything that changes a model.

A Technique is a frozen dataclass whose fields are its only configuration. `apply` is
final: it checks what the technique requires, transforms a model that is never changed
in place, then checks what the technique promises.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from burnish.core import catalogue
from burnish.core.errors import Broken, Misuse, unknown
from burnish.core.progress import Progress, silent

if TYPE_CHECKING:
    from burnish.core.model import Model
    from burnish.core.store import Store
    from burnish.core.task import Task


@dataclass(frozen=True)
class Skipped:
    """A place that a technique passed over (a node, a layer, an engine), and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What applying a technique gave: the new model, what was done, what was not."""

    model: Model
    applied: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a technique may use besides its own fields.

    `task` gives data; `store` keeps costly intermediate results (None keeps nothing);
    `seed` is the only source of randomness. `original` is the model that all began with:
    what a damaged model learns from (a recipe puts its own first model there).
    """

    task: Task | None = None
    store: Store | None = None
    seed: int = 0
    progress: Progress = field(default=silent, compare=False)
    original: Model | None = None

    def need_task(self, technique: str) -> Task:
        """Returns the task, or raises `Misuse` saying which technique needs one."""
        if self.task is None:
            raise Misuse(f"{technique} needs data: pass a Task (on the command line, --task)")
        return self.task

    def folder(self, kind: str, key: str, make: Callable[[Path], None]) -> Path | None:
        """Returns the stored folder for `key`, made by `make` when absent; None without a store."""
        return None if self.store is None else self.store.folder(kind, key, make)


@dataclass(frozen=True)
class Technique(ABC):
    """One way to change a model; subclasses are frozen dataclasses.

    A subclass gives `name` (its entry point's name) and `transform`; it may override
    `requires` and `ensures`.
    """

    name: ClassVar[str]

    @abstractmethod
    def transform(self, model: Model, context: Context) -> Outcome:
        """Returns the changed model; `model` itself must stay as it is."""

    def requires(self, model: Model, context: Context) -> None:
        """Raises `Misuse` or `Unsupported` when the technique cannot take this model."""

    def ensures(self, before: Model, outcome: Outcome) -> None:
        """Raises `Broken` when the result breaks the technique's promise."""

    @final
    def apply(self, model: Model, context: Context | None = None) -> Outcome:
        """Returns the outcome of `transform`, guarded at both ends.

        The signature (input and output names, shapes, dtypes) never changes.
        Raises what `requires` raises, and `Broken` when a promise does not hold.
        """
        context = context or Context()
        self.requires(model, context)
        outcome = self.transform(model, context)
        if outcome.model.signature != model.signature:
            raise Broken(
                f"{self.name} changed the model's signature from {model.signature} "
                f"to {outcome.model.signature}"
            )
        self.ensures(model, outcome)
        return outcome

    @final
    def to_dict(self) -> dict[str, Any]:
        """Returns plain data: the technique's name and the fields that are not default."""
        data: dict[str, Any] = {"technique": self.name}
        for one in fields(self):
            value = getattr(self, one.name)
            default = one.default_factory() if one.default_factory is not MISSING else one.default
            if value != default:
                data[one.name] = _plain(value)
        return data

    @final
    def key(self) -> str:
        """Returns a digest of the technique and all its fields, for caching."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        data = self.to_dict()
        inside = ", ".join(f"{k}={v}" for k, v in data.items() if k != "technique")
        return f"{data['technique']}({inside})" if inside else str(data["technique"])


def technique_from_dict(data: dict[str, Any]) -> Technique:
    """Returns the technique that `to_dict` wrote.

    Raises `Misuse` for an unknown technique or field, with the nearest name.
    """
    if "technique" not in data:
        raise Misuse(f"a recipe's step needs the key 'technique', got {sorted(data)}")
    cls: type[Technique] = catalogue.find("techniques", str(data["technique"]))
    known = {one.name for one in fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in data.items():
        if key == "technique":
            continue
        if key not in known:
            raise unknown(f"field of {data['technique']}", key, known)
        arguments[key] = _typed(value)
    return cls(**arguments)


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_typed(item) for item in value)
    return technique_from_dict(value) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Technique):
        return value.to_dict()
    return value
