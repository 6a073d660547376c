# SPDX-License-Identifier: Apache-2.0
"""What is known of a model's shape buckets before any of their requests ran."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from burnish.serving.lane import ServedShape
from burnish.serving.latency_model import LatencyModel
from burnish.serving.request import Axes
from burnish.serving.rows import Rows
from burnish.serving.shape_buckets import Padding

_LEAST_SCALE = 1e-3


class BucketShapes:
    """The bundle's table, scaled by the size of a bucket against that of the usual one."""

    def __init__(
        self,
        rows: Rows,
        padding: Padding,
        table: Sequence[tuple[int, float]],
        table_axes: Mapping[str, int],
        max_batch_size: int,
    ) -> None:
        """`table`: milliseconds by batch size, measured with the free axes at `table_axes`."""
        self.free_axes = frozenset(
            size or f"{spec.name}.{place}"
            for spec in rows.signature.inputs
            for place, size in enumerate(spec.shape)
            if not isinstance(size, int) and (place or not rows.batched)
        )
        """The axes of which requests have sizes of their own, the batch left out."""
        largest = {axis: sizes[-1] for axis, sizes in padding.sizes.items()} | dict(table_axes)
        self.usual: Axes = tuple(sorted((axis, largest.get(axis, 1)) for axis in self.free_axes))
        """The bucket that the table is for: as measured, else as padded at most, else 1."""
        self._rows, self._table, self._max_batch_size = rows, table, max_batch_size

    def known(self, bucket: Axes) -> ServedShape:
        """Returns what is known of a bucket."""
        scale = max(_LEAST_SCALE, _elements(bucket) / max(1, _elements(self.usual)))
        latency = LatencyModel(
            [(rows, ms * scale) for rows, ms in self._table], self._max_batch_size
        )
        return ServedShape(latency, self._rows.row_bytes(bucket))


def _elements(bucket: Axes) -> int:
    return math.prod(size for _, size in bucket)
