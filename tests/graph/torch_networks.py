# SPDX-License-Identifier: Apache-2.0
"""Small networks of every usual family, for tests that need real exports."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    """A residual block whose 3×3 convolution may be grouped (ResNeXt)."""

    def __init__(self, n_in: int, width: int, n_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(n_in, width, 1),
            nn.ReLU(),
            *conv_bn(width, width, 3, stride, groups),
            nn.ReLU(),
            *conv_bn(width, n_out, 1),
        )
        same = stride == 1 and n_in == n_out
        self.short = nn.Identity() if same else nn.Sequential(*conv_bn(n_in, n_out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.short(x))


def conv_bn(
    n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    pad = kernel // 2
    conv = nn.Conv2d(n_in, n_out, kernel, stride, pad, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(n_out)]


class ResNet(nn.Module):
    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.Sequential(
            Bottleneck(16, 16, 32, 1, groups),
            Bottleneck(32, 16, 32, 1, groups),
            Bottleneck(32, 32, 64, 2, groups),
            Bottleneck(64, 32, 64, 1, groups),
        )
        self.fc = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(functional.adaptive_avg_pool2d(self.blocks(self.stem(image)), 1).flatten(1))


class InvertedResidual(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int, excite: bool) -> None:
        super().__init__()
        wide = 4 * n_in
        self.expand = nn.Sequential(*conv_bn(n_in, wide, 1), nn.Hardswish())
        self.depthwise = nn.Sequential(*conv_bn(wide, wide, 3, stride, wide), nn.Hardswish())
        self.squeeze = (
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 6, 1), nn.ReLU(), nn.Conv2d(6, wide, 1)
            )
            if excite
            else None
        )
        self.project = nn.Sequential(*conv_bn(wide, n_out, 1))
        self.same = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            y = y * torch.sigmoid(self.squeeze(y))
        y = self.project(y)
        return x + y if self.same else y


class MobileNet(nn.Module):
    """MobileNetV2's blocks, with V3's squeeze-and-excitation when asked."""

    def __init__(self, excite: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8, 3, 2), nn.Hardswish())
        sizes = [(8, 8, 1), (8, 12, 2), (12, 12, 1)]
        self.blocks = nn.Sequential(*(InvertedResidual(a, b, s, excite) for a, b, s in sizes))
        self.fc = nn.Linear(12, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(image)).mean((2, 3)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.transition = nn.Conv2d(20, 10, 1)
        self.fc = nn.Linear(10, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat((x, conv(functional.relu(norm(x)))), 1)
        return self.fc(functional.avg_pool2d(self.transition(x), 2).mean((2, 3)))


class ShuffleNet(nn.Module):
    """A unit of ShuffleNetV2: halves, one transformed, then shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch = nn.Sequential(
            *conv_bn(8, 8, 1), nn.ReLU(), *conv_bn(8, 8, 3, 1, 8), *conv_bn(8, 8, 1)
        )
        self.last = nn.Conv2d(16, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        left, right = self.stem(image).chunk(2, 1)
        x = torch.cat((left, self.branch(right)), 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(functional.relu(self.last(x)).mean((2, 3)))


class Vgg(nn.Module):
    """Convolutions, then a flattened map into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1),
        )
        self.head = nn.Sequential(nn.Linear(12 * 8 * 8, 20), nn.PReLU(20), nn.Linear(20, 5))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(functional.relu(self.features(image)).flatten(1))


class UNet(nn.Module):
    """Down, up by a transposed convolution, by pixel shuffle and by resizing, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.shuffle = nn.Conv2d(16, 24, 1)
        self.side = nn.Conv2d(16, 4, 1)
        self.last = nn.Conv2d(8 + 8 + 6 + 4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = functional.leaky_relu(self.first(image))
        coarse = functional.silu(self.norm(self.down(fine)))
        shuffled = functional.pixel_shuffle(self.shuffle(coarse), 2)
        larger = functional.interpolate(self.side(coarse), scale_factor=2, mode="nearest")
        return self.last(torch.cat((fine, self.up(coarse), shuffled, larger), 1))


class Attention(nn.Module):
    """Multi-head attention; `packed` makes queries, keys and values by one product."""

    def __init__(self, width: int, heads: int, packed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.packed = packed
        if packed:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        if self.packed:
            q, k, v = (
                self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            )
        else:
            q, k, v = (
                layer(x).view(b, n, self.heads, c // self.heads).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, c))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, packed: bool) -> None:
        super().__init__()
        self.attention = Attention(width, heads, packed)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first(x))
        return x + self.mlp(self.second(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 24, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads, packed=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.fc(self.norm(self.blocks(x))[:, 0])


class Bert(nn.Module):
    def __init__(self, width: int = 24, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, width), nn.Embedding(64, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Encoder(width, heads, packed=False) for _ in range(depth)))
        self.pool, self.fc = nn.Linear(width, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.fc(torch.tanh(self.pool(self.blocks(self.norm(x))[:, 0])))


class BagOfWords(nn.Module):
    """An embedding whose width nothing normalizes over."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.fc = nn.Embedding(50, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(torch.relu(self.hidden(self.words(ids).mean(1))))


class AudioNet(nn.Module):
    """Convolutions in one dimension, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(4, 12, 5, padding=2), nn.BatchNorm1d(12), nn.ReLU(), nn.MaxPool1d(2)
        )
        self.lstm = nn.LSTM(12, 6, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, wave: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.conv(wave).transpose(1, 2))
        return self.fc(hidden.mean(1))
