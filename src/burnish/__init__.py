# SPDX-License-Identifier: Apache-2.0
"""Burnish makes a trained network smaller and faster, and proves that it still does its job.

The names here are loaded when first used, so that `import burnish` is quick and loads
neither PyTorch nor an engine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime 1.29 and later write an identifier to disk and report home, unless this is set
# before they are loaded; so it is set here, which comes before every import of ours.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from burnish.core.errors import Broken, BurnishError, Missing, Misuse, Unsupported
    from burnish.core.goal import Goal
    from burnish.core.measurement import Measurement
    from burnish.core.model import Model
    from burnish.core.recipe import Recipe
    from burnish.core.store import Store
    from burnish.core.task import Task
    from burnish.engines.deployed import open
    from burnish.optimizing.compare import compare, measure
    from burnish.optimizing.run import optimize
    from burnish.serving.client.awaiting import AsyncClient
    from burnish.serving.client.blocking import Client
    from burnish.serving.client.errors import (
        BadAnswer,
        DeadlineExceeded,
        ServerRefused,
        ServerUnreachable,
    )
    from burnish.techniques.distill.distill import Distill
    from burnish.techniques.fuse import Fuse
    from burnish.techniques.prune.blocks import PruneBlocks
    from burnish.techniques.prune.channels import PruneChannels
    from burnish.techniques.prune.schedule import PruneIteratively
    from burnish.techniques.prune.weights import PruneWeights
    from burnish.techniques.quantize.aware import QuantizeAware
    from burnish.techniques.quantize.static import QuantizeStatic
    from burnish.techniques.train.fine_tune import FineTune
    from burnish.techniques.train.recalibrate import Recalibrate

__version__ = "0.1.0"

_HOME = {
    "AsyncClient": "serving.client.awaiting",
    "BurnishError": "core.errors",
    "Broken": "core.errors",
    "Client": "serving.client.blocking",
    "BadAnswer": "serving.client.errors",
    "DeadlineExceeded": "serving.client.errors",
    "ServerRefused": "serving.client.errors",
    "ServerUnreachable": "serving.client.errors",
    "Missing": "core.errors",
    "Misuse": "core.errors",
    "Unsupported": "core.errors",
    "Goal": "core.goal",
    "Measurement": "core.measurement",
    "Model": "core.model",
    "Recipe": "core.recipe",
    "Store": "core.store",
    "Task": "core.task",
    "Fuse": "techniques.fuse",
    "QuantizeStatic": "techniques.quantize.static",
    "Recalibrate": "techniques.train.recalibrate",
    "QuantizeAware": "techniques.quantize.aware",
    "PruneWeights": "techniques.prune.weights",
    "PruneIteratively": "techniques.prune.schedule",
    "PruneChannels": "techniques.prune.channels",
    "PruneBlocks": "techniques.prune.blocks",
    "FineTune": "techniques.train.fine_tune",
    "Distill": "techniques.distill.distill",
    "compare": "optimizing.compare",
    "measure": "optimizing.compare",
    "open": "engines.deployed",
    "optimize": "optimizing.run",
}

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Broken",
    "BurnishError",
    "Client",
    "DeadlineExceeded",
    "Distill",
    "FineTune",
    "Fuse",
    "Goal",
    "Measurement",
    "Missing",
    "Misuse",
    "Model",
    "PruneBlocks",
    "PruneChannels",
    "PruneIteratively",
    "PruneWeights",
    "QuantizeAware",
    "QuantizeStatic",
    "Recalibrate",
    "Recipe",
    "ServerRefused",
    "ServerUnreachable",
    "Store",
    "Task",
    "Unsupported",
    "compare",
    "measure",
    "open",
    "optimize",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'burnish' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"burnish.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
