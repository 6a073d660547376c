# SPDX-License-Identifier: Apache-2.0
"""docs/tasks.md names every key and value that a task file can have, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from burnish.data.losses import FORMULAS
from burnish.data.metrics import OPTIONS
from burnish.data.splits import OPENERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
READ = re.compile(
    r"(?:table|task)\.(?:text|texts|path|value|whole|wholes|number|numbers|flag)\(\s*\"(\w+)\""
)


def keys() -> list[str]:
    sources = (ROOT / "src" / "burnish" / "data").rglob("*.py")
    return sorted({key for file in sources for key in READ.findall(file.read_text("utf-8"))})


def test_keys_are_found() -> None:
    assert {"class_from", "limit", "transpose", "scale"} <= set(keys())


@pytest.mark.parametrize("word", [*keys(), *OPENERS, *OPTIONS, *FORMULAS])
def test_it_is_documented(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "docs/tasks.md", "exec"), names)
    batch = next(names["task"].split("validation").batches(8))  # type: ignore[attr-defined]
    assert batch.inputs["row"].shape == (8, 4)
