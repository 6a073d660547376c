# SPDX-License-Identifier: Apache-2.0
"""A store's entry is whole or absent, whatever happens while it is made."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_models import convolutional

from burnish.core.errors import Misuse
from burnish.core.settings import settings
from burnish.core.store import Store


def fill(content: str = "x") -> object:
    return lambda folder: (folder / "file").write_text(content)


def test_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has("kind", "key")
    first = store.folder("kind", "key", fill("first"))
    second = store.folder("kind", "key", fill("second"))
    assert first == second
    assert (first / "file").read_text() == "first"
    assert store.has("kind", "key")
    assert store.json("figures", "a", lambda: {"x": [1, 2.5]}) == {"x": [1, 2.5]}
    assert store.json("figures", "a", lambda: 7) == {"x": [1, 2.5]}
    # The time of a contender that failed is NaN, and stays so.
    assert math.isnan(store.json("figures", "nan", lambda: float("nan")))
    assert store.has("figures", "nan")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).folder("kind", "key", make)
    assert os.listdir(tmp_path / "kind") == []


def test_a_kill_leaves_no_entry(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from burnish.core.store import Store\n"
        "def make(folder):\n"
        "    (folder / 'half').write_text('half'); print('ready', flush=True); time.sleep(60)\n"
        "Store(Path(sys.argv[1])).folder('kind', 'key', make)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    assert not store.has("kind", "key")
    (left,) = (tmp_path / "kind").iterdir()
    assert left.name.endswith(".tmp")
    assert (store.folder("kind", "key", fill("whole")) / "file").read_text() == "whole"
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(left, (long_ago, long_ago))
    Store(tmp_path)
    assert [one.name for one in (tmp_path / "kind").iterdir()] == ["key"]


def test_two_writers_agree_on_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    both = threading.Barrier(2)
    seen: list[str] = []

    def write(content: str) -> None:
        def make(folder: Path) -> None:
            (folder / "file").write_text(content)
            both.wait(10)

        seen.append((store.folder("kind", "key", make) / "file").read_text())

    threads = [threading.Thread(target=write, args=(content,)) for content in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert len(seen) == 2
    assert os.listdir(tmp_path / "kind") == ["key"]


def test_trimming_drops_the_oldest_and_nothing_under_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    now = time.time()
    for age, key in ((300, "old"), (200, "middle"), (100, "new")):
        folder = store.folder("kind", key, fill("x" * 1000))
        os.utime(folder, (now - age, now - age))
    under_way = tmp_path / "kind" / ".half.tmp"
    under_way.mkdir()
    (under_way / "file").write_text("x" * 5000)
    os.utime(under_way, (now - 400, now - 400))
    store.folder("kind", "old", fill())  # a use makes it young again
    Store(tmp_path, max_bytes=2500)
    assert sorted(os.listdir(tmp_path / "kind")) == [".half.tmp", "new", "old"]


def test_models(tmp_path: Path) -> None:
    store, model = Store(tmp_path), convolutional()
    path = store.put_model(model)
    assert store.put_model(model) == path
    assert store.model(model.digest).digest == model.digest
    with pytest.raises(Misuse, match="holds no model 0000"):
        store.model("0" * 64)


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="BURNISH_STORE"):
        Store(tmp_path / "file" / "store")


@pytest.fixture
def _fresh_settings() -> object:
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("_fresh_settings")
def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_STORE", str(tmp_path / "here"))
    monkeypatch.setenv("BURNISH_STORE_BYTES", "1000")
    monkeypatch.setenv("BURNISH_THREADS", "3")
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path))
    got = settings()
    assert (got.store, got.store_bytes, got.threads, got.data) == (
        tmp_path / "here", 1000, 3, tmp_path,
    )  # fmt: skip
    assert Store().root == tmp_path / "here"
    monkeypatch.setenv("BURNISH_THREADS", "9")
    assert settings().threads == 3  # read once


@pytest.mark.usefixtures("_fresh_settings")
def test_settings_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "STORE", "STORE_BYTES", "THREADS"):
        monkeypatch.delenv(f"BURNISH_{name}", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    got = settings()
    assert (got.store, got.threads, got.data) == (tmp_path / "burnish", None, None)


@pytest.mark.usefixtures("_fresh_settings")
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_wrong_settings(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BURNISH_THREADS", value)
    with pytest.raises(Misuse, match="BURNISH_THREADS must be a whole number above 0"):
        settings()
