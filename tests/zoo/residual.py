"""ResNet under several norms, DenseNet, GoogLeNet, Inception, and the video ResNets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.zoo.expectation import Expectation, Rule, SecondOrder, ends, everything, nothing, zoo

__all__ = ["RESIDUAL"]

_SMALL = partial(torch.rand, 2, 3, 64, 64)

# The stem, 8 BasicBlocks of two convolutions, and a 1x1 downsampling in layer2, layer3 and layer4.
_RESNET18 = 1 + 8 * 2 + 3
# The stem, 3 + 4 + 6 + 3 Bottlenecks of three, and a downsampling in every layer (64 -> 256 in layer1, too).
_RESNET50 = 1 + 16 * 3 + 4


def _resnet18(label: str, norm: Callable[..., nn.Module] | None, affine: int, **changes: Any) -> Expectation:
    bare: Rule = changes.pop("bare", nothing)
    gains = _RESNET18 if bare is everything else 0
    return Expectation(
        model=label,
        build=zoo("resnet18", norm_layer=norm),
        convolutions=_RESNET18,
        bare=bare,
        bare_count=gains,
        why=changes.pop(
            "why", "BasicBlock.forward: conv1, bn1, relu, conv2, bn2; the residual is added after bn2"
        ),
        # Convolutions have bias=False; fc has one.
        second_order=SecondOrder(norms=affine, gain=gains, bias=1),
        example=_SMALL,
        **changes,
    )


_RESNET18_NORMS = {
    "conv1": "bn1",
    "layer1.0.conv1": "layer1.0.bn1",
    "layer2.0.downsample.0": "layer2.0.downsample.1",
    "layer4.1.conv2": "layer4.1.bn2",
}

_RESNETS = (
    _resnet18("resnet18", None, 20, norms=_RESNET18_NORMS, via={"layer1.0.conv1": ()}),
    _resnet18(
        "resnet18 with group norm",
        partial(nn.GroupNorm, 32),
        20,
        norms=_RESNET18_NORMS,
        # A group norm's statistics mix the channels of a group (64 / 32 = 2 of them, and more further on).
        absorbing=everything,
    ),
    # InstanceNorm2d keeps statistics of each channel, so nothing is bare; it has no affine by default.
    _resnet18("resnet18 with instance norm", nn.InstanceNorm2d, 0, norms=_RESNET18_NORMS),
    _resnet18(
        "resnet18 with frozen batch norm",
        FrozenBatchNorm2d,
        0,
        bare=everything,
        why="FrozenBatchNorm2d.forward: x * scale + bias with buffers; it has no statistics and no "
        "parameters",
    ),
    Expectation(
        model="resnet50",
        build=zoo("resnet50"),
        convolutions=_RESNET50,
        bare=nothing,
        bare_count=0,
        why="Bottleneck.forward: conv1, bn1, conv2, bn2, conv3, bn3; the residual is added after bn3",
        second_order=SecondOrder(norms=_RESNET50, bias=1),
        norms={"layer1.0.conv3": "layer1.0.bn3", "layer1.0.downsample.0": "layer1.0.downsample.1"},
    ),
)

# A _DenseLayer has conv1 and conv2: 6 + 12 + 24 + 16 layers. Three transitions and the stem have one more
# each.
_DENSE_LAYERS = 6 + 12 + 24 + 16
_DENSENET_NORMS = {
    "features.conv0": "features.norm0",
    "features.denseblock1.denselayer1.conv1": "features.denseblock1.denselayer1.norm2",
    # torch.cat in the next layer's bn_function, then its norm1.
    "features.denseblock1.denselayer1.conv2": "features.denseblock1.denselayer2.norm1",
    # The last layer of a block is read only by the block's own torch.cat.
    "features.denseblock1.denselayer6.conv2": "features.transition1.norm",
    "features.transition1.conv": "features.denseblock2.denselayer1.norm1",
    "features.denseblock4.denselayer16.conv2": "features.norm5",
}


def _densenet(label: str, passed: tuple[str, ...], **options: Any) -> Expectation:
    return Expectation(
        model=label,
        build=zoo("densenet121", **options),
        convolutions=1 + _DENSE_LAYERS * 2 + 3,
        bare=nothing,
        bare_count=0,
        why="_DenseLayer.forward: conv2's output is read through torch.cat by norm1 of every later "
        "layer of the block and by the norm behind the block; conv1 by norm2; a _Transition's "
        "conv through its AvgPool2d",
        # norm0, norm1 and norm2 in each layer, one in each transition, norm5; the classifier's bias.
        second_order=SecondOrder(norms=1 + _DENSE_LAYERS * 2 + 3 + 1, bias=1),
        # Concatenation and pooling are more than shape: conv2 of every layer and the transitions' conv.
        direct=lambda name: name.endswith(".conv2") or ".transition" in name,
        norms=_DENSENET_NORMS,
        via={
            "features.denseblock1.denselayer1.conv1": (),
            "features.denseblock1.denselayer1.conv2": passed,
            "features.transition1.conv": ("avgpool", "cat"),
        },
        example=_SMALL,
    )


# Inception: 5 in the stem; A has 1 + 2 + 3 + 1, B 1 + 3, C 1 + 3 + 5 + 1, D 2 + 4, E 1 + 3 + 4 + 1; the
# auxiliary head has 2.
_INCEPTION = 5 + 3 * 7 + 4 + 4 * 10 + 6 + 2 * 9 + 2
# GoogLeNet: 3 in the stem, 9 Inception modules of 1 + 2 + 2 + 1, one in each auxiliary head.
_GOOGLENET = 3 + 9 * 6 + 2

_BRANCHED = (
    _densenet("densenet121", ("cat",)),
    _densenet("densenet121 with dropout", ("dropout", "cat"), drop_rate=0.2),
    Expectation(
        model="inception_v3",
        build=zoo("inception_v3", init_weights=False),
        convolutions=_INCEPTION,
        bare=nothing,
        bare_count=0,
        why="BasicConv2d.forward: conv, bn, relu, everywhere; AuxLogits runs in training mode only",
        # fc and AuxLogits.fc.
        second_order=SecondOrder(norms=_INCEPTION, bias=2),
        norms={
            "Mixed_7b.branch3x3_2a.conv": "Mixed_7b.branch3x3_2a.bn",
            "AuxLogits.conv1.conv": "AuxLogits.conv1.bn",
        },
    ),
    Expectation(
        model="googlenet",
        build=zoo("googlenet", init_weights=False),
        convolutions=_GOOGLENET,
        bare=nothing,
        bare_count=0,
        why="BasicConv2d.forward: conv, bn, relu, everywhere; aux1 and aux2 run in training mode only",
        # fc, and fc1 and fc2 of both auxiliary heads.
        second_order=SecondOrder(norms=_GOOGLENET, bias=1 + 2 * 2),
        norms={"inception3a.branch4.1.conv": "inception3a.branch4.1.bn", "aux1.conv.conv": "aux1.conv.bn"},
        example=_SMALL,
    ),
)


def _video(name: str, convolutions: int, **changes: Any) -> Expectation:
    return Expectation(
        model=name,
        build=zoo(name),
        convolutions=convolutions,
        bare=nothing,
        bare_count=0,
        why="video.resnet.BasicBlock: conv_builder, BatchNorm3d, ReLU; conv_builder, BatchNorm3d; "
        "then the addition",
        second_order=SecondOrder(norms=convolutions, bias=1),
        **changes,
    )


_VIDEOS = (
    # As resnet18, in three dimensions; Conv3DSimple and Conv3DNoTemporal are subclasses of Conv3d.
    _video("r3d_18", _RESNET18, norms={"layer1.0.conv1.0": "layer1.0.conv1.1", "stem.0": "stem.1"}),
    _video("mc3_18", _RESNET18, norms={"layer2.0.conv1.0": "layer2.0.conv1.1"}),
    # Each convolution but the downsamplings is split in two, with a batch norm between and one behind: the
    # last convolution of a Conv2Plus1D meets its norm outside the module that holds it.
    _video(
        "r2plus1d_18",
        2 + 8 * 4 + 3,
        norms={"layer1.0.conv1.0.0": "layer1.0.conv1.0.1", "layer1.0.conv1.0.3": "layer1.0.conv1.1"},
    ),
    Expectation(
        model="s3d",
        build=zoo("s3d"),
        # Two TemporalSeparableConv of 2, one 1x1x1, nine SepInceptionBlock3D of 1 + 3 + 3 + 1, the
        # classifier.
        convolutions=2 * 2 + 1 + 9 * 8 + 1,
        bare=ends("classifier.1"),
        bare_count=1,
        why="Conv3dNormActivation everywhere; the classifier's Conv3d goes to torch.mean and out",
        # The classifier is a convolution with a bias; there is no Linear.
        second_order=SecondOrder(norms=77, gain=1, bias=1),
        norms={"features.0.0.0": "features.0.0.1"},
        reasons={"classifier.1": ("mean",)},
    ),
)

RESIDUAL = _RESNETS + _BRANCHED + _VIDEOS
