# SPDX-License-Identifier: Apache-2.0
"""Every reader gives back what was written, streams, and refuses what is damaged."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from burnish.core.errors import Misuse
from burnish.data.preprocessing import preprocessing_from_dict
from burnish.data.readers.arrays import ArrayFiles
from burnish.data.readers.class_folders import ClassNaming
from burnish.data.readers.csv_file import CsvFile
from burnish.data.readers.function import FunctionSource
from burnish.data.readers.image_folder import ImageFolder
from burnish.data.readers.image_pack import ImagePack
from burnish.data.readers.image_tar import ImageTar
from burnish.data.readers.npy_stream import NpyStream
from burnish.data.readers.parquet import ParquetFile
from burnish.data.readers.source import Source
from burnish.data.samples import SourceSamples

KEEP = preprocessing_from_dict({"inputs": [{"input": "x", "kind": "array"}]})


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_rows_equal_numpy(tmp_path: Path, compressed: bool) -> None:
    x = np.arange(5000 * 33, dtype=np.int32).reshape(5000, 33)
    y = np.arange(5000)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "d.npz", x=x, y=y)
    path = tmp_path / "d.npz"
    source = ArrayFiles({"": NpyStream.open(path, "x")}, NpyStream.open(path, "y"), "d.npz")
    for chosen in (np.arange(5000), rows(0), rows(1, 2, 3, 77, 4999), np.arange(0, 5000, 7)):
        got = list(source.read(chosen))
        np.testing.assert_array_equal([one.raw for one in got], x[chosen])
        np.testing.assert_array_equal([one.label for one in got], y[chosen])


@given(st.sets(st.integers(0, 99), min_size=1))
def test_npy_rows_equal_numpy(tmp_path_factory: pytest.TempPathFactory, chosen: set[int]) -> None:
    path = tmp_path_factory.getbasetemp() / "a.npy"
    x = np.arange(300.0).reshape(100, 3)
    np.save(path, x)
    wanted = rows(*sorted(chosen))
    np.testing.assert_array_equal(list(NpyStream.open(path).rows(wanted)), x[wanted])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    whole = np.lib.format.open_memmap(
        tmp_path / "big.npy", mode="w+", dtype=np.uint8, shape=(4096, 16384)
    )
    whole[-1] = 7
    whole.flush()
    del whole
    source = ArrayFiles({"": NpyStream.open(tmp_path / "big.npy")}, None, "big.npy")
    tracemalloc.start()
    try:
        total = sum(int(b.inputs["x"].sum()) for b in SourceSamples(source, KEEP).batches(16))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 7 * 16384
    assert peak_bytes < 8 << 20  # of 64 MiB


def test_truncated_npz_and_npy_are_refused_everywhere(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 255, (200, 50), np.uint8)
    np.savez_compressed(tmp_path / "d.npz", x=x)
    np.save(tmp_path / "d.npy", x)
    for name, key in (("d.npz", "x"), ("d.npy", None)):
        content = (tmp_path / name).read_bytes()
        for cut in np.linspace(0, len(content) - 1, 50, dtype=int):
            part = tmp_path / f"cut_{name}"
            part.write_bytes(content[:cut])
            with pytest.raises(Misuse, match="cut_d"):
                list(NpyStream.open(part, key).rows(np.arange(200)))


def test_damaged_zip_data_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((100, 100)))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[5000] ^= 1
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(Misuse, match="CRC"):
        list(NpyStream.open(tmp_path / "d.npz", "x").rows(np.arange(100)))


def test_hostile_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(Misuse, match="objects are never loaded"):
        NpyStream.open(tmp_path / "o.npy")
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((3, 2))))
    with pytest.raises(Misuse, match="ascontiguousarray"):
        NpyStream.open(tmp_path / "f.npy")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1, 1 << 40)}
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1 << 20))
    with pytest.raises(Misuse, match="one sample"):
        NpyStream.open(tmp_path / "bomb.npz", "x")
    with pytest.raises(Misuse, match="it has 'x'"):
        NpyStream.open(tmp_path / "bomb.npz", "y")


def test_lengths_must_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 2)), y=np.zeros(4))
    path = tmp_path / "d.npz"
    with pytest.raises(Misuse, match="as many rows each"):
        ArrayFiles({"": NpyStream.open(path, "x")}, NpyStream.open(path, "y"), "d.npz")


def test_nan_label_names_the_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2)), y=np.array([0.0, np.nan, 1.0]))
    path = tmp_path / "d.npz"
    source = ArrayFiles({"": NpyStream.open(path, "x")}, NpyStream.open(path, "y"), "d.npz")
    with pytest.raises(Misuse, match=r"d\.npz row 1: the label is nan"):
        list(SourceSamples(source, KEEP).batches(2))
    path = tmp_path / "e.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.array([0, 1, 2]))
    source = ArrayFiles({"": NpyStream.open(path, "x")}, NpyStream.open(path, "y"), "e.npz")
    with pytest.raises(Misuse, match=r"row 2: the label 2 must be a class from 0 to 1"):
        list(SourceSamples(source, KEEP, n_classes=2).batches(2))


def test_image_pack_gives_each_image(tmp_path: Path) -> None:
    images = [png(i) for i in range(10)]
    offsets = np.cumsum([0, *map(len, images)])
    blob = np.frombuffer(b"".join(images), np.uint8)

    def pack(**changed: np.ndarray) -> ImagePack:
        path = tmp_path / "p.npz"
        arrays = {"blob": blob, "offsets": offsets, "labels": np.arange(10), **changed}
        np.savez_compressed(path, **arrays)
        return ImagePack(*(NpyStream.open(path, key) for key in ("blob", "offsets", "labels")))

    for chosen in (np.arange(10), rows(0, 3, 4, 9)):
        got = list(pack().read(chosen))
        assert [one.raw for one in got] == [images[i] for i in chosen]
        assert [one.label for one in got] == chosen.tolist()
    with pytest.raises(Misuse, match="10 images need as many labels"):
        pack(labels=np.arange(9))
    for wrong in (-5, 1 << 40, 0):
        broken = offsets.copy()
        broken[4] = wrong
        with pytest.raises(Misuse, match="image 3 must lie in"):
            list(pack(offsets=broken).read(np.arange(10)))


def write_images(folder: Path) -> None:
    for name, count in (("dog", 2), ("cat", 3)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{name}_{i}.png").write_bytes(png(i))
    (folder / "cat" / "notes.txt").write_text("no image")


def test_folder_and_tar_take_classes_in_turns(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "images", "train")
    sources: list[Source] = [
        ImageFolder.open(tmp_path / "images"),
        ImageTar.open(tmp_path / "images.tar"),
    ]
    for source in sources:
        got = list(source.read(np.arange(5)))
        assert [one.label for one in got] == [0, 1, 0, 1, 0]
        assert [one.raw for one in got] == [png(0), png(0), png(1), png(1), png(2)]
    naming = ClassNaming(("dog", "cat"), by_prefix=True)
    assert [one[1] for one in ImageTar.open(tmp_path / "images.tar", naming).images][:2] == [0, 1]
    unlabelled = ImageFolder.open(tmp_path / "images", ClassNaming(labelled=False))
    assert len(unlabelled) == 5
    assert {one.label for one in unlabelled.read(np.arange(5))} == {None}
    with pytest.raises(Misuse, match=r"cat_0\.png: unknown class 'cat'"):
        ImageFolder.open(tmp_path / "images", ClassNaming(("dog", "bird")))


def test_empty_and_damaged_folders_and_tars(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="holds no image"):
        ImageFolder.open(tmp_path)
    write_images(tmp_path / "images")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "images", "train")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:3000])
    with pytest.raises(Misuse, match="cut"):
        ImageTar.open(tmp_path / "cut.tar")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(Misuse, match="uncompressed tar"):
        ImageTar.open(tmp_path / "a.tar.gz")


def test_tar_tricks_reach_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret.png"
        archive.addfile(link)
        inside = tarfile.TarInfo("../../cat/evil.png")
        inside.size = len(png(1))
        archive.addfile(inside, io.BytesIO(png(1)))
    source = ImageTar.open(tmp_path / "t.tar")
    assert [one.raw for one in source.read(np.arange(len(source)))] == [png(1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.png", "t.tar"]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_columns_and_labels(tmp_path: Path, suffix: str) -> None:
    text = 'a;b;"kind"\n1;2;cat\n3;4.5;dog\n5;6;cat\n'
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    source = CsvFile(path, ("b", "a"), "kind", ";", {"cat": 0, "dog": 1})
    got = list(source.read(rows(1, 2)))
    assert [one.raw.tolist() for one in got] == [[4.5, 3.0], [6.0, 5.0]]
    assert [one.label for one in got] == [1, 0]
    assert len(source) == 3
    with pytest.raises(Misuse, match="did you mean 'kind'"):
        CsvFile(path, label="kinds", delimiter=";")
    with pytest.raises(Misuse, match="row 0: the label 'cat' is no number"):
        list(CsvFile(path, label="kind", delimiter=";").read(rows(0)))


def test_bad_csv_cells_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,\n4\n")
    with pytest.raises(Misuse, match=r"t\.csv row 1, column 'b': expected a number, got ''"):
        list(CsvFile(path).read(np.arange(3)))
    with pytest.raises(Misuse, match="row 2 must have 2 cells, got 1"):
        list(CsvFile(path).read(rows(2)))
    path.write_bytes(b"a\n" + b"1" * (2 << 20))
    with pytest.raises(Misuse, match="line is longer"):
        len(CsvFile(path))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a\n1\n" * 1000)[:-20])
    with pytest.raises(Misuse, match="no readable CSV"):
        len(CsvFile(tmp_path / "t.csv.gz"))


def test_parquet_rows_across_row_groups(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    n = 1000
    table = pa.table(
        {
            "a": np.arange(n),
            "b": np.arange(n) / 2,
            "image": [{"bytes": b"%d" % i, "path": ""} for i in range(n)],
            "label": np.arange(n) % 3,
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=300)
    chosen = rows(0, 255, 256, 299, 300, 999)
    vector = ParquetFile(tmp_path / "t.parquet", columns=("b", "a"), label="label")
    got = list(vector.read(chosen))
    assert [one.raw.tolist() for one in got] == [[i / 2, i] for i in chosen]
    assert [one.label for one in got] == (chosen % 3).tolist()
    image = ParquetFile(tmp_path / "t.parquet", column="image")
    assert [one.raw for one in image.read(chosen)] == [b"%d" % i for i in chosen]
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-100])
    with pytest.raises(Misuse, match=r"cut\.parquet is no readable"):
        ParquetFile(tmp_path / "cut.parquet")


def test_function_yields_again_and_must_end() -> None:
    def pairs(n: int = 4) -> Iterator[tuple[np.ndarray, int]]:
        for i in range(n):
            yield np.full(2, i), i

    source = FunctionSource(pairs, "m:pairs", {"n": 6})
    for _ in range(2):
        assert [one.label for one in source.read(rows(1, 5))] == [1, 5]
    assert len(source) == 6
    assert source.digest() != FunctionSource(pairs, "m:pairs").digest()
    with pytest.raises(Misuse, match="yields no sample"):
        len(FunctionSource(pairs, "m:pairs", {"n": 0}))
    named = FunctionSource(lambda: iter([{"x": 1, "label": 2}]), "m:named")
    assert next(named.read(rows(0))).raw == {"x": 1}
