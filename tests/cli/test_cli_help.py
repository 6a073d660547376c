# SPDX-License-Identifier: Apache-2.0
import re
import subprocess
import sys

import pytest
import typer

from burnish import __version__
from burnish.cli.app import app

VERBS = sorted(one.name for one in app.registered_commands)


def test_the_verbs():
    assert VERBS == [
        "compare",
        "doctor",
        "list",
        "load",
        "measure",
        "optimize",
        "plan",
        "serve",
        "version",
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches(burnish, verb):
    result = burnish(verb, "--help")
    assert result.exit_code == 0
    shown = re.sub(r"[^\S\n]+", " ", result.stdout)
    assert f"Example: burnish {verb}" in shown
    assert "Exit codes: 0" in shown
    command = typer.main.get_command(app).commands[verb]
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("-"):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown), option
        assert parameter.help or parameter.name in ("help", "context"), parameter.name


def test_no_argument_shows_the_verbs(burnish):
    result = burnish()
    assert all(verb in result.output for verb in VERBS)


def test_version(burnish):
    assert burnish("--version").stdout == f"burnish {__version__}\n"
    assert burnish("version").stdout.startswith(f"burnish {__version__}\n")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_script(shell, name):
    done = shell(_BURNISH_COMPLETE=f"source_{name}")
    assert done.returncode == 0
    assert "_BURNISH_COMPLETE" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("burnish op", "optimize"),
        ("burnish optimize --max-l", "--max-latency"),
        ("burnish optimize --engine onn", "onnxruntime"),
        ("burnish optimize --objective thr", "throughput"),
    ],
)
def test_completion_completes(shell, words, expected):
    place = str(len(words.split()) - 1)
    done = shell(_BURNISH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
    assert done.stdout.split() == [expected]


def test_help_and_completion_load_nothing_heavy():
    heavy = ["torch", "onnx", "onnxruntime", "openvino", "numpy", "scipy", "PIL", "pyarrow"]
    code = f"import sys, burnish.cli.app; print([x for x in {heavy} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
