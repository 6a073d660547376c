# SPDX-License-Identifier: Apache-2.0
"""A training run on disk: written whole or not at all, read without running any code in it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from burnish.core.errors import Misuse
from burnish.core.model import write_whole

_FORMAT = 1


def save_checkpoint(path: Path, mark: str, state: dict[str, Any]) -> None:
    """Writes nested dicts and lists of tensors, numbers and texts; `mark` says of which run."""
    content = io.BytesIO()
    torch.save({"format": _FORMAT, "mark": mark, "state": state}, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content.getvalue())


def load_checkpoint(path: Path, mark: str, device: str) -> dict[str, Any] | None:
    """Returns what was saved, or None when there is no file.

    Raises `Misuse` for a damaged file, and for one of another run.
    """
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise Misuse(f"the checkpoint {path} is damaged, delete it: {error}") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise Misuse(f"the checkpoint {path} is of another version of Burnish: delete it")
    if found["mark"] != mark:
        raise Misuse(
            f"the checkpoint {path} is of another training run (other settings, model, data or "
            "seed): delete it, or give another path"
        )
    state: dict[str, Any] = found["state"]
    return state
