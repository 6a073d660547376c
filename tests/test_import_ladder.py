# SPDX-License-Identifier: Apache-2.0
"""Imports point down the ladder of pyproject.toml, type-only and function-level ones too."""

from __future__ import annotations

from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).parents[1]


def test_imports_point_down() -> None:
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS
