# SPDX-License-Identifier: Apache-2.0
"""The terminal at several widths, and Markdown: the key facts are there and fit."""

from __future__ import annotations

import io
import re

import pytest
import report_results
from rich.cells import cell_len
from rich.console import Console, RenderableType

from burnish.optimizing.report import names
from burnish.optimizing.report.headline import headline
from burnish.optimizing.report.markdown import markdown
from burnish.optimizing.report.terminal import summary, table
from burnish.optimizing.result import Result


def printed(renderable: RenderableType, width: int) -> str:
    """Returns what a terminal without colour shows."""
    file = io.StringIO()
    Console(file=file, width=width, no_color=True, force_terminal=False).print(renderable)
    return file.getvalue()


def squeezed(text: str) -> str:
    """Returns the text with line breaks and runs of spaces as one space."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_terminal_fits_and_says_the_verdict_first(any_result: Result, width: int) -> None:
    """No line is wider than the terminal; the first line is the verdict and the choice."""
    text = printed(summary(any_result), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    said = headline(any_result)
    assert squeezed(text)[2:].startswith(squeezed(f"{said.verdict}: {said.chosen}"))
    assert squeezed(said.sentence) in squeezed(text)
    for fault in said.open:
        assert squeezed(fault) in squeezed(text)


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (80, ["size", "drop"], ["samples/s", "agrees", "goal"]),
        (100, ["size", "drop", "samples/s", "agrees"], ["goal"]),
        (120, ["size", "drop", "samples/s", "agrees", "goal"], []),
    ],
)
def test_columns_by_width(width: int, there: list[str], gone: list[str]) -> None:
    """A narrow terminal loses whole columns, and no cell is cut."""
    text = printed(table(report_results.met(), width), width)
    head = "\n".join(text.splitlines()[:2])
    assert all(one in head for one in there)
    assert not any(one in head for one in gone)
    for fact in ("3.02", "[2.98, 3.06]", "1.63×", "3.72 MB", "71.8 %", "[70.4, 73.2]", "0.10"):
        assert fact in text
    assert "…" not in text
    assert "not met" in text  # the drop of int8 minmax


def test_met_at_100_columns() -> None:
    """The facts of one row stand in one line, its intervals right under them."""
    lines = printed(table(report_results.met(), 100), 100).splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("→"))
    first, second = (re.sub(r" +", " ", lines[i]).strip() for i in (row, row + 1))
    assert first == "→ int8 percentile, u8 3.72 MB 3.02 1.63× 629 71.8 % 0.10 99.1 %"
    assert second == "ONNX Runtime 26 % [2.98, 3.06] [70.4, 73.2] met"


@pytest.mark.parametrize(
    ("make", "verdict", "said"),
    [
        ("met", "✓ Goal met: int8 percentile, u8 on ONNX Runtime", "1.63× faster [1.56, 1.69]"),
        ("not_met", "✗ Goal not met:", "latency at most 2 ms: not met, 3.02 ms [2.98, 3.06]"),
        ("not_shown", "? Goal not shown:", "about 8,000 more samples would tell"),
        ("single", "No limit was set: The original model on OpenVINO", "nothing else was tried"),
        ("missing", "? Goal not shown:", "size at most 10 MB: not shown, not measured"),
        ("lower_is_better", "✓ Goal met:", "MSE worse by 0.000300"),
    ],
)
def test_plain_words(make: str, verdict: str, said: str) -> None:
    """Met, not met and not shown are said as such, with what it gains and costs."""
    text = squeezed(printed(summary(getattr(report_results, make)()), 100)).lower()
    assert verdict.lower() in text
    assert said.lower() in text


def test_hostile_names_reach_no_terminal_and_no_markdown() -> None:
    """Escapes, console markup, HTML and table cells in names stay text."""
    result = report_results.hostile()
    for text in (printed(summary(result), 100), markdown(result)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "[red]" in printed(summary(result), 100)
    text = markdown(result)
    assert "<script" not in text.split("## Reproduce")[0].replace("\\<", "")
    code = text[text.index("## Reproduce") :].splitlines()
    assert code[2] == "````sh"  # longer than the fence inside the command
    assert code[-1] == "````"
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert widths == {5, 11}  # the goal's table and the large one; no cell broke out


def test_markdown_has_every_part(any_result: Result) -> None:
    """Every candidate, the command and the environment are there."""
    text = markdown(any_result)
    plain = re.sub(r"\\(.)", r"\1", text)
    for one in (*any_result.baselines, *any_result.candidates):
        assert names.printable(one.name) in plain
    assert any_result.command.splitlines()[0].split("\x1b")[0] in text
    assert text.endswith("```\n")
    for value in any_result.machine.get("engines", {}).values():
        assert names.printable(value) in plain


def test_colour_only_repeats_words() -> None:
    """With and without colour the same text is shown."""
    result, file = report_results.not_met(), io.StringIO()
    Console(file=file, width=100, force_terminal=True, color_system="standard").print(
        summary(result)
    )
    coloured = file.getvalue()
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == printed(summary(result), 100)
