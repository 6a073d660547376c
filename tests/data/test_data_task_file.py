# SPDX-License-Identifier: Apache-2.0
"""Task files: what loads, what is refused and how it is said, and what fingerprints see."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.core.errors import Misuse
from burnish.core.settings import settings
from burnish.core.task import Task
from burnish.data.metrics import metric
from burnish.data.overlap import overlap_warnings
from burnish.data.samples import ArraySamples
from burnish.data.selection import Selection

TASK = """
name = "tiny"
metric = "top1"
loss = "cross_entropy"
classes = ["cat", "dog", "bird"]
[preprocess]
input = "image"
kind = "image"
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[calibration]
source = "npz"
path = "d.npz"
inputs = "x"
labels = "y"
sample = 30
[validation]
source = "npz"
path = "d.npz"
inputs = "x"
labels = "y"
sample = 30
rest = true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (100, 8, 6, 3), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", x=x, y=rng.integers(0, 3, 100))
    return tmp_path


def load(folder: Path, text: str) -> Task:
    (folder / "t.toml").write_text(text)
    return Task.load(folder / "t.toml")


def test_a_whole_task(folder: Path) -> None:
    task = load(folder, TASK)
    assert (task.name, task.judge().name, task.classes) == ("tiny", "top1", ("cat", "dog", "bird"))
    assert (len(task.split("calibration")), len(task.split("validation"))) == (30, 70)
    assert task.warnings == ()
    first, last = task.split("calibration").batches(20)
    assert (len(first), len(last)) == (20, 10)
    assert first.inputs["image"].shape == (20, 3, 8, 6)
    assert first.inputs["image"].dtype == np.float32
    again = next(task.split("calibration").batches(20))
    np.testing.assert_array_equal(first.inputs["image"], again.inputs["image"])
    assert sum(len(b) for b in task.split("validation").batches(16, limit=20)) == 20
    with pytest.raises(Misuse, match=r"add a \[training\] table"):
        task.split("training")


def test_every_fault_is_named_at_once(folder: Path) -> None:
    text = TASK.replace('"top1"', '"top_1"').replace('kind = "image"', 'kind = "imge"')
    text = text.replace("sample = 30\n[val", 'limit = "all"\n[val').replace("rest", "rset")
    with pytest.raises(Misuse) as caught:
        load(folder, text.replace("loss =", "los ="))
    message = str(caught.value)
    for part in (
        "5 faults",
        "t.toml metric: unknown metric 'top_1': did you mean 'top1'",
        "t.toml [preprocess]: unknown kind 'imge': did you mean 'image'",
        "t.toml [calibration]: limit must be a whole number of at least 1, got 'all'",
        "t.toml [validation]: unknown key 'rset': did you mean 'rest'",
        "t.toml: unknown key 'los': did you mean 'loss'",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('path = "d.npz"', 'path = "e.npz"', "path: there is no"),
        ('inputs = "x"', 'inputs = "z"', "no array 'z'; it has 'x', 'y'"),
        ("sample = 30", "sample = 300", "only 100 samples are there"),
        ("sample = 30\nrest", "rest", "rest needs sample"),
        ('"1/255"', '"1/0"', "scale must be a number"),
        ("0.225]", "0.0]", "std must be above 0"),
        (", 0.406]", "]", "mean must have 1 or 3 numbers for rgb, got 2"),
        ('input = "image"', "", "the key 'input' is missing"),
        ('source = "npz"', 'source = "zip"', "unknown source 'zip'"),
        ('"cat", "dog"', '"dog", "dog"', "a list of different texts"),
        ('name = "tiny"', "name =", "cannot read the task"),
        ('metric = "top1"', 'metric = "nowhere:f"', "no module 'nowhere'"),
    ],
)
def test_faults(folder: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(Misuse) as caught:
        load(folder, TASK.replace(old, new))
    assert says in str(caught.value)
    assert "t.toml" in str(caught.value)


def test_burnish_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TASK.replace('"d.npz"', '"${BURNISH_DATA}/d.npz"')
    try:
        for value, says in ((None, "set it to the folder"), ("/nowhere", "is no folder")):
            settings.cache_clear()
            monkeypatch.delenv("BURNISH_DATA", raising=False)
            if value:
                monkeypatch.setenv("BURNISH_DATA", value)
            with pytest.raises(Misuse, match=says):
                load(folder, text)
        settings.cache_clear()
        monkeypatch.setenv("BURNISH_DATA", str(folder))
        assert len(load(folder, text).split("validation")) == 70
    finally:
        settings.cache_clear()


def test_fingerprints_follow_data_selection_and_preprocessing(folder: Path) -> None:
    def prints(text: str = TASK, where: Path = folder) -> str:
        return load(where, text).fingerprint("validation")

    first = prints()
    other = folder / "elsewhere"
    other.mkdir()
    shutil.copy(folder / "d.npz", other)
    assert prints(where=other) == first
    changes = [
        TASK.replace("sample = 30", "sample = 31"),
        TASK.replace("sample = 30", "sample = 30\nseed = 1"),
        TASK.replace("0.225]", "0.226]"),
        TASK.replace('metric = "top1"', 'metric = "top2"'),
    ]
    assert len({first, *map(prints, changes)}) == 5
    x = np.load(folder / "d.npz")["x"]
    x[50, 0, 0, 0] ^= 1
    np.savez_compressed(other / "d.npz", x=x, y=np.load(folder / "d.npz")["y"])
    assert prints(where=other) != first


def test_overlap_is_counted(folder: Path) -> None:
    text = TASK.replace("rest = true", "").replace("sample = 30", "rows = [0, 30]", 1)
    task = load(folder, text)
    expected = len(set(range(30)) & set(Selection(sample=30).rows(100).tolist()))
    assert expected
    assert task.warnings[0].startswith(f"{expected} of 30 calibration samples are also in")
    splits = {name: task.split(name) for name in ("calibration", "validation")}
    assert "only the first 10 samples" in overlap_warnings(splits, most=10)[-1]  # type: ignore


@given(
    n=st.integers(1, 300),
    seed=st.integers(0, 2**40),
    share=st.floats(0, 1),
    every=st.integers(1, 4),
)
def test_sample_and_rest_share_the_rows(n: int, seed: int, share: float, every: int) -> None:
    kept = np.arange(0, n, every)
    sample = max(1, int(share * len(kept)))
    chosen = Selection(every=every, sample=sample, seed=seed).rows(n)
    assert len(chosen) == sample
    assert (np.diff(chosen) > 0).all()
    if sample == len(kept):
        with pytest.raises(Misuse, match="no sample is left"):
            Selection(every=every, sample=sample, seed=seed, rest=True).rows(n)
        return
    others = Selection(every=every, sample=sample, seed=seed, rest=True).rows(n)
    np.testing.assert_array_equal(np.union1d(chosen, others), kept)
    assert not set(chosen.tolist()) & set(others.tolist())


def test_samples_are_drawn_evenly() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        counts[Selection(sample=5, seed=seed).rows(20)] += 1
    assert abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_functions_next_to_the_task(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import numpy as np\n"
        "def samples(n=3):\n"
        "    for i in range(n):\n"
        "        yield {'a': np.full(2, i), 'b': np.zeros(1), 'label': i % 2}\n"
        "def distance(outputs, labels):\n"
        "    return abs(outputs['out'][:, 0] - labels)\n"
    )
    task = load(
        folder,
        """
        metric = { name = "mine:distance", better = "lower" }
        loss = "mine:distance"
        [preprocess.a]
        kind = "array"
        dtype = "float32"
        [preprocess.b]
        kind = "array"
        [validation]
        source = "function"
        function = "mine:samples"
        arguments = { n = 6 }
        """,
    )
    (batch,) = task.split("validation").batches(10)
    assert {name: array.shape for name, array in batch.inputs.items()} == {"a": (6, 2), "b": (6, 1)}
    assert task.judge().better == "lower"
    assert batch.labels is not None
    rows = task.judge().rows({"out": np.zeros((6, 1))}, batch.labels)
    assert task.judge().value(rows) == pytest.approx(0.5)


def test_named_inputs_need_no_preprocessing(folder: Path) -> None:
    np.save(folder / "x.npy", np.ones((4, 2), np.float16))
    np.save(folder / "y.npy", np.zeros(4))
    text = '[validation]\nsource = "npy"\ninputs = { v = "x.npy" }\nlabels = "y.npy"\n'
    (batch,) = load(folder, text).split("validation").batches(10)
    assert batch.inputs["v"].dtype == np.float16
    with pytest.raises(Misuse, match=r"Add a table \[preprocess\]"):
        load(folder, text.replace('{ v = "x.npy" }', '"x.npy"'))


def test_a_task_from_python() -> None:
    x, y = np.arange(12.0, dtype=np.float32).reshape(6, 2), np.arange(6)
    task = Task("mine", validation=ArraySamples({"x": x}, y), metric=metric("mae"))
    assert [len(batch) for batch in task.split("validation").batches(4)] == [4, 2]
    assert task.fingerprint("validation") != Task(
        "mine", validation=ArraySamples({"x": x + 1}, y), metric=metric("mae")
    ).fingerprint("validation")
    with pytest.raises(Misuse, match="as many samples"):
        ArraySamples({"x": x}, y[:3])
    with pytest.raises(Misuse, match="NaN"):
        ArraySamples({"x": x}, np.full(6, np.nan))
