# SPDX-License-Identifier: Apache-2.0
"""Random changes of a batch that leave its labels true, or mix them; in NumPy, seeded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from burnish.core.technique import Skipped
from burnish.techniques.train.training import Training

Arrays = dict[str, NDArray[Any]]
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Mixed:
    """A batch after mixup: sample i is `share` of itself and the rest of sample `partner[i]`."""

    inputs: Arrays
    partner: NDArray[np.int64]
    share: float


def flipped(images: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Returns images (batch, channels, height, width), each mirrored with probability 1/2."""
    mirror = random.random(len(images)) < 0.5
    changed = images.copy()
    changed[mirror] = images[mirror][..., ::-1]
    return changed


def cropped(images: NDArray[Any], padding: int, random: np.random.Generator) -> NDArray[Any]:
    """Returns images of the same size, each cut at random from itself padded by reflection.

    Reflected, since after preprocessing nobody knows which number is black.
    """
    height, width = images.shape[2:]
    down, right = min(padding, height - 1), min(padding, width - 1)
    padded = np.pad(images, ((0, 0), (0, 0), (down, down), (right, right)), mode="reflect")
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))
    top = random.integers(0, 2 * down + 1, len(images))
    left = random.integers(0, 2 * right + 1, len(images))
    cut: NDArray[Any] = windows[np.arange(len(images)), :, top, left]
    return cut


def mixed(inputs: Mapping[str, NDArray[Any]], alpha: float, random: np.random.Generator) -> Mixed:
    """Returns the batch with each sample blended with another; one share for the whole batch.

    Integer inputs are left as they are. Source: Zhang et al. 2018 (arXiv:1710.09412),
    equation 1, share ~ Beta(alpha, alpha), the larger part the sample's own.
    """
    drawn = float(random.beta(alpha, alpha))
    share = max(drawn, 1 - drawn)
    n = len(next(iter(inputs.values())))
    partner = random.permutation(n)
    blended = {
        name: (share * array + (1 - share) * array[partner]).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in inputs.items()
    }
    return Mixed(blended, partner, share)


def augmented(inputs: Arrays, training: Training, random: np.random.Generator) -> Arrays:
    """Returns the inputs, the one that is images with the augmentations of `training`."""
    found = images(inputs)
    if not training.augment or len(found) != 1:
        return inputs
    changed = inputs[found[0]]
    if "flip" in training.augment:
        changed = flipped(changed, random)
    if "crop" in training.augment:
        changed = cropped(changed, training.crop_padding, random)
    return {**inputs, found[0]: changed}


def images(inputs: Mapping[str, NDArray[Any]]) -> list[str]:
    """Returns the inputs that are images with channels first: 4 axes, at most 4 channels."""
    return [
        name
        for name, array in inputs.items()
        if array.ndim == 4 and array.shape[1] <= _MOST_CHANNELS and min(array.shape[2:]) > 1
    ]


def passed_over(inputs: Mapping[str, NDArray[Any]], training: Training) -> tuple[Skipped, ...]:
    """Returns which settings of `training` have no meaning for such inputs, and why."""
    notes = []
    shapes = ", ".join(f"{name} {list(array.shape[1:])}" for name, array in inputs.items())
    if training.augment and len(images(inputs)) != 1:
        notes.append(
            Skipped(
                "augment",
                "only one input of images can be changed (channels first, at most "
                f"{_MOST_CHANNELS} channels), and {len(images(inputs))} are there: {shapes}",
            )
        )
    if training.mixup and not any(array.dtype.kind == "f" for array in inputs.values()):
        notes.append(Skipped("mixup", f"no input holds floats to blend: {shapes}"))
    return tuple(notes)
