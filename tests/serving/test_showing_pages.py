# SPDX-License-Identifier: Apache-2.0
"""The pages: one file each, nothing from elsewhere, nothing that a name could break out of."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from burnish.serving.showing.openapi import api_page
from burnish.serving.showing.status import live_page

_NAMESPACES = {"http://www.w3.org/2000/svg"}

pages = pytest.mark.parametrize("page", [live_page, api_page])


class Ids(HTMLParser):
    """What the page's elements are called, and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if found.get("id"):
            self.ids.append(str(found["id"]))


@pages
def test_nothing_comes_from_elsewhere(page: Callable[[], bytes]) -> None:
    text = page().decode()
    assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)]*", text)) <= _NAMESPACES
    assert not re.search(r"@import|url\(|<iframe|import\s*\(", text)
    for tag, found in _read(text).tags:
        assert "src" not in found, tag
        if tag in ("link", "a"):
            assert not str(found.get("href")).startswith(("http", "//", "/")), found


@pages
def test_text_from_the_server_stays_text(page: Callable[[], bytes]) -> None:
    text = page().decode()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in text
    assert not any(name.startswith("on") for _, found in _read(text).tags for name in found)


@pages
def test_what_the_script_touches_is_there(page: Callable[[], bytes]) -> None:
    text = page().decode()
    read = _read(text)
    assert len(read.ids) == len(set(read.ids))
    assert set(re.findall(r"\$\(\"([\w-]+)\"\)", text)) <= set(read.ids)
    for tag, found in read.tags:
        if tag == "input":
            assert any(
                one == "label" and other.get("for") == found["id"] for one, other in read.tags
            )
        if tag == "select":
            assert found.get("aria-label")
        if "aria-labelledby" in found:
            assert found["aria-labelledby"] in read.ids


@pages
def test_it_is_for_phones_and_the_dark(page: Callable[[], bytes]) -> None:
    text = page().decode()
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


@pages
def test_text_stands_out(page: Callable[[], bytes]) -> None:
    light, dark = re.findall(r"--page: (?:.|\n)*?\}", page().decode())[:2]
    for theme in (light, dark):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", theme))
        for name in ("ink", "muted", "bad", "blue"):
            for under in ("surface", "page"):
                assert _contrast(colors[name], colors[under]) >= 4.5, (name, under)
        assert _contrast(colors["button-ink"], colors["button"]) >= 4.5


def _read(text: str) -> Ids:
    read = Ids()
    read.feed(text)
    return read


def _contrast(one: str, other: str) -> float:
    """Returns the ratio of WCAG 2.1, §1.4.3."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * one for one in color[1:])
    linear = []
    for place in (0, 2, 4):
        value = int(digits[place : place + 2], 16) / 255
        linear.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
