# SPDX-License-Identifier: Apache-2.0
"""Everything that a user can set or call is in the docs, and the docs name nothing else."""

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main
from markdown_pages import PAGES, ROOT, blocks, text

from burnish import __version__
from burnish.cli.app import app
from burnish.core import catalogue, settings

COMMAND = typer.main.get_command(app)
VERBS = sorted(COMMAND.commands)  # type: ignore[attr-defined]
COMMAND_LINES = [
    (page.relative_to(ROOT).as_posix(), line)
    for page in PAGES
    for _, block in blocks(page, "sh")
    for line in block.splitlines()
    if re.match(r"(\S*/)?burnish ", line)
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert f"## `burnish {verb}`" in text("docs/cli.md")


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_every_command_line_of_the_docs_is_understood(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert words[0] in VERBS, f"{page}: {line}"
    verb = COMMAND.commands[words[0]]  # type: ignore[attr-defined]
    verb.make_context(words[0], words[1:])  # raises for an unknown option or a missing argument


def test_some_command_lines_were_found() -> None:
    assert len(COMMAND_LINES) > 5


@pytest.mark.parametrize("name", catalogue.names("techniques"))
def test_every_technique_and_its_fields_are_documented(name: str) -> None:
    page = text("docs/techniques.md")
    assert f"## `{name}`" in page
    for one in fields(catalogue.find("techniques", name)):
        assert f"| `{one.name}` |" in page


def test_every_environment_variable_is_documented_and_no_other() -> None:
    source = Path(settings.__file__).read_text(encoding="utf-8")
    known = set(re.findall(r"BURNISH_[A-Z_]+", source))
    assert known
    table = set(re.findall(r"^\| `(BURNISH_[A-Z_]+)` \|", text("docs/concepts.md"), re.M))
    assert table == known
    named = {one for page in PAGES for one in re.findall(r"BURNISH_[A-Z_]+", page.read_text())}
    assert named <= known


def test_every_extra_is_documented() -> None:
    project = text("pyproject.toml").split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", project, re.M)) - {"serve"}  # a later milestone
    table = set(re.findall(r"^\| `(\w+)` \|", text("docs/getting-started.md"), re.M))
    assert table == extras


def test_the_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, ROOT / "docs" / "make_pages.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_changelog_has_the_version() -> None:
    assert re.search(rf"^## {re.escape(__version__)}\b", text("CHANGELOG.md"), re.M)


def test_the_glossary_has_every_noun() -> None:
    nouns = re.findall(r"^\| \*\*(\w+)\*\* \|", text("docs/concepts.md"), re.M)
    assert len(nouns) == 9
    terms = re.findall(r"^\| ([^|]+?) \|", text("docs/glossary.md"), re.M)
    assert set(nouns) <= set(terms)


def test_every_decision_names_what_was_rejected_and_is_listed() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    listed = text("docs/decisions/README.md")
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04}-")
        assert "**Decision.**" in page.read_text()
        assert "**Rejected.**" in page.read_text()
        assert f"({page.name})" in listed
    assert len(pages) >= 6
