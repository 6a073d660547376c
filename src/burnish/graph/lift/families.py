# SPDX-License-Identifier: Apache-2.0
"""Where the operators are: importing a family registers its operators."""

from __future__ import annotations

from importlib import import_module

FAMILIES = (
    "elementwise",
    "activation",
    "convolution",
    "pooling",
    "normalization",
    "matrix",
    "reduction",
    "shape",
    "indexing",
    "quantization",
    "attention",
    "recurrent",
    "resizing",
    "losses",
    "control",
    "signal",
)


def load() -> None:
    """Imports all families; costs nothing the second time."""
    for name in FAMILIES:
        import_module(f"burnish.graph.lift.{name}")
