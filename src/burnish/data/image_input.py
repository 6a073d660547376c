# SPDX-License-Identifier: Apache-2.0
"""Turns images into a model input: decode, resize, crop, scale, mean and std, layout, type.

The steps are always in that order. EXIF orientation is not applied, as training pipelines
built on Pillow do not either.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from burnish.core.errors import Misuse
from burnish.data.normalization import Normalization
from burnish.data.toml_table import Table

MOST_PIXELS = 1 << 26
"""The largest image that is decoded: 64 Mi pixels, a quarter of a gigabyte."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError,
    ZeroDivisionError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


@dataclass(frozen=True)
class ImageInput:
    """One input that takes images: encoded bytes, or uint8 arrays (height, width, channels).

    `resize`: one number for the shorter side, or (height, width). `crop`: the centre, one
    number or (height, width). An array with three channels is taken as RGB. `mean` and
    `std` follow the order of `channels`.
    """

    input: str
    channels: str = "rgb"
    resize: tuple[int, ...] = ()
    interpolation: str = "bilinear"
    crop: tuple[int, ...] = ()
    normalization: Normalization = field(default_factory=Normalization)
    layout: str = "NCHW"
    kind: ClassVar[str] = "image"

    @staticmethod
    def from_table(table: Table, name: str) -> ImageInput:
        """Returns what a preprocessing table says; faults are noted in it."""
        channels = table.text("channels", one_of=_CHANNELS) or "rgb"
        normalization = Normalization.from_table(table)
        for key in ("mean", "std"):
            count = len(getattr(normalization, key))
            if count not in (0, 1, _CHANNELS[channels]):
                table.fault(
                    f"{key} must have 1 or {_CHANNELS[channels]} numbers for {channels}, "
                    f"got {count}"
                )
        return ImageInput(
            name,
            channels,
            _sides(table, "resize"),
            table.text("interpolation", one_of=_INTERPOLATIONS) or "bilinear",
            _sides(table, "crop"),
            normalization,
            table.text("layout", one_of=["NCHW", "NHWC"]) or "NCHW",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, which `from_table` reads."""
        data: dict[str, Any] = {"input": self.input, "kind": self.kind, "channels": self.channels}
        if self.resize:
            data["resize"] = list(self.resize) if len(self.resize) > 1 else self.resize[0]
            data["interpolation"] = self.interpolation
        if self.crop:
            data["crop"] = list(self.crop) if len(self.crop) > 1 else self.crop[0]
        return {**data, **self.normalization.to_dict(), "layout": self.layout}

    def prepare(self, raw: Any) -> NDArray[np.uint8]:
        """Returns one image decoded, resized and cropped: (height, width, channels).

        Raises `Misuse` when it is damaged, too large, or smaller than the crop.
        """
        array = self._pixels(raw)
        if self.crop:
            height, width = self.crop if len(self.crop) == 2 else self.crop * 2
            if array.shape[0] < height or array.shape[1] < width:
                raise Misuse(
                    f"the image is {array.shape[0]}×{array.shape[1]} (height × width), smaller "
                    f"than the crop {height}×{width}: resize it first"
                )
            top = round((array.shape[0] - height) / 2)
            left = round((array.shape[1] - width) / 2)
            array = array[top : top + height, left : left + width]
        return array[..., ::-1] if self.channels == "bgr" else array

    def finish(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """Returns the batch: normalized, laid out and of the input's type."""
        batch = self.normalization.apply(np.stack(images))
        if self.layout == "NCHW":
            batch = batch.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(batch)

    def _pixels(self, raw: Any) -> NDArray[np.uint8]:
        mode = "L" if self.channels == "gray" else "RGB"
        if isinstance(raw, bytes | bytearray | memoryview):
            image = _decode(raw, mode)
        else:
            array = _array(raw)
            if not self.resize and (array.shape[2] == 3) == (mode == "RGB"):
                return array
            squeezed = array[..., 0] if array.shape[2] == 1 else array
            image = Image.fromarray(np.ascontiguousarray(squeezed)).convert(mode)
        if self.resize:
            size = _resized(image.size, self.resize)
            if size != image.size:
                image = image.resize(size, _INTERPOLATIONS[self.interpolation])
        array = np.asarray(image)
        return array if array.ndim == 3 else array[..., None]


def _sides(table: Table, key: str) -> tuple[int, ...]:
    value = table.value(key)
    if isinstance(value, list | tuple):
        sides = table.wholes(key, least=1, count=2) or ()
    else:
        side = table.whole(key, least=1)
        sides = () if side is None else (side,)
    if any(side > 1 << 13 for side in sides):
        table.fault(f"{key} must be at most {1 << 13} pixels, got {list(sides)}")
    return sides


def _resized(size: tuple[int, int], resize: tuple[int, ...]) -> tuple[int, int]:
    """Returns the new (width, height); the longer side is rounded down, as torchvision does."""
    if len(resize) == 2:
        return resize[1], resize[0]
    short, (width, height) = resize[0], size
    if width <= height:
        new = (short, max(1, short * height // width))
    else:
        new = (max(1, short * width // height), short)
    if new[0] * new[1] > MOST_PIXELS:
        raise Misuse(f"an image of {width}×{height} would be resized to {new[0]}×{new[1]} pixels")
    return new


def _decode(raw: Any, mode: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Misuse(
                    f"the image is {image.width}×{image.height}: more than {MOST_PIXELS} pixels "
                    "are not decoded"
                )
            if image.mode[0] in "IF":
                raise Misuse(
                    f"the image has pixels of mode {image.mode}; only 8 bits a channel are read: "
                    "give such data as arrays"
                )
            return image.convert(mode)
    except _DAMAGED as error:
        raise Misuse(f"cannot decode the image ({len(raw)} bytes): {error}") from error


def _array(raw: Any) -> NDArray[np.uint8]:
    array = np.asarray(raw)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise Misuse(
            "an image must be encoded bytes or a uint8 array (height, width, 1 or 3), got "
            f'{array.dtype} {array.shape}; for other arrays use kind = "array"'
        )
    if array.shape[0] * array.shape[1] > MOST_PIXELS:
        raise Misuse(f"the image has shape {array.shape}: over {MOST_PIXELS} pixels")
    return array
