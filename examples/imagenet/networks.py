# SPDX-License-Identifier: Apache-2.0
"""GoogLeNet and SqueezeNet 1.1 with their published ImageNet weights.

Sources: Szegedy et al. 2014 (arXiv:1409.4842), table 1, as BVLC trained it for Caffe;
Iandola et al. 2016 (arXiv:1602.07360), version 1.1. The weights are `.npz` files in
`imagenet_models` of the folder named by BURNISH_DATA. Both networks take BGR pixels of
0..255 less (104, 117, 123), as Caffe's models do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)
_WEIGHTS = {
    "googlenet_bvlc.npz": "0dd02d754e6a74839456eb7d55769afe51273e54e0a54798aa4aa91d0b44d876",
    "squeezenet1_1.npz": "a5ab96dc54e7787dd86577e2d8a94696d944bd0861e464bfdc2e73cb4d4d1626",
}
_INCEPTIONS = {  # inputs; then outputs of 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}
_FIRES = (16, 16, 32, 32, 48, 48, 64, 64)  # squeezed channels of fire2 to fire9


class GoogLeNet(nn.Module):
    """Nine inception modules, with Caffe's rounding up of pooled sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.L = nn.ModuleDict(
            {
                "conv1_7x7_s2": nn.Conv2d(3, 64, 7, stride=2, padding=3),
                "conv2_3x3_reduce": nn.Conv2d(64, 64, 1),
                "conv2_3x3": nn.Conv2d(64, 192, 3, padding=1),
            }
        )
        for name, (n_in, one, reduce3, three, reduce5, five, pool) in _INCEPTIONS.items():
            self.L[f"inception_{name}_1x1"] = nn.Conv2d(n_in, one, 1)
            self.L[f"inception_{name}_3x3_reduce"] = nn.Conv2d(n_in, reduce3, 1)
            self.L[f"inception_{name}_3x3"] = nn.Conv2d(reduce3, three, 3, padding=1)
            self.L[f"inception_{name}_5x5_reduce"] = nn.Conv2d(n_in, reduce5, 1)
            self.L[f"inception_{name}_5x5"] = nn.Conv2d(reduce5, five, 5, padding=2)
            self.L[f"inception_{name}_pool_proj"] = nn.Conv2d(n_in, pool, 1)
        self.fc = nn.Linear(1024, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits, (batch, 1000), of images, (batch, 3, 224, 224)."""
        x = _local_norm(_halve(self._active("conv1_7x7_s2", image)))
        x = self._active("conv2_3x3", self._active("conv2_3x3_reduce", x))
        x = _halve(_local_norm(x))
        for name in _INCEPTIONS:
            x = self._inception(f"inception_{name}_", x)
            if name in ("3b", "4e"):
                x = _halve(x)
        return self.fc(x.mean((2, 3)))

    def _inception(self, name: str, x: Tensor) -> Tensor:
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1)
        branches = [
            self._active(name + "1x1", x),
            self._active(name + "3x3", self._active(name + "3x3_reduce", x)),
            self._active(name + "5x5", self._active(name + "5x5_reduce", x)),
            self._active(name + "pool_proj", pooled),
        ]
        return torch.cat(branches, dim=1)

    def _active(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(self.L[name](x))


class SqueezeNet(nn.Module):
    """Eight fire modules between a strided convolution and a 1×1 classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.L = nn.ModuleDict({"conv1": nn.Conv2d(3, 64, 3, stride=2)})
        n_in = 64
        for number, squeezed in enumerate(_FIRES, start=2):
            self.L[f"fire{number}_squeeze1x1"] = nn.Conv2d(n_in, squeezed, 1)
            self.L[f"fire{number}_expand1x1"] = nn.Conv2d(squeezed, 4 * squeezed, 1)
            self.L[f"fire{number}_expand3x3"] = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)
            n_in = 8 * squeezed
        self.L["conv10"] = nn.Conv2d(512, 1000, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits, (batch, 1000), of images, (batch, 3, 227, 227)."""
        x = _halve(functional.relu(self.L["conv1"](image)))
        for number in range(2, 2 + len(_FIRES)):
            squeezed = functional.relu(self.L[f"fire{number}_squeeze1x1"](x))
            expanded = [self.L[f"fire{number}_expand{size}"](squeezed) for size in ("1x1", "3x3")]
            x = functional.relu(torch.cat(expanded, dim=1))
            if number in (3, 5):
                x = _halve(x)
        return functional.relu(self.L["conv10"](x)).mean((2, 3))


def googlenet() -> GoogLeNet:
    """Returns GoogLeNet with its trained weights."""
    return _trained(GoogLeNet(), "googlenet_bvlc.npz")


def squeezenet() -> SqueezeNet:
    """Returns SqueezeNet 1.1 with its trained weights."""
    return _trained(SqueezeNet(), "squeezenet1_1.npz")


def _halve(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, stride=2, ceil_mode=True)


def _local_norm(x: Tensor) -> Tensor:
    return functional.local_response_norm(x, size=5, alpha=1e-4, beta=0.75)


def _trained(network: Network, file: str) -> Network:
    folder = os.environ.get("BURNISH_DATA")
    if not folder:
        raise FileNotFoundError("set BURNISH_DATA to the folder that holds imagenet_models")
    path = Path(folder) / "imagenet_models" / file
    if hashlib.sha256(path.read_bytes()).hexdigest() != _WEIGHTS[file]:
        raise ValueError(f"{file} is not the file that was converted: its SHA-256 differs")
    with np.load(path, allow_pickle=False) as arrays:
        network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return network.eval()
