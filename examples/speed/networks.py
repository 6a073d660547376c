# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 and MobileNetV2 with random weights: for speed alone, which weights do not change.

Sources: He et al. 2015 (arXiv:1512.03385), table 1, with the stride in the 3×3
convolution; Sandler et al. 2018 (arXiv:1801.04381), table 2. The statistics of
BatchNormalization are taken from noise, so that activations keep an ordinary size.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Network = TypeVar("Network", bound=nn.Module)
_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride
_INVERTED = (  # expansion, outputs, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(n_in, width, 1),
            nn.ReLU(),
            *_conv(width, width, 3, stride),
            nn.ReLU(),
            *_conv(width, 4 * width, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if n_in != 4 * width:
            self.shortcut = nn.Sequential(*_conv(n_in, 4 * width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; beside a shortcut where shapes allow."""

    def __init__(self, n_in: int, n_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = n_in * expansion
        widen = [*_conv(n_in, width, 1), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(
            *widen,
            *_conv(width, width, 3, stride, groups=width),
            nn.ReLU6(),
            *_conv(width, n_out, 1),
        )
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class Classifier(nn.Module):
    """Features, their mean over the image, and a linear layer of 1,000 classes."""

    def __init__(self, features: nn.Sequential, channels: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(channels, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits, (batch, 1000), of images, (batch, 3, 224, 224)."""
        return self.classifier(self.features(image).mean((2, 3)))


def resnet50() -> Classifier:
    """Returns ResNet-50: 25.6 million parameters, random."""
    torch.manual_seed(0)
    layers = [*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    n_in = 64
    for width, n_blocks, stride in _STAGES:
        for block in range(n_blocks):
            layers.append(Bottleneck(n_in, width, stride if block == 0 else 1))
            n_in = 4 * width
    return _with_statistics(Classifier(nn.Sequential(*layers), n_in))


def mobilenet_v2() -> Classifier:
    """Returns MobileNetV2 of width 1: 3.5 million parameters, random."""
    torch.manual_seed(0)
    layers = [*_conv(3, 32, 3, 2), nn.ReLU6()]
    n_in = 32
    for expansion, n_out, n_blocks, stride in _INVERTED:
        for block in range(n_blocks):
            layers.append(InvertedResidual(n_in, n_out, expansion, stride if block == 0 else 1))
            n_in = n_out
    layers += [*_conv(n_in, 1280, 1), nn.ReLU6()]
    return _with_statistics(Classifier(nn.Sequential(*layers), 1280))


def _conv(n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(n_out)]


def _with_statistics(network: Network) -> Network:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of the batches
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 112, 112))
    return network.eval()
