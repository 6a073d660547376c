# SPDX-License-Identifier: Apache-2.0
"""Finished steps on disk, so that a second run reuses them and a killed run resumes.

An entry is a folder `<root>/<kind>/<key>`, made under a temporary name and renamed when
it is complete: a kill at any moment leaves either the whole entry or none. Two
processes may share a store; the first to finish an entry wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse
from burnish.core.model import Model, write_whole
from burnish.core.settings import settings

_ABANDONED_S = 24 * 3600


class Store:
    """A folder of entries, each written once and never changed."""

    def __init__(self, root: str | Path | None = None, max_bytes: int | None = None) -> None:
        """Opens (or makes) the store at `root`, by default BURNISH_STORE.

        Raises `Misuse` when the folder cannot be written.
        """
        self.root = Path(root) if root is not None else settings().store
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misuse(
                f"cannot make the store {self.root}: {error}; set BURNISH_STORE to a folder "
                "that you may write"
            ) from error
        self._trim(max_bytes or settings().store_bytes)

    @staticmethod
    def temporary() -> Store:
        """Returns a store in a temporary folder that goes with it."""
        folder = tempfile.TemporaryDirectory(prefix="burnish-store-")
        store = Store(folder.name)
        weakref.finalize(store, folder.cleanup)
        return store

    def folder(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Returns the entry's folder; when there is none, `make` fills a new one first."""
        final = self.root / kind / key
        if final.is_dir():
            with contextlib.suppress(OSError):
                os.utime(final)
            return final
        temporary = self.root / kind / f".{key}.{uuid.uuid4().hex}.tmp"
        temporary.mkdir(parents=True)
        try:
            make(temporary)
            try:
                os.rename(temporary, final)
            except OSError:
                if not final.is_dir():  # another process may have finished it first
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return final

    def json(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Returns the entry's plain data, made by `make` when there is none; NaN is kept."""

        def write(folder: Path) -> None:
            content = json.dumps(make())
            write_whole(folder / "value.json", content.encode())

        return json.loads((self.folder(kind, key, write) / "value.json").read_bytes())

    def has(self, kind: str, key: str) -> bool:
        """Returns whether the entry is there."""
        return (self.root / kind / key).is_dir()

    def put_model(self, model: Model) -> Path:
        """Returns the path of the model's file, written when it is not there yet."""

        def write(folder: Path) -> None:
            model.save(folder / "model.onnx")

        return self.folder("models", model.digest, write) / "model.onnx"

    def model(self, digest: str) -> Model:
        """Returns a model that was put. Raises `Misuse` when there is none."""
        path = self.root / "models" / digest / "model.onnx"
        if not path.is_file():
            raise Misuse(f"the store {self.root} holds no model {digest[:12]}")
        return Model.load(path)

    def _trim(self, max_bytes: int) -> None:
        """Drops half-made entries of dead runs, then the oldest entries above the limit."""
        entries: list[tuple[float, int, Path]] = []
        for folder in self.root.glob("*/*"):
            with contextlib.suppress(OSError):
                age = folder.stat().st_mtime
                if folder.name.endswith(".tmp"):  # a younger one may be at work just now
                    if time.time() - age > _ABANDONED_S:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                entries.append((age, size, folder))
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if total <= max_bytes:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
