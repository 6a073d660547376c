# SPDX-License-Identifier: Apache-2.0
"""Augmentations move and mix pixels, and invent none."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from burnish.techniques.train.augment import augmented, cropped, flipped, mixed, passed_over
from burnish.techniques.train.training import Training


def _images(n: int = 6, side: int = 5) -> np.ndarray:
    return np.arange(n * 2 * side * side, dtype=np.float32).reshape(n, 2, side, side)


@given(st.integers(0, 2**32))
def test_each_image_is_flipped_or_not(seed: int) -> None:
    images = _images()
    changed = flipped(images, np.random.default_rng(seed))
    for before, after in zip(images, changed, strict=True):
        assert (after == before).all() or (after == before[:, :, ::-1]).all()


def test_half_of_the_images_are_flipped() -> None:
    images = _images(2000, 3)
    changed = flipped(images, np.random.default_rng(0))
    share = np.mean((changed != images).any(axis=(1, 2, 3)))
    assert 0.45 < share < 0.55


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_a_crop_is_a_window_of_the_padded_image(seed: int, padding: int) -> None:
    images, side = _images(), 5
    changed = cropped(images, padding, np.random.default_rng(seed))
    assert changed.shape == images.shape
    reach = min(padding, side - 1)
    for before, after in zip(images, changed, strict=True):
        padded = np.pad(before, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
        windows = [
            padded[:, top : top + side, left : left + side]
            for top in range(2 * reach + 1)
            for left in range(2 * reach + 1)
        ]
        assert any((after == window).all() for window in windows)


def test_crops_reach_every_shift() -> None:
    images = np.tile(_images(1), (4000, 1, 1, 1))
    changed = cropped(images, 1, np.random.default_rng(1))
    assert len(np.unique(changed.reshape(4000, -1), axis=0)) == 9


@given(st.integers(0, 2**32), st.floats(0.05, 5))
def test_mixup_blends_floats_and_leaves_integers(seed: int, alpha: float) -> None:
    inputs = {"image": _images(), "ids": np.arange(6)}
    blend = mixed(inputs, alpha, np.random.default_rng(seed))
    assert 0.5 <= blend.share <= 1
    assert sorted(blend.partner) == list(range(6))
    expected = blend.share * inputs["image"] + (1 - blend.share) * inputs["image"][blend.partner]
    np.testing.assert_allclose(blend.inputs["image"], expected, rtol=1e-6)
    assert blend.inputs["image"].dtype == np.float32
    assert blend.inputs["ids"] is inputs["ids"]


def test_what_is_no_image_is_left_and_that_is_said() -> None:
    training = Training(augment=("flip", "crop"), mixup=0.2)
    for inputs in (
        {"table": np.zeros((3, 7), np.float32)},
        {"image": np.zeros((3, 8, 8, 3), np.float32)},  # channels last
        {"a": _images(), "b": _images()},  # an image and its mask, perhaps
    ):
        assert augmented(inputs, training, np.random.default_rng(0)) is inputs
        assert [one.place for one in passed_over(inputs, training)] == ["augment"]
    ids = {"ids": np.zeros((3, 7), np.int64)}
    assert [one.place for one in passed_over(ids, training)] == ["augment", "mixup"]
    assert passed_over({"image": _images()}, training) == ()
