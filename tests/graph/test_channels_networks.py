# SPDX-License-Identifier: Apache-2.0
"""Channel groups of real exports are those that the architectures imply, and cut exactly."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_channels_random import check_equal, random_inputs, run

from burnish.core.model import Model
from burnish.graph.channels import ChannelGroup, channel_groups, cut, describe
from burnish.graph.cost import cost
from burnish.techniques.fuse import Fuse

torch = pytest.importorskip("torch")

import torch_networks as networks  # noqa: E402 - needs torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "cifar10"))


def imported(network: torch.nn.Module, *example: torch.Tensor) -> Model:
    """Returns the model of a network whose BatchNormalization has seen something."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return Model.from_torch(network.eval(), *example)


def free(groups: tuple[ChannelGroup, ...]) -> list[ChannelGroup]:
    return [group for group in groups if group.locked is None]


def holding(groups: tuple[ChannelGroup, ...], initializer: str, axis: int) -> list[ChannelGroup]:
    return [
        group
        for group in groups
        if any((one.initializer, one.axis) == (initializer, axis) for one in group.slices)
    ]


def image() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16)


def tokens() -> torch.Tensor:
    return torch.randint(0, 50, (2, 9))


CASES = {
    "resnet": (networks.ResNet, image, {16: 5, 32: 5, 64: 1}),
    "resnext": (lambda: networks.ResNet(groups=4), image, {16: 1, 4: 2, 32: 1, 8: 4, 64: 1}),
    "mobilenet": (networks.MobileNet, image, {8: 1, 32: 2, 12: 1, 48: 1}),
    "squeeze": (
        lambda: networks.MobileNet(excite=True),
        image,
        {8: 1, 32: 2, 6: 3, 12: 1, 48: 1},
    ),
    "densenet": (networks.DenseNet, image, {8: 1, 4: 3, 10: 1}),
    "vgg": (networks.Vgg, image, {8: 1, 12: 1, 20: 1}),
    "unet": (networks.UNet, image, {8: 2, 4: 2, 6: 1}),
    "vit": (networks.VisionTransformer, image, {4: 2, 96: 2}),
    "bert": (networks.Bert, tokens, {4: 2, 96: 2, 16: 1}),
    "bag of words": (networks.BagOfWords, tokens, {12: 1, 8: 1}),
    "audio": (networks.AudioNet, lambda: torch.randn(2, 4, 20), {12: 1}),
    "torch's encoder": (
        lambda: torch.nn.TransformerEncoderLayer(24, 4, 48, batch_first=True),
        lambda: torch.randn(2, 7, 24),
        {4: 1, 48: 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_groups_of_a_network(name: str) -> None:
    torch.manual_seed(0)
    build, example, sizes = CASES[name]
    model = imported(build(), example())
    groups = check_equal(model, 0)
    assert Counter(group.size for group in free(groups)) == sizes
    for seed in range(1, 4):
        check_equal(model, seed)


@pytest.mark.slow
def test_networks_stay_exact_when_fused() -> None:
    torch.manual_seed(0)
    for build in (networks.ResNet, networks.MobileNet):
        model = imported(build(), image())
        fused = Fuse().apply(model).model
        before, after = free(channel_groups(model)), free(check_equal(fused, 0))
        assert [one.size for one in before] == [one.size for one in after]


@pytest.mark.slow
def test_shuffled_halves_are_tied() -> None:
    torch.manual_seed(0)
    model = imported(networks.ShuffleNet(), image())
    groups = check_equal(model, 0)
    assert {one.size for one in holding(groups, "last.weight", 0)} == {12}


@pytest.mark.slow
def test_padded_shortcuts_give_groups_of_their_own() -> None:
    """CIFAR ResNets' shortcuts put the 16 channels in the middle of the 32, those in the 64."""
    from resnet import CifarResNet

    torch.manual_seed(0)
    model = imported(CifarResNet(20), torch.randn(2, 3, 32, 32))
    groups = check_equal(model, 1)
    last = holding(groups, "linear.weight", 1)
    assert [one.size for one in last] == [16, 16, 32]
    places = [
        tuple(p[0] for p in one.positions)
        for group in last
        for one in group.slices
        if one.initializer == "linear.weight"
    ]
    assert places == [tuple(range(24, 40)), (*range(16, 24), *range(40, 48)),
                      (*range(16), *range(48, 64))]  # fmt: skip
    assert all(group.locked is None for group in last)
    halved = cut(model, {group.name: range(0, group.size, 2) for group in free(groups)})
    assert cost(Model(halved)).macs < 0.3 * cost(model).macs


def test_whole_heads_go() -> None:
    torch.manual_seed(0)
    model = imported(networks.VisionTransformer(depth=1), image())
    groups = channel_groups(model)
    (heads,) = holding(groups, "blocks.0.attention.out.weight", 1)
    assert (heads.size, heads.locked) == (4, None)
    (packed,) = [one for one in heads.slices if "qkv.weight" in one.initializer]
    # Head 1 of width 6: its queries, its keys, its values.
    assert packed.positions[1] == (*range(6, 12), *range(30, 36), *range(54, 60))
    assert (packed.axis, packed.role) == (0, "producer")
    small = cut(model, {heads.name: [0, 3]})
    assert small.graph.initializers["blocks.0.attention.qkv.weight"].shape == (36, 24)
    (width,) = holding(groups, "patches.weight", 0)
    assert "normalizes over it" in str(width.locked)


def test_flattened_maps_have_a_column_for_each_place() -> None:
    torch.manual_seed(0)
    model = imported(networks.Vgg(), image())
    (group,) = holding(channel_groups(model), "head.0.weight", 1)
    (columns,) = [one for one in group.slices if one.initializer == "head.0.weight"]
    assert columns.positions[2] == tuple(range(128, 192))
    assert columns.role == "consumer"
    text = describe([group])
    assert "head.0.weight axis 1 (64 each): consumer of Gemm" in text


@pytest.mark.slow
def test_order_of_channels_is_kept() -> None:
    torch.manual_seed(0)
    model = imported(networks.Vgg(), image())
    (group,) = holding(channel_groups(model), "features.0.weight", 0)
    small = cut(model, {group.name: [5, 1, 6]})
    weights = model.edit().graph.initializers["features.0.weight"].const_value.numpy()
    got = small.graph.initializers["features.0.weight"].const_value.numpy()
    np.testing.assert_array_equal(got, weights[[1, 5, 6]])
    assert run(small, random_inputs(model, np.random.default_rng(0)))[0].shape == (3, 5)
