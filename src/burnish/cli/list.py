# SPDX-License-Identifier: Apache-2.0
"""`burnish list`: the techniques, engines and importers that are here, or missing."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnish.cli.failures import guarded
from burnish.cli.output import console, print_json
from burnish.core import catalogue
from burnish.core.errors import Missing
from burnish.core.technique import Technique

if TYPE_CHECKING:
    from rich.console import RenderableType

EPILOG = (
    "Example: [bold]burnish list[/bold]\n\n"
    "A technique's fields are its settings in a recipe's TOML file (burnish optimize --recipe).\n\n"
    "Exit codes: 0; 1 a fault in Burnish."
)


@guarded
def list_all(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the lists as one JSON document.")
    ] = False,
) -> None:
    """List techniques, engines and importers, and the command that brings what is missing."""
    found = {
        "techniques": [_technique(name) for name in catalogue.names("techniques")],
        "engines": [_engine(name) for name in catalogue.names("engines")],
        "importers": [_importer(name) for name in catalogue.names("importers")],
    }
    if as_json:
        print_json(found)
    else:
        for part in _shown(found):
            console().print(part)


def _technique(name: str) -> dict[str, Any]:
    found, broken = _find("techniques", name)
    if found is None:
        return {"name": name, "broken": broken}
    hints = typing.get_type_hints(found)
    fields = [
        {"name": one.name, "type": kind(hints[one.name]), "default": _default(one)}
        for one in dataclasses.fields(found)
    ]
    return {"name": name, "does": _first_sentence(found), "fields": fields}


def _engine(name: str) -> dict[str, Any]:
    found, broken = _find("engines", name)
    if found is None:
        return {"name": name, "broken": broken}
    version = found.version()
    return {
        "name": name,
        "does": _first_sentence(found),
        "device": found.device,
        "version": version,
        "install": None if version else Missing(name, name, found.extra).command,
    }


def _importer(name: str) -> dict[str, Any]:
    found, broken = _find("importers", name)
    return {"name": name, "broken": broken} if found is None else {
        "name": name, "does": _first_sentence(found)
    }  # fmt: skip


def _find(group: str, name: str) -> tuple[Any, str]:
    """Returns what is registered, or None and why it cannot be loaded."""
    try:
        return catalogue.find(group, name), ""
    except (ImportError, AttributeError) as error:  # another package's entry point may be stale
        return None, f"{type(error).__name__}: {error}"


def _first_sentence(found: Any) -> str:
    paragraph = " ".join((inspect.getdoc(found) or "").split("\n\n", 1)[0].split())
    return paragraph.split(". ", 1)[0]


def kind(hint: Any) -> str:
    """Returns a type as one would say it in a recipe.

    >>> kind(typing.Literal["u8", "s8"]), kind(tuple[str, ...]), kind(int)
    ('"u8" or "s8"', 'list of str', 'int')
    """
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'"{one}"' for one in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(kind, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"list of {kind(typing.get_args(hint)[0])}"
    return getattr(hint, "__name__", str(hint))


def _default(one: dataclasses.Field[Any]) -> Any:
    made = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
    if made is dataclasses.MISSING:
        return None
    if isinstance(made, Technique):
        return made.to_dict()
    return made if isinstance(made, str | int | float | bool | None) else list(made)


def _shown(found: dict[str, list[dict[str, Any]]]) -> list[RenderableType]:
    import json

    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text("Techniques", style="bold")]
    for one in found["techniques"]:
        parts.append(Padding(_line(one), (0, 0, 0, 2), expand=False))
        fields = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for field in one.get("fields", []):
            fields.add_row(field["name"], Text(json.dumps(field["default"])), Text(field["type"]))
        if fields.row_count:
            parts.append(Padding(fields, (0, 0, 0, 6), style="dim", expand=False))
    for title in ("Engines", "Importers"):
        parts += ["", Text(title, style="bold")]
        for one in found[title.lower()]:
            parts.append(Padding(_line(one), (0, 0, 0, 2), expand=False))
    return parts


def _line(one: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    if "broken" in one:
        return Text.assemble((one["name"], "bold"), (f"  cannot be loaded: {one['broken']}", "red"))
    line = Text.assemble((one["name"], "bold"))
    if one.get("version"):
        line.append(f" {one['version']} ({one['device']})")
    elif one.get("install"):
        line.append(f"  not installed: {one['install']}", style="yellow")
    return line.append(f"  {one['does']}")
