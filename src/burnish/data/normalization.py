# SPDX-License-Identifier: Apache-2.0
"""Scaling, mean and standard deviation, and the type of an input, in float32 arithmetic.

    y = (x × scale − mean) / std

>>> Normalization(scale="1/255", mean=(0.5,), std=(0.5,)).apply(np.array([[0, 255]], np.uint8))
array([[-1.,  1.]], dtype=float32)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.core.errors import Misuse
from burnish.data.toml_table import Table

DTYPES = (
    "float32",
    "float16",
    "float64",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "bool",
)


@dataclass(frozen=True)
class Normalization:
    """`scale` is a number or a fraction like "1/255"; `mean` and `std` are one number or one
    for each place on the last axis; () leaves them out. `dtype` is the result's.
    """

    scale: str = "1"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: str = "float32"

    @staticmethod
    def from_table(table: Table, dtype: str = "float32") -> Normalization:
        """Returns what a preprocessing table says; faults are noted in it."""
        scale = table.value("scale")
        scale = "1" if scale is None else str(scale)
        try:
            fine = Fraction(scale) != 0 and not isinstance(table.value("scale"), bool)
        except (ValueError, ZeroDivisionError):
            fine = False
        if not fine:
            table.fault(f'scale must be a number or a fraction like "1/255", got {scale!r}')
            scale = "1"
        mean, std = table.numbers("mean") or (), table.numbers("std") or ()
        if any(value <= 0 for value in std):
            table.fault(f"std must be above 0, got {list(std)}")
        if len(mean) > 1 and len(std) > 1 and len(mean) != len(std):
            table.fault(f"mean and std must be as long, got {len(mean)} and {len(std)}")
        return Normalization(scale, mean, std, table.text("dtype", one_of=DTYPES) or dtype)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, which `from_table` reads."""
        data: dict[str, Any] = {"scale": self.scale, "dtype": self.dtype}
        if self.mean:
            data["mean"] = list(self.mean)
        if self.std:
            data["std"] = list(self.std)
        return data

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Returns the normalized array, same shape. Raises `Misuse` when it does not fit."""
        dtype = np.dtype(self.dtype)
        scale = Fraction(self.scale)
        if scale != 1 or self.mean or self.std:
            for name, values in (("mean", self.mean), ("std", self.std)):
                if len(values) > 1 and len(values) != array.shape[-1]:
                    raise Misuse(f"{name} has {len(values)} numbers for {array.shape[-1]} channels")
            # Floats of 64 bits keep their precision; all else is done in float32, like torch.
            array = array.astype(np.float64 if dtype == np.float64 else np.float32)
            if scale.numerator != 1:
                array *= array.dtype.type(scale.numerator)
            if scale.denominator != 1:
                array /= array.dtype.type(scale.denominator)
            if self.mean:
                array -= np.array(self.mean, array.dtype)
            if self.std:
                array /= np.array(self.std, array.dtype)
        return _cast(array, dtype)


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iu" and array.dtype != dtype and array.size:
        limits = np.iinfo(dtype)
        low, high = array.min(), array.max()
        if not (low >= limits.min and high <= limits.max):  # NaN fails too
            raise Misuse(f"values {low}..{high} do not fit dtype {dtype}")
        if array.dtype.kind == "f":
            array = np.rint(array)
    return array.astype(dtype, copy=False)
