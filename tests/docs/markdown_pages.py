# SPDX-License-Identifier: Apache-2.0
"""The project's Markdown pages, and the code blocks in them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
)


def text(path: str) -> str:
    """Returns a file of the project."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Returns the fenced blocks of a language, each with its first line's number."""
    content = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", content, re.M | re.S)
    return [(content.count("\n", 0, one.start(1)) + 1, one.group(1)) for one in found]


def anchors(page: Path) -> set[str]:
    """Returns the anchors that a page's headings have."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    cleaned = [re.sub(r"[^\w\- ]", "", one.lower()).strip() for one in headings]
    return {one.replace(" ", "-") for one in cleaned}
