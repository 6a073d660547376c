# SPDX-License-Identifier: Apache-2.0
"""Residual networks for 32×32 images, with the CIFAR-10 weights of akamaster's repository.

Source: He et al. 2015 (arXiv:1512.03385), section 4.2; the shortcuts are its option A.
Weights: github.com/akamaster/pytorch_resnet_cifar10, BSD 2-clause; the files
`cifar10_models/akamaster/resnet*.th` in the folder named by BURNISH_DATA.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

_FILES = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}
_SHA256 = {
    20: "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    56: "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
}


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.new_channels = n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.new_channels:  # every other pixel, and zeros for the channels that are new
            side = self.new_channels // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return functional.relu(x + y)


class CifarResNet(nn.Module):
    """6n + 2 layers: a convolution, three stages of n blocks, a classifier of 10 classes."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        n_blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, n_blocks)
        self.layer2 = _stage(16, 32, 2, n_blocks)
        self.layer3 = _stage(32, 64, 2, n_blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits, (batch, 10), of normalized RGB images, (batch, 3, 32, 32)."""
        x = functional.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(n_in: int, n_out: int, stride: int, n_blocks: int) -> nn.Sequential:
    first = Block(n_in, n_out, stride)
    return nn.Sequential(first, *(Block(n_out, n_out, 1) for _ in range(n_blocks - 1)))


def resnet20() -> CifarResNet:
    """Returns ResNet-20 with its trained weights."""
    return _trained(20)


def resnet56() -> CifarResNet:
    """Returns ResNet-56 with its trained weights."""
    return _trained(56)


def _trained(depth: int) -> CifarResNet:
    file = _FILES[depth]
    folder = os.environ.get("BURNISH_DATA")
    if not folder:
        raise FileNotFoundError(
            "set BURNISH_DATA to the folder that holds cifar10_models/akamaster"
        )
    content = (Path(folder) / "cifar10_models" / "akamaster" / file).read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256[depth]:
        raise ValueError(f"{file} is not the file that was published: its SHA-256 differs")
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["state_dict"]
    network = CifarResNet(depth)
    network.load_state_dict({name.removeprefix("module."): one for name, one in saved.items()})
    return network.eval()
