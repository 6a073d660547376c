# SPDX-License-Identifier: Apache-2.0
"""Preprocessing against PyTorch and Pillow, its plain data, and damaged images."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from burnish.core.errors import Misuse
from burnish.data.preprocessing import InputPreprocessing, preprocessing_from_dict

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def image(**keys: Any) -> InputPreprocessing:
    return preprocessing_from_dict({"inputs": [{"input": "x", "kind": "image", **keys}]})


def pixels(height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def test_normalizing_equals_torch_bit_for_bit() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(pixels()).permute(2, 0, 1).float() / 255
    expected = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    got = image(scale="1/255", mean=MEAN, std=STD)(encoded(pixels()))["x"]
    np.testing.assert_array_equal(got, expected.numpy())


def test_channels_and_layout() -> None:
    rgb = pixels()
    np.testing.assert_array_equal(image(layout="NHWC", dtype="uint8")(rgb)["x"], rgb)
    bgr = image(channels="bgr", dtype="uint8")(encoded(rgb))["x"]
    np.testing.assert_array_equal(bgr, rgb[..., ::-1].transpose(2, 0, 1))
    gray = image(channels="gray", dtype="uint8")(encoded(rgb))["x"]
    np.testing.assert_array_equal(gray[0], np.asarray(Image.fromarray(rgb).convert("L")))
    np.testing.assert_array_equal(image(channels="gray", dtype="uint8")(rgb)["x"], gray)
    assert image()(encoded(rgb[..., 0]))["x"].shape == (3, 20, 30)


def test_resize_and_crop_equal_pillow() -> None:
    rgb = pixels(20, 30)
    expected = np.asarray(Image.fromarray(rgb).resize((15, 10), Image.Resampling.BICUBIC))
    keys: dict[str, Any] = {"interpolation": "bicubic", "layout": "NHWC", "dtype": "uint8"}
    np.testing.assert_array_equal(image(resize=10, **keys)(encoded(rgb))["x"], expected)
    np.testing.assert_array_equal(image(resize=[10, 15], **keys)(rgb)["x"], expected)
    cropped = image(resize=10, crop=8, **keys)(rgb)["x"]
    np.testing.assert_array_equal(cropped, expected[1:9, 4:12])
    with pytest.raises(Misuse, match="smaller than the crop"):
        image(crop=21)(rgb)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "channels": st.sampled_from(["rgb", "bgr"]),
            "resize": st.one_of(st.integers(1, 99), st.lists(st.integers(1, 99), min_size=2,
                                                             max_size=2)),
            "crop": st.integers(1, 50),
            "scale": st.sampled_from(["1/255", 0.5, 2, "1/127.5"]),
            "mean": st.lists(st.floats(-200, 200), min_size=3, max_size=3),
            "std": st.floats(0.01, 100),
            "layout": st.sampled_from(["NCHW", "NHWC"]),
            "dtype": st.sampled_from(["float32", "float16", "uint8"]),
        },
    )
)  # fmt: skip
def test_plain_data_and_back(keys: dict[str, Any]) -> None:
    if keys.get("scale") == "1/127.5":
        with pytest.raises(Misuse, match="scale must be"):
            image(**keys)
        return
    made = image(**keys)
    assert preprocessing_from_dict(made.to_dict()) == made


def test_one_sample_equals_its_place_in_a_batch() -> None:
    made = preprocessing_from_dict(
        {
            "inputs": [
                {"input": "i", "kind": "image", "scale": "1/255", "mean": MEAN, "resize": 8},
                {"input": "a", "kind": "array", "shape": [2, 3], "transpose": [1, 0], "scale": 2},
                {"input": "t", "kind": "table", "mean": [1, 2], "std": [3, 4]},
            ]
        }
    )
    raws = [{"i": pixels(), "a": np.arange(6) + k, "t": [1.0 * k, 2.0]} for k in range(3)]
    batch = made.finish([made.prepare(raw) for raw in raws])
    for k, raw in enumerate(raws):
        for name, array in made(raw).items():
            np.testing.assert_array_equal(array, batch[name][k])
    np.testing.assert_array_equal(batch["a"][1], 2 * (np.arange(6) + 1).reshape(2, 3).T)
    np.testing.assert_allclose(batch["t"][:, 0], [-1 / 3, 0, 1 / 3], rtol=1e-6)
    assert preprocessing_from_dict(made.to_dict()) == made


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says so before it fails
def test_damaged_images_never_crash() -> None:
    made = image()
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        content = encoded(pixels(), form)
        for cut in np.linspace(0, len(content) // 2, 30, dtype=int):
            with pytest.raises(Misuse, match="cannot decode"):
                made(content[:cut])
    with pytest.raises(Misuse, match="cannot decode"):
        made(np.random.default_rng(0).bytes(5000))


def test_image_bombs_are_refused() -> None:
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    with pytest.raises(Misuse, match="pixels are not decoded"):
        image()(buffer.getvalue())
    buffer = io.BytesIO()
    Image.new("1", (20000, 20000)).save(buffer, "PNG")
    with pytest.raises(Misuse, match="decompression bomb"):
        image()(buffer.getvalue())


@pytest.mark.parametrize(
    ("keys", "raw", "says"),
    [
        ({}, np.zeros((4, 4, 3), np.float32), "uint8 array"),
        ({"dtype": "uint8", "mean": 300}, pixels(), "do not fit dtype uint8"),
        ({}, {"y": pixels()}, "unknown input 'y'"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], raw: Any, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        image(**keys)(raw)


def test_damaged_plain_data_is_refused() -> None:
    for data in ({}, {"inputs": []}, {"inputs": [1]}, {"inputs": [{"kind": "image"}]}):
        with pytest.raises(Misuse):
            preprocessing_from_dict(data)
    with pytest.raises(Misuse, match="did you mean 'crop'"):
        image(cropp=3)
    with pytest.raises(Misuse, match="differ in shape"):
        image().finish([image().prepare(pixels(4)), image().prepare(pixels(5))])
