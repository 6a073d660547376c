# SPDX-License-Identifier: Apache-2.0
"""One table of a task file, read key by key, with every fault gathered and none raised.

>>> faults = []
>>> table = Table({"limit": "many", "skp": 3}, "t.toml [validation]", faults)
>>> table.whole("limit"), table.whole("skip")
(None, None)
>>> table.finish()
>>> print("; ".join(faults))
t.toml [validation]: limit must be a whole number of at least 0, got 'many'; \
t.toml [validation]: unknown key 'skp': did you mean 'skip'? Known: limit, skip
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse, unknown
from burnish.core.settings import settings


class Table:
    """The values of one table; a wrong one is noted in `faults` and read as None.

    `where` names the file and table in every message. `folder` is what relative paths
    start from.
    """

    def __init__(
        self, data: Mapping[str, Any], where: str, faults: list[str], folder: Path | None = None
    ) -> None:
        self.data = data
        self.where = where
        self.faults = faults
        self.folder = folder or Path()
        self._asked: set[str] = set()

    def fault(self, message: str) -> None:
        """Notes a fault of this table."""
        self.faults.append(f"{self.where}: {message}")

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def value(self, key: str) -> Any:
        """Returns the value as it is, or None when absent."""
        self._asked.add(key)
        return self.data.get(key)

    def _wrong(self, key: str, expected: str) -> None:
        self.fault(f"{key} must be {expected}, got {self.data[key]!r}")

    def need(self, key: str, hint: str) -> bool:
        """Returns whether the key is there, and notes a fault when it is not."""
        self._asked.add(key)
        if key not in self.data:
            self.fault(f"the key {key!r} is missing: {hint}")
        return key in self.data

    def text(self, key: str, one_of: Iterable[str] | None = None) -> str | None:
        """Returns a text, which must be one of `one_of` when that is given."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            self._wrong(key, "a text")
            return None
        if one_of is not None and value not in one_of:
            self.fault(str(unknown(key, value, one_of)))
            return None
        return value

    def whole(self, key: str, least: int = 0) -> int | None:
        """Returns a whole number of at least `least`."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._wrong(key, f"a whole number of at least {least}")
            return None
        return value

    def number(self, key: str) -> float | None:
        """Returns a finite number."""
        value = self.value(key)
        if value is None:
            return None
        if not _is_number(value):
            self._wrong(key, "a number")
            return None
        return float(value)

    def flag(self, key: str) -> bool | None:
        """Returns true or false."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self._wrong(key, "true or false")
            return None
        return value

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Returns finite numbers: a list of them, or one."""
        value = self.value(key)
        if value is None:
            return None
        items = value if isinstance(value, list | tuple) else [value]
        if not items or not all(_is_number(item) for item in items):
            self._wrong(key, "a number or a list of numbers")
            return None
        return tuple(float(item) for item in items)

    def wholes(self, key: str, least: int = 0, count: int | None = None) -> tuple[int, ...] | None:
        """Returns a list of whole numbers of at least `least`, `count` of them when given."""
        value = self.value(key)
        if value is None:
            return None
        fine = isinstance(value, list | tuple) and all(
            isinstance(item, int) and not isinstance(item, bool) and item >= least for item in value
        )
        if not fine or not value or (count is not None and len(value) != count):
            many = "" if count is None else f"{count} "
            self._wrong(key, f"a list of {many}whole numbers of at least {least}")
            return None
        return tuple(value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Returns a list of different texts."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            self._wrong(key, "a list of texts")
            return None
        if not value or len(set(value)) != len(value):
            self._wrong(key, "a list of different texts")
            return None
        return tuple(value)

    def path(self, key: str) -> Path | None:
        """Returns a path that exists, taken from the file's folder; see `expand`."""
        value = self.text(key)
        return None if value is None else self.expand(key, value)

    def expand(self, key: str, value: str) -> Path | None:
        """Returns the path in `value`, or notes why there is none.

        `${BURNISH_DATA}` stands for the folder in the environment variable of that name.
        """
        if "${BURNISH_DATA}" in value:
            data = settings().data
            if data is None:
                self.fault(
                    f"{key} = {value!r} needs the environment variable BURNISH_DATA: set it to "
                    "the folder that holds the data"
                )
                return None
            if not data.is_dir():
                self.fault(f"{key} = {value!r}: BURNISH_DATA is {str(data)!r}, which is no folder")
                return None
            value = value.replace("${BURNISH_DATA}", str(data.absolute()))
        if "${" in value:
            self.fault(f"{key} = {value!r}: only ${{BURNISH_DATA}} can stand in a path")
            return None
        path = self.folder / Path(value).expanduser()
        if not path.exists():
            self.fault(f"{key}: there is no {str(path)!r}")
            return None
        return path

    def finish(self) -> None:
        """Notes each key that nothing asked for, with the nearest name."""
        for key in self.data:
            if key not in self._asked:
                self.fault(str(unknown("key", key, self._asked)))


def raise_faults(faults: list[str]) -> None:
    """Raises one `Misuse` that lists the faults, when there are any."""
    if len(faults) == 1:
        raise Misuse(faults[0])
    if faults:
        raise Misuse(f"{len(faults)} faults:\n" + "\n".join(f"- {fault}" for fault in faults))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
