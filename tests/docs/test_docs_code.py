# SPDX-License-Identifier: Apache-2.0
"""The code in the docs: TOML is read, Python compiles, and README and getting started run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from markdown_pages import PAGES, ROOT, blocks

import burnish as bn

RUNNABLE = ("README.md", "docs/getting-started.md")


def _all(language: str) -> list[object]:
    return [
        pytest.param(page, line, block, id=f"{page.relative_to(ROOT).as_posix()}:{line}")
        for page in PAGES
        for line, block in blocks(page, language)
    ]


@pytest.mark.parametrize(("page", "line", "block"), _all("python"))
def test_python_compiles(page: Path, line: int, block: str) -> None:
    compile("\n" * (line - 1) + block, str(page), "exec")


@pytest.mark.parametrize(("page", "line", "block"), _all("toml"))
def test_toml_is_read(page: Path, line: int, block: str, tmp_path: Path) -> None:
    data = tomllib.loads(block)
    if "step" in data:
        path = tmp_path / "recipe.toml"
        path.write_text(block)
        assert bn.Recipe.load(path).steps()


def test_the_task_of_the_guide_is_the_demos() -> None:
    guide = tomllib.loads(blocks(ROOT / "docs" / "getting-started.md", "toml")[0][1])
    demo = tomllib.loads((ROOT / "examples" / "digits" / "task.toml").read_text())
    assert guide == {key: value for key, value in demo.items() if key != "training"}


def _brief(code: str) -> str:
    """Returns the code with budgets of 5 s: that it runs is asked, not how much it finds."""
    return re.sub(r"(budget[= ]\"?)\d+ ?s\b", r"\g<1>5s", code)


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what `make demo` leaves, made by the demo itself."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples")
    demo = folder / "examples" / "digits" / "demo.py"
    demo.write_text(_brief(demo.read_text()))
    assert 'budget="5s"' in demo.read_text()
    environment = {**os.environ, "BURNISH_STORE": str(folder / "store")}
    command = [sys.executable, "examples/digits/demo.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said = done.stdout.decode()
    assert "report.html" in said
    assert "read as " in said
    return folder


@pytest.mark.slow
def test_the_demo_makes_a_bundle_that_reads_digits(after_demo: Path) -> None:
    with bn.open(after_demo / "out" / "digits" / "bundle") as session:
        task = bn.Task.load(after_demo / "examples" / "digits" / "task.toml")
        validation = task.split("validation")
        n_right = 0
        for batch in validation.batches(64):
            answers = session.run(batch.inputs)["output"].argmax(1)
            n_right += int((answers == batch.labels).sum())
    assert n_right / len(validation) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_python_runs_after_the_demo(name: str, after_demo: Path) -> None:
    for line, block in blocks(ROOT / name, "python"):
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning:burnish", "-c", _brief(block)],
            cwd=after_demo,
            env={**os.environ, "BURNISH_STORE": str(after_demo / "store")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}:{line}: {done.stderr}"


def _serves(command: list[str], folder: Path) -> None:
    """Starts a server on free ports, waits until it is ready, and stops it."""
    ports = ["--port", "0", "--grpc-port", "0", "--health-port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *ports],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        stop = threading.Timer(120, server.kill)
        stop.start()
        try:
            said = []
            for text in server.stdout:
                said.append(text)
                if text.startswith("ready at"):
                    server.terminate()
            assert server.wait(60) == 0, "".join(said)
            assert any(text.startswith("ready at") for text in said), "".join(said)
        finally:
            stop.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNNABLE)
def test_command_lines_run_after_the_demo(name: str, after_demo: Path) -> None:
    program = Path(sys.executable).with_name("burnish")
    for line, block in blocks(ROOT / name, "sh"):
        for words in map(shlex.split, _brief(block).splitlines()):
            if not words or Path(words[0]).name != "burnish":
                continue
            if words[1] == "serve":
                _serves([str(program), *words[1:]], after_demo)
                continue
            done = subprocess.run(
                [program, *words[1:]],
                cwd=after_demo,
                env={**os.environ, "BURNISH_STORE": str(after_demo / "store")},
                capture_output=True,
                text=True,
                check=False,
            )
            # 3 is "not shown": sound, and what a busy machine may give.
            assert done.returncode in (0, 3), f"{name}:{line}: {words}: {done.stderr}"
