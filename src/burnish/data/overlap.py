# SPDX-License-Identifier: Apache-2.0
"""Finds samples that validation shares with training or calibration.

Calibrating on training samples is sound, so that pair is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from burnish.data.sample_digest import sample_digest
from burnish.data.samples import RawSamples

MOST_SAMPLES = 200_000
"""How many samples of each split are compared: about 20 MB of hashes."""
MOST_BYTES = 1 << 31
"""How much of each split is read to compare it: 2 GiB, so that loading stays quick."""


def overlap_warnings(splits: Mapping[str, RawSamples], most: int = MOST_SAMPLES) -> list[str]:
    """Returns a warning for each split that shares raw samples with validation.

    The first `most` samples of each split, or those in its first 2 GiB, are compared by
    16-byte hashes, and a further warning says when there were more.
    """
    if "validation" not in splits or len(splits) == 1:
        return []
    found, whole = [], True
    validation, ended = _hashes(splits["validation"], most)
    whole = whole and ended
    judged = set(validation)
    for name in ("training", "calibration"):
        if name not in splits:
            continue
        hashes, ended = _hashes(splits[name], most)
        whole = whole and ended
        shared = sum(one in judged for one in hashes)
        if shared:
            found.append(
                f"{shared} of {len(hashes)} {name} samples are also in validation "
                f"({len(judged & set(hashes))} different ones): quality figures will be too good; "
                "choose the splits with rows, or with sample and rest"
            )
    if not whole:
        found.append(
            f"only the first {most} samples, or {MOST_BYTES >> 30} GiB, of each split were "
            "compared for overlap"
        )
    return found


def _hashes(split: RawSamples, most: int) -> tuple[list[bytes], bool]:
    """Returns the hashes of the first samples, and whether those are all."""
    hashes: list[bytes] = []
    read_bytes = 0
    for sample in split.raw():
        if len(hashes) == most or read_bytes > MOST_BYTES:
            return hashes, False
        hashes.append(sample_digest(sample.raw))
        read_bytes += _size_bytes(sample.raw)
    return hashes, True


def _size_bytes(raw: Any) -> int:
    if isinstance(raw, dict):
        return sum(map(_size_bytes, raw.values()))
    return len(raw) if isinstance(raw, bytes) else int(np.asarray(raw).nbytes)
