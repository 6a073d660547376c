# SPDX-License-Identifier: Apache-2.0
"""Opens the source that a split's table names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from burnish.core.errors import Misuse
from burnish.data.preprocessing import InputPreprocessing
from burnish.data.readers.arrays import npy_source, npz_source
from burnish.data.readers.csv_file import csv_source
from burnish.data.readers.function import function_source
from burnish.data.readers.image_folder import image_folder_source
from burnish.data.readers.image_pack import image_pack_source
from burnish.data.readers.image_tar import image_tar_source
from burnish.data.readers.parquet import parquet_source
from burnish.data.readers.source import Source
from burnish.data.samples import SourceSamples
from burnish.data.selection import Selection
from burnish.data.toml_table import Table

Opener = Callable[[Table, Mapping[str, int]], Source | None]
OPENERS: dict[str, Opener] = {
    "npz": lambda table, classes: npz_source(table),
    "npy": lambda table, classes: npy_source(table),
    "image_folder": image_folder_source,
    "image_tar": image_tar_source,
    "image_pack": lambda table, classes: image_pack_source(table),
    "csv": csv_source,
    "parquet": parquet_source,
    "function": lambda table, classes: function_source(table),
}
"""The sources by name. Each notes faults in the table, and returns None when there are any."""


def open_split(
    table: Table, preprocessing: InputPreprocessing | None, classes: tuple[str, ...]
) -> SourceSamples | None:
    """Returns the samples of a split's table; faults are noted in it."""
    before = len(table.faults)
    selection = Selection.from_table(table)
    table.need("source", f"one of {', '.join(OPENERS)}")
    kind = table.text("source", one_of=OPENERS)
    if kind is None:
        return None
    numbers = {name: number for number, name in enumerate(classes)}
    try:
        source = OPENERS[kind](table, numbers)
        table.finish()
        if source is None or preprocessing is None or len(table.faults) > before:
            return None
        split = SourceSamples(source, preprocessing, selection, len(classes) or None)
        _ = split.rows
    except Misuse as error:
        table.fault(str(error))
        return None
    return split
