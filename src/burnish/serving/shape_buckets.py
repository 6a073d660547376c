# SPDX-License-Identifier: Apache-2.0
"""Which shapes may run together, and how far each is padded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from burnish.core.errors import Misuse
from burnish.serving.request import Axes

_STEP = 4
"""Sizes are rounded up to multiples of it, so that engines see few shapes, again and again."""


@dataclass(frozen=True)
class Padding:
    """The sizes to which a model declares that its free axes may be padded.

    `sizes` are ascending sizes by axis: {"sequence": (32, 64, 128)}. An axis that is not
    declared is never padded: only requests of equal size run together.
    """

    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis, sizes in self.sizes.items():
            if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
                raise Misuse(
                    f"the padding of axis {axis!r} must be ascending sizes above 0, got {sizes}"
                )

    def bucket(self, axes: Axes) -> Axes:
        """Returns the sizes to which a request is padded, by axis in the order of names.

        Raises `Misuse` when an axis is larger than its largest declared size.

        >>> Padding({"sequence": (32, 64)}).bucket((("sequence", 37), ("channels", 3)))
        (('channels', 3), ('sequence', 64))
        """
        if not axes:
            return axes
        return tuple((axis, self._padded(axis, size)) for axis, size in sorted(axes))

    def _padded(self, axis: str, size: int) -> int:
        declared = self.sizes.get(axis)
        if declared is None:
            return size
        if size > declared[-1]:
            raise Misuse(
                f"axis {axis!r} takes at most {declared[-1]}, got {size}: "
                "send a shorter input, or declare a larger size in the bundle"
            )
        return declared[bisect_left(declared, size)]


def fitting(bucket: Axes, requests: Sequence[Axes]) -> Axes:
    """Returns the sizes to which requests of a bucket are padded when they run together.

    The bucket says which may meet; what they are padded to is the largest of those that do,
    rounded up, and a request that runs alone is not padded at all.

    >>> fitting((("sequence", 64),), [(("sequence", 34),), (("sequence", 37),)])
    (('sequence', 40),)
    >>> fitting((("sequence", 64),), [(("sequence", 34),)])
    (('sequence', 34),)
    """
    if len(requests) == 1:
        return requests[0]
    largest = [max(size for _, size in sizes) for sizes in zip(*requests, strict=True)]
    return tuple(
        (axis, min(most, -(-size // _STEP) * _STEP))
        for (axis, most), size in zip(bucket, largest, strict=True)
    )
