# SPDX-License-Identifier: Apache-2.0
"""Writes cli.md and techniques.md from the program's own words; --check says if they are old."""

import inspect
import re
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import typer.main
from typer.cli import get_docs_for_click

from burnish.cli.app import app
from burnish.core import catalogue

_FOLDER = Path(__file__).parent
_NOTE = "<!-- Made by `make docs`; do not edit. -->\n\n"
_TECHNIQUES = """# Techniques

What changes a model. In a recipe each is a `[[step]]`, its fields the keys:

```toml
[[step]]
technique = "fuse"

[[step]]
technique = "quantize_static"
ranges = "percentile"
```

`burnish optimize --recipe FILE` tries such a file instead of Burnish's own recipes;
`bn.Recipe.load(FILE)` reads it in Python. A field that is not written keeps its default.
"""


def cli() -> str:
    """Returns the page of the commands."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="burnish")
    text = get_docs_for_click(obj=command, ctx=context, name="burnish", title="The command line")
    return re.sub(r"\[/?bold\]", "`", text)


def techniques() -> str:
    """Returns the page of the techniques and their fields."""
    parts = [_TECHNIQUES]
    for name in catalogue.names("techniques"):
        technique = catalogue.find("techniques", name)
        words = (inspect.getdoc(technique) or "").split(">>>")[0].strip()
        parts.append(f"## `{name}`\n\n{words}\n")
        rows = [f"| `{one.name}` | `{_default(one)}` |" for one in fields(technique)]
        parts.append("| field | default |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _default(one: "Field[Any]") -> str:
    if one.default_factory is not MISSING:
        return str(one.default_factory())
    return "" if one.default is MISSING else repr(one.default)


def main() -> None:
    """Writes the pages, or with --check compares them."""
    for name, text in (("cli.md", cli()), ("techniques.md", techniques())):
        page, path = _NOTE + text.strip() + "\n", _FOLDER / name
        if "--check" not in sys.argv:
            path.write_text(page, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != page:
            sys.exit(f"docs/{name} is out of date: run make docs")


if __name__ == "__main__":
    main()
