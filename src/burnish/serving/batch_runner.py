# SPDX-License-Identifier: Apache-2.0
"""One batch on one stream's thread: its inputs gathered, the engine run, both timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from burnish.engines.engine import Session
from burnish.serving.landing import Landing
from burnish.serving.request import Axes, Batch
from burnish.serving.rows import Arrays, Piece, Rows
from burnish.serving.shape_buckets import fitting


class Asked(NamedTuple):
    """The inputs of a request, and the sizes of their free axes."""

    inputs: Arrays
    axes: Axes


class Ran(NamedTuple):
    """A batch that has run, with its times, or the error that it ended in."""

    batch: Batch
    pieces: list[Piece]
    outputs: Arrays
    gather_ms: float
    run_ms: float
    ended_ms: float
    error: BaseException | None = None


class BatchRunner:
    """Runs batches of one model; streams share the session, and where bodies land."""

    def __init__(
        self, session: Session, rows: Rows, landing: Landing, streams: int, max_buckets: int
    ) -> None:
        self._session, self._rows, self._landing = session, rows, landing
        self._max_buckets = max_buckets
        self._buffers: list[dict[Axes, dict[str, NDArray[Any]]]] = [{} for _ in range(streams)]

    def run(self, stream: int, batch: Batch, asked: Sequence[Asked | None]) -> Ran:
        """Returns what came of a batch, errors too.

        asked: what its parts are of, in their order; None where the client went away.
        """
        began_ms = gathered_ms = now_ms()
        pieces: list[Piece] = []
        outputs: Arrays = {}
        error: BaseException | None = None
        try:
            sizes = batch.bucket
            if sizes and any(asked):
                sizes = fitting(sizes, [one.axes for one in asked if one is not None])
            for part, one in zip(batch.parts, asked, strict=True):
                if one is not None:
                    arrays = one.inputs
                else:  # zeros keep the others' rows in place
                    arrays = self._rows.zeros(part.first_row + part.rows, sizes)
                pieces.append(Piece(arrays, part.first_row, part.rows, part.batch_row))
            gathered, pieces = self._gathered(stream, sizes, pieces)
            gathered_ms = now_ms()
            outputs = self._session.execute(gathered)
        except BaseException as caught:  # noqa: BLE001 - the worker: whoever asked is told
            error = caught
        ended_ms = now_ms()
        gather_ms, run_ms = gathered_ms - began_ms, ended_ms - gathered_ms
        return Ran(batch, pieces, outputs, gather_ms, run_ms, ended_ms, error)

    def _gathered(
        self, stream: int, bucket: Axes, pieces: list[Piece]
    ) -> tuple[Arrays, list[Piece]]:
        """Returns the inputs of a batch, and the pieces with where they stand in it."""
        spanned = self._landing.span(pieces) if len(pieces) > 1 else None
        if spanned is None:
            return self._rows.gather(pieces, bucket, self._kept(stream, bucket)), pieces
        batch, placed = spanned
        return {self._landing.input: batch}, placed

    def _kept(self, stream: int, bucket: Axes) -> dict[str, NDArray[Any]]:
        """Returns where batches of the bucket are gathered; the least recently used go."""
        kept = self._buffers[stream]
        buffers = kept.pop(bucket, {})
        while len(kept) >= self._max_buckets:
            del kept[next(iter(kept))]
        kept[bucket] = buffers
        return buffers


def now_ms() -> float:
    """Returns the time of perf_counter's clock, which all of a model's times are on."""
    return time.perf_counter() * 1e3
