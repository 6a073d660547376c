# SPDX-License-Identifier: Apache-2.0
"""Optimizes ResNet-56 for CIFAR-10 on this machine: BURNISH_DATA=… python optimize.py."""

from pathlib import Path

from resnet import resnet56

import burnish as bn
from burnish.engines.torch import TorchEager

here = Path(__file__).parent
task = bn.Task.load(here / "task.toml")
network = resnet56()
example = next(iter(task.split("validation").batches(2))).inputs
model = bn.Model.from_torch(network, dict(example), source="ResNet-56")
eager = TorchEager(network, ["image"], ["output"])
result = bn.optimize(model, task, bn.Goal(max_drop=0.5), budget="5 min", source=eager)
print(result.table())
print(result.save(here.parents[1] / "out" / "resnet56").path)
