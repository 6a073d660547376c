# SPDX-License-Identifier: Apache-2.0
"""Optimizes ResNet-50 and MobileNetV2 with random weights, for speed alone.

    python benchmarks/speed.py [--networks resnet50 mobilenet_v2] [--budget "3 min"]

Prints the table of each: the ratio is against the best fp32 engine. Weights do not change
speed, so random ones will do; accuracy means nothing here and is not judged.
"""

from __future__ import annotations

import argparse
import sys

import networks

import burnish as bn
from burnish.engines.torch import TorchEager


def main() -> None:
    """Runs the networks that the arguments ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=networks.RANDOM, default=networks.RANDOM)
    parser.add_argument("--budget", default="3 min", help="the budget of bn.optimize")
    parser.add_argument("--samples", type=int, default=16, help="images of noise to calibrate on")
    parser.add_argument("--save", help="a folder to write the bundles in")
    options = parser.parse_args()
    for name in options.networks:
        print(f"{name} …", file=sys.stderr, flush=True)
        model, task, module = networks.random(name, options.samples)
        result = bn.optimize(
            model,
            task,
            bn.Goal(max_drop=None),
            budget=options.budget,
            source=TorchEager(module, ["image"], ["output"]),
            command=f"python benchmarks/speed.py --networks {name} --budget {options.budget!r}",
        )
        print(result.table(), flush=True)
        if options.save:
            print(result.save(f"{options.save}/{name}").path)


if __name__ == "__main__":
    main()
