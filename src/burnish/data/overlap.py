# SPDX-License-Identifier: Apache-2.0
"""Finds samples that validation shares with training or calibration.

Calibrating on training samples is sound, so that pair is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from burnish.data.sample_digest import sample_digest
from burnish.data.samples import RawSamples

MOST_SAMPLES = 200_000
"""How many samples of each split are compared: about 20 MB of hashes."""


def overlap_warnings(splits: Mapping[str, RawSamples], most: int = MOST_SAMPLES) -> list[str]:
    """Returns a warning for each split that shares raw samples with validation.

    The first `most` samples of each split are compared, by 16-byte hashes, and a further
    warning says when there were more.
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
        found.append(f"only the first {most} samples of each split were compared for overlap")
    return found


def _hashes(split: RawSamples, most: int) -> tuple[list[bytes], bool]:
    samples = split.raw()
    hashes = [sample_digest(sample.raw) for sample in islice(samples, most)]
    return hashes, next(samples, None) is None
