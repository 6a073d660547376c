# SPDX-License-Identifier: Apache-2.0
"""What is measured: a model on an engine with a setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from burnish.core.candidate import Setting
from burnish.core.errors import BurnishError, Misuse
from burnish.core.model import Model
from burnish.core.recipe import Recipe
from burnish.core.technique import Outcome
from burnish.engines.engine import Engine, Session
from burnish.measuring.machine import machine


@dataclass(frozen=True)
class Entry:
    """A model on an engine with a setting, under a name for people."""

    name: str
    model: Model
    engine: Engine
    setting: Setting
    recipe: Recipe = field(default_factory=Recipe)
    outcome: Outcome | None = None
    rivals: tuple[Setting, ...] = ()
    """Other settings, which a brief race could not tell from this one."""

    @property
    def key(self) -> str:
        """What identifies the entry's measurements, the machine apart."""
        setting = f"{self.setting.threads}x{self.setting.streams}"
        return f"{self.model.digest[:32]} {self.engine.identity} {setting}"

    def open(self) -> Session:
        """Returns a new session. Raises `Unsupported`."""
        return self.engine.open(self.model, self.setting)

    def with_setting(self, setting: Setting) -> Entry:
        """Returns the entry with another setting."""
        return replace(self, setting=setting)

    def in_each_setting(self) -> list[Entry]:
        """Returns the entry and its rivals."""
        return [self, *(replace(self, setting=one, rivals=()) for one in self.rivals)]


def entries_of(
    name: str,
    model: Model,
    engines: Sequence[Engine],
    threads: Sequence[int],
    recipe: Recipe | None = None,
    outcome: Outcome | None = None,
) -> tuple[list[Entry], list[str]]:
    """Returns the model on each engine that runs it, for each number of threads.

    Also returns a sentence for each engine that does not run it.
    """
    entries: list[Entry] = []
    reasons: list[str] = []
    for engine in engines:
        entry = Entry(name, model, engine, Setting(), recipe or Recipe(), outcome)
        reason = opens(entry)
        if reason is None:
            entries += [entry.with_setting(Setting(number)) for number in threads]
        else:
            reasons.append(f"{engine.identity}: {reason}")
    return entries, reasons


def thread_counts(threads: int | None) -> list[int]:
    """Returns the numbers of threads to try for one request: the one asked for, or several.

    Raises `Misuse` for a number that is not between 1 and the machine's cores.
    """
    cores = machine().cores
    if threads is None:
        return sorted({1, max(cores // 2, 1), cores})
    if not 1 <= threads <= cores:
        raise Misuse(f"threads must be between 1 and this machine's {cores} cores, got {threads}")
    return [threads]


def opens(entry: Entry) -> str | None:
    """Returns None when the entry's engine runs its model, else why it does not."""
    refusals = entry.engine.refusals(entry.model)
    if refusals:
        return "; ".join(f"{one.place}: {one.reason}" for one in refusals)
    try:
        with entry.open():
            return None
    except BurnishError as error:
        return str(error)
