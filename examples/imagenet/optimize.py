# SPDX-License-Identifier: Apache-2.0
"""Optimizes GoogLeNet, or SqueezeNet: BURNISH_DATA=… python optimize.py squeezenet."""

import sys
from pathlib import Path

import networks

import burnish as bn
from burnish.engines.torch import TorchEager

here, name = Path(__file__).parent, sys.argv[1] if len(sys.argv) > 1 else "googlenet"
task = bn.Task.load(here / f"{name}.toml")
network = getattr(networks, name)()
example = next(iter(task.split("validation").batches(2))).inputs
model = bn.Model.from_torch(network, dict(example), source=name)
eager = TorchEager(network, ["image"], ["output"])
result = bn.optimize(model, task, bn.Goal(max_drop=1.0), budget="5 min", source=eager)
print(result.table())
print(result.save(here.parents[1] / "out" / name).path)
