# SPDX-License-Identifier: Apache-2.0
"""A sample as the body of a request to the plain route: an image, a row, a text, or inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from burnish.core.errors import Misuse
from burnish.serving.oip.faults import shown

Sample = (
    bytes | bytearray | memoryview | Path | str | Sequence[float] | npt.NDArray[Any]
    | Mapping[str, Any]
)  # fmt: skip
"""bytes: an image; Path: a file with one, or with a text or row; str: a text, never a path;
numbers: a row; a mapping: the model's inputs by name."""

_IMAGE = "application/octet-stream"
"""What the server takes for an image of any kind."""

_MAGIC = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}
_SUFFIXES = {".csv": "text/csv", ".txt": "text/plain", ".json": "application/json"}


def sample_body(sample: Sample) -> tuple[str, bytes]:
    """Returns the Content-Type and the body for a sample; reads the file that a `Path` names.

    >>> sample_body([5.1, 3]), sample_body("a text"), sample_body(b"GIF89a")[0]
    (('text/csv', b'5.1,3.0'), ('text/plain', b'a text'), 'image/gif')
    """
    if isinstance(sample, bytes | bytearray | memoryview):
        return _image_type(bytes(sample[:16])), bytes(sample)
    if isinstance(sample, str):
        return "text/plain", _utf8(sample)
    if isinstance(sample, Path):
        return _file(sample)
    if isinstance(sample, Mapping):
        inputs = {str(name): _plain(value) for name, value in sample.items()}
        try:
            text = json.dumps({"samples": [inputs]}, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise Misuse(f"the sample cannot be written as JSON: {error}: use infer") from error
        return "application/json", _utf8(text)
    return "text/csv", ",".join(map(repr, _row(sample))).encode()


def _row(sample: object) -> list[float]:
    """Returns a row as floats, which `repr` writes so that they are read back as they were."""
    expected = (
        "expected a sample that is an image's bytes, a Path, a text, a row of numbers, or a "
        "mapping of inputs"
    )
    try:
        row = np.asarray(sample)
    except ValueError as error:
        raise Misuse(f"{expected}, got {shown(sample)}") from error
    if row.ndim != 1 or row.dtype.kind not in "bfiu" or not row.size:
        raise Misuse(
            f"{expected}, got {type(sample).__name__} of shape {list(row.shape)} and dtype "
            f"{row.dtype}: one sample at a time, or use infer"
        )
    values: list[float] = row.astype(np.float64).tolist()
    return values


def _file(path: Path) -> tuple[str, bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misuse(f"the sample {path} cannot be read: {error.strerror or error}") from error
    return _SUFFIXES.get(path.suffix.lower()) or _image_type(content[:16]), content


def _image_type(start: bytes) -> str:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), _IMAGE)


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Misuse("expected a text in Unicode, got half a surrogate pair in it") from error
