# SPDX-License-Identifier: Apache-2.0
"""Runs the command in this process, or as a user's shell would."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from burnish.cli.app import app

PROGRAM = [sys.executable, "-c", "from burnish.cli.app import main; main()"]


@pytest.fixture
def burnish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args: object) -> Result:
        return CliRunner().invoke(app, [str(one) for one in args])

    log = logging.getLogger("burnish")
    before = (log.level, log.handlers)
    yield run
    log.level, log.handlers = before  # the command sets up the log of the whole process


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
