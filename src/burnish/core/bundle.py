# SPDX-License-Identifier: Apache-2.0
"""The folder that deploys: how it is laid out, written and read.

manifest.json     what is here, the serving plan, preprocessing, class names, figures
model.onnx        the optimized model (with model.onnx.<digest>.data when it is huge)
original.onnx     the model it came from, to fall back to and compare with
reference.json    statistics of inputs and outputs on the task's data, for drift
report.html, report.md, report.json
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from burnish.core.errors import Misuse
from burnish.core.model import Model, write_whole

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; models are read, and checked against their digests, when asked for."""

    path: Path
    manifest: Mapping[str, Any]

    @staticmethod
    def load(path: str | Path) -> Bundle:
        """Returns the bundle in a folder. Raises `Misuse` when it is none or is damaged."""
        path = Path(path)
        try:
            manifest = json.loads((path / _MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise Misuse(
                f"{path} is no bundle: expected a folder with {_MANIFEST}, as "
                "`burnish optimize … -o FOLDER` writes it"
            ) from error
        except (OSError, ValueError) as error:
            raise Misuse(f"the bundle {path} is damaged: {_MANIFEST}: {error}") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = (
                manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            )
            raise Misuse(f"the bundle {path} has format {found!r}; this Burnish reads {FORMAT}")
        missing = {"model", "original", "plan", "signature"} - set(manifest)
        if missing:
            raise Misuse(f"the bundle {path} is damaged: {_MANIFEST} lacks {sorted(missing)}")
        for which in ("model", "original"):
            if not isinstance(manifest[which], dict) or "digest" not in manifest[which]:
                raise Misuse(f"the bundle {path} is damaged: {_MANIFEST}: {which} has no digest")
        return Bundle(path, manifest)

    @staticmethod
    def is_bundle(path: str | Path) -> bool:
        """Returns whether the folder holds a manifest."""
        return (Path(path) / _MANIFEST).is_file()

    @cached_property
    def model(self) -> Model:
        """The optimized model."""
        return self._model("model")

    @cached_property
    def original(self) -> Model:
        """The model that it came from."""
        return self._model("original")

    def _model(self, which: str) -> Model:
        model = Model.load(self.path / f"{which}.onnx")
        expected = self.manifest[which]["digest"]
        if model.digest != expected:
            raise Misuse(
                f"{self.path / which}.onnx is not the model that was bundled: expected digest "
                f"{str(expected)[:12]}, got {model.digest[:12]}; write the bundle again"
            )
        return model

    @staticmethod
    def write(
        path: str | Path,
        model: Model,
        original: Model,
        manifest: Mapping[str, Any],
        files: Mapping[str, bytes],
    ) -> Bundle:
        """Writes a bundle whole, replacing an earlier bundle at `path`, and returns it.

        `manifest` is the caller's part; format, digests and signature are added. `files`
        are further files by name. Raises `Misuse` when `path` holds something else than
        a bundle.
        """
        path = Path(path)
        if path.exists() and not (
            path.is_dir() and (Bundle.is_bundle(path) or not any(path.iterdir()))
        ):
            raise Misuse(f"{path} exists and is no bundle: choose another folder, or remove it")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        temporary.mkdir()
        try:
            model.save(temporary / "model.onnx")
            original.save(temporary / "original.onnx")
            for name, content in files.items():
                write_whole(temporary / name, content)
            full = {
                "format": FORMAT,
                "model": {"digest": model.digest, "size_bytes": model.size_bytes},
                "original": {"digest": original.digest, "size_bytes": original.size_bytes},
                "signature": {
                    "inputs": [vars(spec) for spec in model.signature.inputs],
                    "outputs": [vars(spec) for spec in model.signature.outputs],
                },
                **manifest,
            }
            write_whole(temporary / _MANIFEST, json.dumps(full, indent=2).encode())
            _swap(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Bundle.load(path)


def _swap(new: Path, path: Path) -> None:
    """Puts `new` in the place of `path`; the old folder goes only when the new one stands."""
    old = path.parent / f".{path.name}.{uuid.uuid4().hex}.old.tmp"
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
